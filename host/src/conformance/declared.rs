//! The table and the options: what is declared, and what is refused.

use immortal_monitor_api::abi;
use immortal_monitor_api::scalar;

use super::life::{Context, Outcome};
use super::notes::step;
use super::recorder::Recorder;
use super::wire::Finding;
use crate::loader::{Instance, check_options, one_line};
use crate::options::{OptionDecl, OptionType, OptionValue, ValueKind};

pub(super) fn loads(context: &Context<'_>) -> Outcome {
    let took = context.load_time;
    let text = format!("in {:.2} ms", took.as_secs_f64() * 1e3);
    Ok(if took.as_millis() < 100 {
        Finding::Pass(text)
    } else {
        Finding::Warn(format!("{text}: a start waits for it"))
    })
}

pub(super) fn table(context: &Context<'_>) -> Outcome {
    let table = context.library.table();
    let description = context.library.description();
    let mut faults = Vec::new();
    for (text, what) in [(table.name, "name"), (table.version, "version")] {
        if text.is_null() {
            faults.push(format!("it has no {what}"));
        }
    }
    for (text, what) in [(&description.name, "name"), (&description.version, "version")] {
        if text.trim().is_empty() {
            faults.push(format!("its {what} is empty"));
        }
    }
    for (text, what) in
        [(&description.name, "name"), (&description.version, "version"), (&description.about, "description")]
    {
        if text.contains('\u{fffd}') {
            faults.push(format!("its {what} is not UTF-8"));
        }
    }
    let unknown = table.flags & !abi::MONITOR_PANIC_ABORT;
    if unknown != 0 {
        faults.push(format!("it sets flags that have no meaning ({unknown:#x})"));
    }
    if table.reserved_pointers.iter().any(|pointer| !pointer.is_null()) || table.reserved_numbers != [0; 4] {
        faults.push("its reserved members are not zero".into());
    }
    if let Finding::Fail(text) = Finding::of_faults(&faults) {
        return Ok(Finding::Fail(text));
    }
    let hooks = [table.setup.is_some(), table.output.is_some(), table.event.is_some()];
    Ok(if table.flags & abi::MONITOR_PANIC_ABORT != 0 {
        Finding::Warn("built with panic = \"abort\": a panic ends the pump without its text".into())
    } else if hooks == [false; 3] {
        Finding::Warn("it implements neither setup nor output nor event, so it is told of nothing".into())
    } else if description.about.is_empty() {
        Finding::Warn("it has no description".into())
    } else {
        Finding::pass()
    })
}

/// Names, types, defaults and choices agree with each other.
pub(super) fn declaration(context: &Context<'_>) -> Outcome {
    let Some(options) = &context.library.description().options else {
        return Ok(Finding::Warn(
            "it declares no options, not even that it has none: a misspelt one goes unnoticed".into(),
        ));
    };
    let mut faults: Vec<String> = options.iter().flat_map(option_faults).collect();
    for (at, option) in options.iter().enumerate() {
        if options[..at].iter().any(|earlier| earlier.name == option.name) {
            faults.push(format!("option {} is declared twice", option.name));
        }
    }
    if let Finding::Fail(text) = Finding::of_faults(&faults) {
        return Ok(Finding::Fail(text));
    }
    let pointless = options.iter().find(|option| option.required && option.default.is_some());
    let helpless = options.iter().find(|option| option.help.trim().is_empty());
    let unknown = options.iter().find(|option| matches!(option.kind, OptionType::Other(_)));
    Ok(match (pointless, helpless, unknown) {
        (Some(option), _, _) => {
            Finding::Warn(format!("option {} is required, so its default is never used", option.name))
        }
        (_, Some(option), _) => Finding::Warn(format!("option {} has no help", option.name)),
        (_, _, Some(option)) => {
            Finding::Warn(format!("option {} has a type that this immortal does not know", option.name))
        }
        (None, None, None) => Finding::pass(),
    })
}

fn option_faults(option: &OptionDecl) -> Vec<String> {
    let name = &option.name;
    let mut faults = Vec::new();
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_name {
        faults.push(format!("option `{name}` is not named [a-z][a-z0-9_]*"));
    }
    match (option.kind == OptionType::Choice, option.choices.is_empty()) {
        (true, true) => faults.push(format!("option {name} is a choice without choices")),
        (false, false) => faults.push(format!("option {name} has choices, and is a {}", option.kind)),
        (true, false) | (false, true) => {}
    }
    if let Some(why) = option.default.as_ref().and_then(|default| misfit(option, default)) {
        let default = option.default.as_deref().unwrap_or_default();
        faults.push(format!("option {name}: its default `{default}` is ill-typed: {why}"));
    }
    faults
}

/// Why a text is no value of the option's type.
fn misfit(option: &OptionDecl, text: &str) -> Option<String> {
    match option.kind {
        OptionType::String | OptionType::Other(_) => None,
        OptionType::Path => text.is_empty().then(|| "an empty path".into()),
        OptionType::Integer => scalar::integer(text).err(),
        OptionType::Boolean => scalar::boolean(text).err(),
        OptionType::Size => scalar::size(text).err(),
        OptionType::Duration => scalar::duration(text).err(),
        OptionType::Choice => {
            let is_one = option.choices.iter().any(|choice| choice == text);
            (!is_one).then(|| format!("not one of {}", option.choices.join(", ")))
        }
    }
}

/// `check` of the library with these options; why it refuses.
fn check(context: &Context<'_>, options: &[OptionValue]) -> Result<(), String> {
    let (_, host) = Recorder::publish(&context.job.label);
    check_options(&context.library, host, options).map_err(|error| one_line(&error.text))
}

pub(super) fn accepted(context: &Context<'_>) -> Outcome {
    step("check");
    if let Err(why) = check(context, &context.job.options) {
        return Ok(Finding::Fail(format!(
            "check: {}",
            if why.is_empty() { "it gave no reason" } else { &why }
        )));
    }
    step("create");
    let (_, host) = Recorder::publish(&context.job.label);
    Instance::create(&context.library, host, &context.job.options)?;
    // Every default, typed out, is as good as left out.
    for option in context.library.description().options.iter().flatten().filter(|option| !option.required) {
        let Some(default) = option.default.as_ref().filter(|_| option.kind != OptionType::Path) else {
            continue;
        };
        step(&format!("check with {}={default}", option.name));
        if let Err(why) = check(context, &with(&context.job.options, &option.name, text(default))) {
            return Ok(Finding::Fail(format!("it refuses its own default {}={default}: {why}", option.name)));
        }
    }
    Ok(Finding::pass())
}

fn text(value: impl AsRef<[u8]>) -> (Vec<u8>, ValueKind) {
    (value.as_ref().to_vec(), ValueKind::Text)
}

/// The options with one of them replaced or added.
fn with(options: &[OptionValue], key: &str, (value, kind): (Vec<u8>, ValueKind)) -> Vec<OptionValue> {
    let others = options.iter().filter(|option| option.key != key).cloned();
    others.chain([OptionValue { key: key.to_owned(), value, kind }]).collect()
}

pub(super) fn unknown_refused(context: &Context<'_>) -> Outcome {
    const KEY: &str = "no_monitor_has_such_an_option";
    if context.library.description().options.is_some() {
        return Ok(Finding::Pass("immortal itself refuses what is not declared".into()));
    }
    step("check with an unknown option");
    Ok(match check(context, &with(&context.job.options, KEY, text("1"))) {
        Ok(()) => Finding::Warn(
            "check accepts an option that cannot be its own; declare the options, or refuse there".into(),
        ),
        Err(_) => Finding::pass(),
    })
}

/// Each declared option with values that are none of its type, and each required one left out.
pub(super) fn ill_typed_refused(context: &Context<'_>) -> Outcome {
    let Some(options) = &context.library.description().options else {
        return Ok(Finding::Skip("it declares no options".into()));
    };
    let mut faults = Vec::new();
    let mut tried = 0;
    for option in options {
        for (value, shown) in wrong_values(option) {
            let shown = format!("{}{shown}", option.name);
            step(&format!("check with {shown}"));
            tried += 1;
            if check(context, &with(&context.job.options, &option.name, value)).is_ok() {
                faults.push(format!("check accepts {shown} ({})", option.kind));
            }
        }
        if option.required {
            step(&format!("check without {}", option.name));
            tried += 1;
            let others = context.job.options.iter().filter(|given| given.key != option.name);
            if check(context, &others.cloned().collect::<Vec<_>>()).is_ok() {
                faults.push(format!("check does not miss {}, which is required", option.name));
            }
        }
    }
    Ok(match Finding::of_faults(&faults) {
        Finding::Pass(_) if tried == 0 => Finding::Skip("no option has a type that could be missed".into()),
        Finding::Pass(_) => Finding::Pass(format!("{tried} wrong values")),
        finding @ (Finding::Warn(_) | Finding::Fail(_) | Finding::Skip(_)) => finding,
    })
}

type Wrong = ((Vec<u8>, ValueKind), &'static str);

/// Values that are wrong for the option's type, each with how a user would have typed it.
fn wrong_values(option: &OptionDecl) -> Vec<Wrong> {
    let mut wrong: Vec<Wrong> = match option.kind {
        OptionType::String | OptionType::Other(_) => Vec::new(),
        OptionType::Path => vec![(text(""), "=")],
        OptionType::Integer => vec![(text("abc"), "=abc"), (text("1e99"), "=1e99"), (text(""), "=")],
        OptionType::Boolean => vec![(text("maybe"), "=maybe")],
        OptionType::Size => vec![(text("10 apples"), "=10 apples"), (text("-1"), "=-1")],
        OptionType::Duration => vec![(text("soon"), "=soon"), (text("-1s"), "=-1s")],
        OptionType::Choice => vec![(text("\u{1}none of them"), "=<none of the choices>")],
    };
    if !wrong.is_empty() {
        if option.kind != OptionType::Path {
            wrong.push((text(b"\xff\xfe"), "=<bytes that are not UTF-8>"));
        }
        wrong.push(((b"{\"a\":[]}".to_vec(), ValueKind::Json), ":={\"a\":[]}"));
        if !option.nullable {
            wrong.push(((b"null".to_vec(), ValueKind::Json), ":=null"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(kind: OptionType, default: Option<&str>, choices: &[&str]) -> OptionDecl {
        OptionDecl {
            name: "x".into(),
            help: "h".into(),
            default: default.map(str::to_owned),
            choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
            kind,
            required: false,
            nullable: false,
            secret: false,
        }
    }

    #[test]
    fn default_must_be_of_the_options_type() {
        for (kind, good, bad) in [
            (OptionType::Integer, "-3", "three"),
            (OptionType::Boolean, "false", "no"),
            (OptionType::Size, "10MiB", "10 apples"),
            (OptionType::Duration, "1m30s", "5"),
        ] {
            assert_eq!(option_faults(&option(kind, Some(good), &[])), Vec::<String>::new());
            assert_eq!(option_faults(&option(kind, Some(bad), &[])).len(), 1, "{kind}");
        }
        assert_eq!(option_faults(&option(OptionType::Choice, Some("a"), &["a", "b"])), Vec::<String>::new());
        assert_eq!(option_faults(&option(OptionType::Choice, Some("c"), &["a", "b"])).len(), 1);
        assert_eq!(option_faults(&option(OptionType::Choice, None, &[])).len(), 1);
        assert_eq!(option_faults(&option(OptionType::String, None, &["a"])).len(), 1);
    }
}
