//! Options: what is accepted, what a monitor reads, and how a refusal reads.

use immortal_monitor_api::fake::FakeHost;
use immortal_monitor_api::*;
use std::path::Path;
use std::time::Duration;

struct All;

impl Monitor for All {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::string("text", "").nullable(),
        OptionSpec::path("file", ""),
        OptionSpec::integer("count", "").default("7").nullable(),
        OptionSpec::boolean("flag", "").default("false"),
        OptionSpec::size("limit", "").default("10MiB"),
        OptionSpec::duration("pause", "").default("1m30s"),
        OptionSpec::one_of("color", "", &["red", "green"]).default("red"),
        OptionSpec::integer("pin", "").secret(),
    ];
    fn new(_: Host, _: &Options) -> Result<Self> {
        Ok(Self)
    }
}

struct Needy;

impl Monitor for Needy {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::path("file", "").required(),
        OptionSpec::one_of("color", "", &["red", "green"]).required().nullable(),
    ];
    fn new(_: Host, _: &Options) -> Result<Self> {
        Ok(Self)
    }
}

fn read(given: &[&str]) -> Options {
    FakeHost::new().options::<All>(given).expect("valid options")
}

fn refusal<M: Monitor>(given: &[&str]) -> String {
    FakeHost::new().options::<M>(given).expect_err("a refusal").to_string()
}

#[test]
fn what_is_not_given_has_its_default() {
    let options = read(&[]);
    assert_eq!(options.opt_string("text"), Ok(None));
    assert_eq!(options.opt_path("file"), Ok(None));
    assert_eq!(options.integer("count"), Ok(7));
    assert_eq!(options.boolean("flag"), Ok(false));
    assert_eq!(options.size("limit"), Ok(10 << 20));
    assert_eq!(options.duration("pause"), Ok(Duration::from_secs(90)));
    assert_eq!(options.choice("color"), Ok("red"));
}

#[test]
fn text_is_understood_by_the_options_type() {
    let options =
        read(&["text=a=b", "file=/x/y z", "count=-1", "flag=true", "limit=3k", "pause=0", "color=green"]);
    assert_eq!(options.string("text"), Ok("a=b"));
    assert_eq!(options.bytes("text"), Ok(&b"a=b"[..]));
    assert_eq!(options.path("file"), Ok(Path::new("/x/y z")));
    assert_eq!(options.integer("count"), Ok(-1));
    assert_eq!(options.boolean("flag"), Ok(true));
    assert_eq!(options.size("limit"), Ok(3072));
    assert_eq!(options.duration("pause"), Ok(Duration::ZERO));
    assert_eq!(options.choice("color"), Ok("green"));
}

#[test]
fn json_is_understood_by_the_options_type() {
    let options = read(&[
        "text:=\"caf\\u00e9\"",
        "file:=\"/x\"",
        "count:=12",
        "flag:=true",
        "limit:=1024",
        "pause:=\"5s\"",
        "color:=\"green\"",
    ]);
    assert_eq!(options.string("text"), Ok("café"));
    assert_eq!(options.path("file"), Ok(Path::new("/x")));
    assert_eq!(options.integer("count"), Ok(12));
    assert_eq!(options.boolean("flag"), Ok(true));
    assert_eq!(options.size("limit"), Ok(1024));
    assert_eq!(options.duration("pause"), Ok(Duration::from_secs(5)));
    assert_eq!(options.choice("color"), Ok("green"));
}

#[test]
fn null_is_none_even_where_there_is_a_default() {
    let options = read(&["count:=null"]);
    assert_eq!(options.opt_integer("count"), Ok(None));
    assert_eq!((options.is_null("count"), options.is_set("count")), (Ok(true), Ok(false)));
    assert_eq!((options.is_null("text"), options.is_set("text")), (Ok(false), Ok(false)));
    assert!(options.integer("count").is_err());
    assert_eq!(read(&["text=null"]).string("text"), Ok("null"), "as text it is four letters");
}

#[test]
fn of_two_of_the_same_name_the_last_wins() {
    assert_eq!(read(&["count=1", "count=2"]).integer("count"), Ok(2));
    assert_eq!(read(&["count:=null", "count=2"]).integer("count"), Ok(2));
}

#[test]
fn a_refusal_is_one_line_that_says_which_and_why() {
    for (given, text) in [
        ("count=abc", "option count=abc: not an integer"),
        ("count:=1.5", "option count:=1.5: not an integer"),
        ("count:={", "option count:={: a list or an object is no value for an option"),
        ("count:=x", "option count:=x: not a JSON value"),
        ("file=", "option file=: an empty path"),
        ("file:=null", "option file:=null: cannot be null"),
        ("flag=yes", "option flag=yes: neither true nor false"),
        ("limit=1.5M", "option limit=1.5M: not a size such as 10MiB"),
        ("pause=5", "option pause=5: a duration needs a unit, as in 5s"),
        ("color=blue", "option color=blue: not one of red, green"),
        ("count=a\nb", "option count=a\\nb: not an integer"),
        ("pin=secret", "option pin=***: not an integer"),
        ("pin:=\"secret", "option pin:=***: not a JSON string"),
    ] {
        assert_eq!(refusal::<All>(&[given]), text);
    }
    let long = refusal::<All>(&[&format!("count={}", "x".repeat(1000))]);
    assert!(long.chars().count() < 100, "{long}");
}

#[test]
fn an_unknown_option_is_refused_with_those_that_there_are() {
    assert_eq!(refusal::<Needy>(&["tea=1"]), "unknown option tea\nhint: it takes file, color");
}

#[test]
fn a_required_option_must_be_given() {
    assert_eq!(refusal::<Needy>(&[]), "option file is required\nhint: -o file=FILE");
    assert_eq!(refusal::<Needy>(&["file=/x"]), "option color is required\nhint: -o color=red|green");
    FakeHost::new().options::<Needy>(&["file=/x", "color:=null"]).expect("null is given");
}

#[test]
fn reading_what_is_not_declared_is_a_mistake_that_is_said() {
    let error = read(&[]).opt_string("colour").expect_err("not declared").to_string();
    assert_eq!(error, "the monitor reads option colour but does not declare it");
}

#[test]
fn options_show_no_value_when_they_are_printed() {
    let shown = format!("{:?}", read(&["pin=1234"]));
    assert!(shown.contains("pin") && !shown.contains("1234"), "{shown}");
}
