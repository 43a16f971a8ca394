//! What a check gives back, what it tells a monitor, and what the helper process is like.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use immortal::loader::{Checked, Door, Settings, Spec, describe, load_trusted};
use immortal::options::{OptionType, ValueKind};
use log::LevelFilter;
use support::{EXECUTABLE, Sandbox, check, check_specs, line};

#[test]
fn library_is_described_with_its_options() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let (description, _) = describe(Path::new(EXECUTABLE), "m", &library).unwrap();
    assert_eq!(
        (
            description.name.as_str(),
            description.version.as_str(),
            description.about.as_str(),
            description.door
        ),
        ("puppet", "0.1", "does as it is told", Door::C)
    );
    let options = description.options.unwrap();
    assert_eq!(
        options.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(),
        ["fail", "text", "code", "process", "log"]
    );
    assert!(options[1].secret && options[2].nullable && options[4].required && !options[0].required);
    assert_eq!(options[1].default.as_deref(), Some("nothing"));
    assert_eq!((options[3].kind, options[4].kind), (OptionType::Path, OptionType::Choice));
    assert_eq!(options[4].choices, ["a", "b"]);
}

#[test]
fn passed_monitor_survives_the_way_to_the_pump() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let odd = sandbox.path(".").join(std::ffi::OsString::from_vec(b"odd-\xff.so".to_vec()));
    std::fs::rename(library, &odd).unwrap();
    let passed = check(&odd, &["process=x", "code:=null"]).unwrap();
    assert_eq!(passed.options[0].value, b"/x");
    assert_eq!(passed.options[1].kind, ValueKind::Json);
    let bytes = postcard::to_allocvec(&passed).unwrap();
    assert_eq!(postcard::from_bytes::<Checked>(&bytes).unwrap(), passed);
    let library =
        load_trusted(&passed, Path::new(EXECUTABLE), &Settings::default(), LevelFilter::Warn).unwrap();
    assert_eq!(library.description().name, "puppet");
}

#[test]
fn refusal_is_shown_as_the_monitor_words_it() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let refusal = |options: &[&str]| {
        let error = check(&library, options).unwrap_err();
        (line(&error), error.hint())
    };
    assert_eq!(
        refusal(&["fail=check", "text=no such thing\nhint: try another"]),
        ("monitor m: no such thing".into(), Some("try another".into()))
    );
    assert_eq!(refusal(&["fail=check"]).0, "monitor m: check failed and gave no reason");
    assert_eq!(
        refusal(&["fail=check", "text=check: panicked at x: boom", "code=-2"]).0,
        "monitor m: check: panicked: boom"
    );
    assert_eq!(refusal(&["fail=check", "code=77"]).0, "monitor m: returned 77, which means nothing");
    assert_eq!(refusal(&["fail=check", "text=name"]).0, "monitor m: web", "it can read the settings");
    let crashed = refusal(&["fail=check", "text=segv"]).0;
    assert!(crashed.ends_with("it crashed with SIGSEGV while checking its options"), "{crashed}");
    let ended = refusal(&["fail=check", "text=exit"]).0;
    assert!(ended.ends_with("it called exit(0) while checking its options"), "{ended}");
}

#[test]
fn option_that_nobody_declares_is_refused_without_its_value() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let error = check(&library, &["wrong=hunter2"]).unwrap_err();
    assert_eq!(line(&error), "option wrong: no monitor has it; m has fail, text, code, process, log");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn monitor_without_a_declaration_takes_addressed_options_alone() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("bare.so", &["UNDECLARED"]) else { return };
    assert_eq!(check(&library, &["m.any=1"]).unwrap().options[0].key, "any");
    let error = check(&library, &["any=1"]).unwrap_err();
    assert!(error.hint().unwrap().contains("-o m.any=VALUE"), "{error}");
}

#[test]
fn several_monitors_are_checked_and_keep_their_order() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("libgood.so", &[]) else { return };
    let specs: Vec<Spec> = ["a", "b", "c"]
        .iter()
        .map(|label| Spec::parse(format!("{label}={}", library.display()).as_ref()).unwrap())
        .collect();
    let passed = check_specs(&specs, &["b.text=x"]).unwrap();
    assert_eq!(passed.iter().map(|one| one.label.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(passed.iter().map(|one| one.options.len()).collect::<Vec<_>>(), [0, 1, 0]);
    let twice = [specs[0].clone(), specs[0].clone()];
    assert!(check_specs(&twice, &[]).unwrap_err().is_usage());
}

#[test]
fn helper_leads_its_group_and_has_no_descriptor_of_ours() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let report = sandbox.path("report");
    let file = std::fs::File::open(&library).unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    check(&library, &[&format!("process={}", report.display())]).unwrap();
    drop(file);
    let text = std::fs::read_to_string(report).unwrap();
    assert!(text.starts_with("fds 0 1 2 ; core ") && text.ends_with("; leader 1; segv default"), "{text}");
    assert!(text.contains("core 1;") || text.contains("core 0;"), "{text}");
}

#[test]
fn changed_library_is_checked_anew_before_it_is_loaded() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let passed = check(&library, &["text=kept"]).unwrap();
    let load = || load_trusted(&passed, Path::new(EXECUTABLE), &Settings::default(), LevelFilter::Warn);
    let Some(bad) = sandbox.compile("bad.so", &["CTOR_SEGV"]) else { return };
    std::fs::rename(bad, &library).unwrap();
    let text = line(&load().unwrap_err());
    assert!(text.ends_with("it crashed with SIGSEGV while loading it"), "{text}");
    let Some(new) = sandbox.compile("new.so", &[]) else { return };
    std::fs::rename(new, &library).unwrap();
    assert_eq!(load().unwrap().description().name, "puppet");
    std::fs::remove_file(&library).unwrap();
    assert!(line(&load().unwrap_err()).contains("unable to look at it"));
}
