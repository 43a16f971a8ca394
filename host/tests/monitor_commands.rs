//! `immortal monitor list` and `info`, and the help of `start`, from outside.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use serde_json::{Value, json};
use support::Sandbox;
use support::command::immortal;

#[test]
fn list_shows_every_monitor_in_search_order_and_why_one_is_refused() {
    let sandbox = Sandbox::new();
    for directory in ["a", "b"] {
        std::fs::create_dir(sandbox.path(directory)).unwrap();
    }
    let Some(_) = sandbox.compile("b/libfoo.so", &[]) else { return };
    sandbox.compile("a/libimmortal_monitor_foo.so", &[]);
    sandbox.compile("a/crash.so", &["CTOR_SEGV"]);
    std::fs::write(sandbox.path("b/text.so"), "no library").unwrap();
    let arguments = ["monitor", "list", "--monitor-path", "a", "--monitor-path", "b"];
    let said = immortal(&sandbox.path(""), &[arguments.as_slice(), &["--json"]].concat());
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let listed: Value = serde_json::from_str(&said.stdout).unwrap();
    let file = |file: &str| sandbox.path(file).display().to_string();
    let facts = |at: usize| {
        let entry = &listed[at];
        json!([entry["name"], entry["version"], entry["path"], entry["shadowed_by"], entry["refused"]])
    };
    let (chosen, crash) = (file("a/libimmortal_monitor_foo.so"), "it crashed with SIGSEGV while loading it");
    assert_eq!(facts(0), json!(["crash", null, file("a/crash.so"), null, crash]));
    assert_eq!(facts(1), json!(["foo", "0.1", chosen, null, null]));
    assert_eq!(facts(2), json!(["foo", "0.1", file("b/libfoo.so"), chosen, null]));
    assert_eq!(listed[3]["name"], "text");
    assert!(listed[3]["refused"].as_str().unwrap().contains("not a shared library"), "{listed}");
    let said = immortal(&sandbox.path(""), &arguments);
    assert!(said.stdout.starts_with("NAME"), "{}", said.stdout);
    assert!(said.stdout.contains(&format!("shadowed by {chosen}")), "{}", said.stdout);
    assert!(said.stdout.contains(&format!("refused: {crash}")), "{}", said.stdout);
}

#[test]
fn info_shows_what_a_monitor_says_of_itself() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile("good.so", &[]) else { return };
    let said = immortal(&sandbox.path(""), &["monitor", "info", "./good.so"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = said.stdout.lines().collect();
    for expected in [
        "name         puppet",
        "version      0.1",
        "description  does as it is told",
        "door         C",
        "  fail     string           -          the hook that fails",
        "  text     string           [nothing]  what it says (secret)",
        "  code     integer or null  -          what it returns",
        "  log      a|b              required   what is logged",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{}", said.stdout);
    }
    let said = immortal(&sandbox.path(""), &["monitor", "info", "./good.so", "--json"]);
    let info: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (&info["name"], &info["door"], &info["api_version"]),
        (&json!("puppet"), &json!("c"), &json!(null))
    );
    assert_eq!(info["options"][4]["choices"], json!(["a", "b"]));
}

#[test]
fn crashing_library_and_unknown_name_are_one_error_line() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile("crash.so", &["CTOR_ABORT"]) else { return };
    let said = immortal(&sandbox.path(""), &["monitor", "info", "./crash.so"]);
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.starts_with("error: monitor crash: /"), "{}", said.stderr);
    assert!(said.stderr.contains("it crashed with SIGABRT while loading it"), "{}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    let said = immortal(&sandbox.path(""), &["monitor", "info", "nowhere"]);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.starts_with("error: monitor nowhere: not found; looked in "), "{}", said.stderr);
    assert_eq!(immortal(&sandbox.path(""), &["monitor", "info", "no name"]).status, Some(2));
    assert_eq!(immortal(&sandbox.path(""), &["monitor", "info"]).status, Some(2));
}

#[test]
fn help_of_start_ends_with_the_options_of_the_monitors_it_names() {
    let sandbox = Sandbox::new();
    let Some(_) = sandbox.compile("good.so", &[]) else { return };
    let said = immortal(&sandbox.path(""), &["start", "-m", "x=./good.so", "--help"]);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let (_, own) =
        said.stdout.split_once("\nOptions of monitor x (puppet 0.1), each given as -o KEY=VALUE:\n").unwrap();
    assert_eq!(own.lines().count(), 5, "{own}");
    assert!(own.ends_with("  log      a|b              required   what is logged\n"), "{own}");
    let said = immortal(&sandbox.path(""), &["start", "-m", "nowhere", "--help"]);
    assert_eq!(said.status, Some(1));
    assert!(said.stdout.contains("Usage: immortal start"), "{}", said.stdout);
}
