//! Names of groups, labels and options of monitors, where monitors are found, and the runtime directory.

use immortal_tests::{CLibrary, Group, Launch, Sandbox, artifacts, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[test]
fn the_default_name_is_the_base_name_of_the_program() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.launch("unattached").unnamed().recorder().puppet(["hang"]).start().name, "puppet");
}

#[test]
fn characters_that_a_name_cannot_have_become_underscores_in_the_default() {
    let sandbox = Sandbox::new();
    let program = sandbox.executable(artifacts().puppet(), "my prog+é.v1");
    let group = sandbox
        .launch("unattached")
        .unnamed()
        .recorder()
        .program([program.as_os_str(), "hang".as_ref()])
        .start();
    // One for each character or one for each byte: both are other characters turned into `_`.
    assert!(["my_prog__.v1", "my_prog___.v1"].contains(&group.name.as_str()), "{}", group.name);
}

#[test]
fn names_of_the_allowed_characters_are_accepted() {
    let sandbox = Sandbox::new();
    let longest = "x".repeat(64);
    for name in ["a", "A.b_c@d-e", "0", "_", "@", &longest] {
        let group = sandbox.launch("unattached").name(name).recorder().puppet(["hang"]).start();
        assert_eq!(group.name, name);
    }
}

#[test]
fn other_names_are_2() {
    let sandbox = Sandbox::new();
    let too_long = "x".repeat(65);
    for name in ["", ".hidden", "..", "a/b", "a b", "ä", "a\n", "a:b", &too_long] {
        let outcome = sandbox
            .launch("unattached")
            .unnamed()
            .arg(format!("--name={name}"))
            .recorder()
            .puppet(["hang"])
            .run();
        outcome.assert_refused(2);
    }
    let dash = sandbox.launch("unattached").unnamed().arg("--name=-x").recorder().puppet(["hang"]).run();
    dash.assert_refused(2);
    assert!(sandbox.processes().is_empty());
}

/// A copy of the recorder under another file name.
fn recorder_as(sandbox: &Sandbox, file: &str) -> PathBuf {
    let copy = sandbox.path(file);
    std::fs::create_dir_all(copy.parent().expect("a file is in a folder")).expect("that folder");
    std::fs::copy(artifacts().monitor("recorder"), &copy).expect("the recorder was built");
    copy
}

fn suffixed(name: &str) -> String {
    format!("{name}{}", std::env::consts::DLL_SUFFIX)
}

fn labels(group: &Group<'_>) -> Vec<Value> {
    let status = group.status();
    status["monitors"].as_array().expect("a list").iter().map(|monitor| monitor["label"].clone()).collect()
}

#[test]
fn the_label_of_a_path_is_the_file_name_without_what_all_of_them_have() {
    for (file, label) in [
        ("libimmortal_monitor_one", "one"),
        ("libtwo", "two"),
        ("three", "three"),
        ("immortal_monitor_four", "four"),
    ] {
        let sandbox = Sandbox::new();
        let library = recorder_as(&sandbox, &suffixed(file));
        let group = sandbox.launch("unattached").arg("-m").arg(library).puppet(["hang"]).start();
        assert_eq!(labels(&group), [label], "{file}");
    }
}

#[test]
fn a_relative_path_with_a_slash_is_a_path() {
    let sandbox = Sandbox::new();
    recorder_as(&sandbox, &suffixed("libmymon"));
    let path = format!("./{}", suffixed("libmymon"));
    let group = sandbox.launch("daemon").args(["-m", &path]).puppet(["hang"]).start();
    assert_eq!(labels(&group), ["mymon"]);
}

#[test]
fn a_label_can_be_given_to_a_name_and_to_a_path() {
    let sandbox = Sandbox::new();
    let library = recorder_as(&sandbox, &suffixed("libmymon"));
    let group = sandbox
        .launch("unattached")
        .args(["-m", "first=recorder", "-m", &format!("second={}", library.display())])
        .puppet(["hang"])
        .start();
    assert_eq!(labels(&group), ["first", "second"]);
}

#[test]
fn two_equal_labels_are_2() {
    let sandbox = Sandbox::new();
    for monitors in [["recorder", "recorder"], ["x=recorder", "x=log"], ["log=recorder", "log"]] {
        let outcome = sandbox
            .launch("unattached")
            .args(["-m", monitors[0], "-m", monitors[1], "-o", "output:=null"])
            .puppet(["hang"])
            .run();
        outcome.assert_refused(2);
    }
}

/// The options as the recorder's accessors returned them.
fn options_told(launch: Launch<'_>) -> Value {
    let group = launch.recorder().puppet(["hang"]).start();
    group.wait_hook("new", 0).0["options"].clone()
}

#[test]
fn options_are_typed() {
    let sandbox = Sandbox::new();
    let told = options_told(
        sandbox
            .launch("unattached")
            .set("text", "a=b")
            .set("integer", "-7")
            .set("boolean", "true")
            .set("size", "10MiB")
            .set("duration", "500ms")
            .set("choice", "green"),
    );
    assert_eq!(told["text"], "a=b");
    assert_eq!(told["integer"], -7);
    assert_eq!(told["boolean"], true);
    assert_eq!(told["size"], 10 << 20);
    assert_eq!(told["duration"], 0.5);
    assert_eq!(told["choice"], "green");
}

#[test]
fn an_option_that_is_not_given_has_its_default() {
    let sandbox = Sandbox::new();
    let told = options_told(sandbox.launch("unattached"));
    assert_eq!((&told["choice"], &told["text"]), (&json!("red"), &Value::Null));
}

#[test]
fn json_values_are_understood_by_type() {
    let sandbox = Sandbox::new();
    let told = options_told(sandbox.launch("unattached").args([
        "-o",
        "text:=\"quoted \\\"x\\\"\"",
        "-o",
        "integer:=12",
        "-o",
        "boolean:=false",
        "-o",
        "choice:=null",
    ]));
    assert_eq!(told["text"], "quoted \"x\"");
    assert_eq!(told["integer"], 12);
    assert_eq!(told["boolean"], false);
    assert_eq!(told["choice"], Value::Null);
}

#[test]
fn a_value_can_be_read_from_a_file() {
    let sandbox = Sandbox::new();
    sandbox.file("value", "from a file", 0o600);
    let told = options_told(sandbox.launch("unattached").args(["-o", "text=@value"]));
    assert_eq!(told["text"], "from a file");
}

#[test]
fn a_value_file_that_is_missing_is_refused() {
    let sandbox = Sandbox::new();
    let outcome =
        sandbox.launch("unattached").recorder().args(["-o", "text=@no-such-file"]).puppet(["hang"]).run();
    assert!(outcome.assert_refused(125).contains("no-such-file"), "{outcome}");
}

#[test]
fn two_ats_are_a_literal_one() {
    let sandbox = Sandbox::new();
    let told = options_told(sandbox.launch("unattached").args(["-o", "text=@@home"]));
    assert_eq!(told["text"], "@home");
}

#[test]
fn paths_are_made_absolute_against_the_callers_directory() {
    let sandbox = Sandbox::new();
    let told = options_told(sandbox.launch("daemon").args([
        "--cwd",
        "/",
        "-o",
        "path=some/file",
        "-o",
        "text=some/file",
    ]));
    assert_eq!(told["path"], sandbox.text_path("some/file"));
    assert_eq!(told["text"], "some/file", "what is no path stays as it is");
}

#[test]
fn a_plain_key_goes_to_every_monitor_that_declares_it() {
    let sandbox = Sandbox::new();
    let record = sandbox.text_path("record");
    let group = sandbox
        .launch("unattached")
        .args(["-m", "one=recorder", "-m", "two=recorder", "-m", "log", "-o", "output:=null"])
        .set("record", &record)
        .set("text", "for both")
        .puppet(["hang"])
        .start();
    let records = group
        .wait_records("both", |records| records.iter().filter(|record| record.hook() == "new").count() == 2);
    for record in records.iter().filter(|record| record.hook() == "new") {
        assert_eq!(record.0["options"]["text"], "for both");
    }
}

#[test]
fn a_key_with_a_label_goes_to_one_monitor() {
    let sandbox = Sandbox::new();
    let record = sandbox.text_path("record");
    let group = sandbox
        .launch("unattached")
        .args(["-m", "one=recorder", "-m", "two=recorder"])
        .set("record", &record)
        .set("two.text", "for one of them")
        .puppet(["hang"])
        .start();
    let records = group
        .wait_records("both", |records| records.iter().filter(|record| record.hook() == "new").count() == 2);
    let texts: Vec<&Value> = records
        .iter()
        .filter(|record| record.hook() == "new")
        .map(|record| &record.0["options"]["text"])
        .collect();
    assert_eq!(texts, [&Value::Null, &json!("for one of them")]);
}

/// Asserts that `-m NAME` of this launch is the library at `path`.
#[track_caller]
fn found(launch: Launch<'_>, name: &str, path: &Path) {
    let group = launch.args(["-m", name]).puppet(["hang"]).start();
    assert_eq!(group.status()["monitors"][0]["path"], path.to_str().unwrap_or_default());
    group.stop();
}

#[test]
fn the_three_file_names_are_tried_in_order() {
    let sandbox = Sandbox::new();
    let files = ["found/foo", "found/libfoo", "found/libimmortal_monitor_foo"].map(suffixed);
    for file in files {
        let library = recorder_as(&sandbox, &file);
        found(sandbox.launch("unattached").arg("--monitor-path").arg(sandbox.path("found")), "foo", &library);
    }
}

#[test]
fn a_dash_in_a_name_is_read_as_an_underscore() {
    let sandbox = Sandbox::new();
    let library = recorder_as(&sandbox, &suffixed("found/libimmortal_monitor_my_own"));
    found(sandbox.launch("unattached").arg("--monitor-path").arg(sandbox.path("found")), "my-own", &library);
}

#[test]
fn the_directories_are_searched_in_order() {
    let sandbox = Sandbox::new();
    let file = suffixed("libimmortal_monitor_foo");
    let launch = || {
        let variable = format!("{}:{}", sandbox.text_path("variable1"), sandbox.text_path("variable2"));
        sandbox
            .launch("unattached")
            .env("IMMORTAL_MONITOR_PATH", variable)
            .env("XDG_DATA_HOME", sandbox.path("data"))
            .arg("--monitor-path")
            .arg(sandbox.path("option1"))
            .arg("--monitor-path")
            .arg(sandbox.path("option2"))
    };
    // From the last to the first, each before the ones that are there already.
    for folder in ["data/immortal/monitors", "variable2", "variable1", "option2", "option1"] {
        let library = recorder_as(&sandbox, &format!("{folder}/{file}"));
        found(launch(), "foo", &library);
    }
}

#[test]
fn a_library_in_the_users_data_directory_is_found_by_name() {
    let sandbox = Sandbox::new();
    let library =
        recorder_as(&sandbox, &suffixed("home/.local/share/immortal/monitors/libimmortal_monitor_foo"));
    found(sandbox.launch("unattached"), "foo", &library);
}

#[test]
fn a_library_beside_the_executable_is_found_by_name() {
    for folder in ["bin/monitors", "lib/immortal/monitors", "bin"] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("bin")).unwrap();
        let executable = sandbox.executable(artifacts().immortal(), "bin/immortal");
        let library = recorder_as(&sandbox, &format!("{folder}/{}", suffixed("libimmortal_monitor_foo")));
        let start = sandbox
            .invocation(&executable)
            .args(["start", "-s", "daemon", "-n", "group", "-m", "foo"])
            .arg(artifacts().puppet())
            .arg("hang")
            .run();
        start.assert_code(0);
        let group = Group::find(&sandbox, "group");
        assert_eq!(group.status()["monitors"][0]["path"], library.to_str().unwrap(), "{folder}");
    }
}

#[test]
fn a_name_is_not_searched_in_the_working_directory() {
    let sandbox = Sandbox::new();
    recorder_as(&sandbox, &suffixed("libimmortal_monitor_here"));
    sandbox.launch("unattached").args(["-m", "here"]).puppet(["hang"]).run().assert_refused(125);
}

#[test]
fn a_name_is_not_searched_by_the_system_loader() {
    let sandbox = Sandbox::new();
    for name in ["c", "m", "libm", "pthread"] {
        let library_path = sandbox.text_path("elsewhere");
        recorder_as(&sandbox, &format!("elsewhere/{}", suffixed(name)));
        let outcome = sandbox
            .launch("unattached")
            .env("LD_LIBRARY_PATH", library_path)
            .args(["-m", name])
            .puppet(["hang"])
            .run();
        outcome.assert_refused(125);
    }
}

#[test]
fn not_found_says_where_it_looked() {
    let sandbox = Sandbox::new();
    let outcome = sandbox
        .launch("unattached")
        .env("IMMORTAL_MONITOR_PATH", sandbox.path("variable"))
        .arg("--monitor-path")
        .arg(sandbox.path("option"))
        .args(["-m", "nowhere"])
        .puppet(["hang"])
        .run();
    outcome.assert_refused(125);
    for place in [
        sandbox.text_path("option"),
        sandbox.text_path("variable"),
        sandbox.text_path("home/.local/share/immortal/monitors"),
        "/usr/local/lib/immortal/monitors".to_owned(),
        "/usr/lib/immortal/monitors".to_owned(),
    ] {
        assert!(outcome.err().contains(&place), "{place} in {outcome}");
    }
}

#[test]
fn a_monitor_name_of_other_characters_is_refused() {
    let sandbox = Sandbox::new();
    for name in ["-x", "a b", ".", "..", "ä"] {
        let monitor = format!("--monitor={name}");
        let outcome = sandbox.launch("unattached").arg(monitor).puppet(["hang"]).run();
        outcome.assert_refused(outcome.code.unwrap_or(0));
        assert!([Some(2), Some(125)].contains(&outcome.code), "{outcome}");
    }
}

#[test]
fn a_symbolic_link_to_a_library_is_followed() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "real");
    let link = sandbox.path(suffixed("link"));
    std::os::unix::fs::symlink(library, &link).unwrap();
    let group = sandbox.launch("unattached").arg("-m").arg(link).puppet(["hang"]).start();
    assert_eq!(labels(&group), ["link"]);
}

#[test]
fn a_library_that_is_replaced_by_rename_is_checked_and_used_at_the_next_respawn_of_the_pump() {
    let sandbox = Sandbox::new();
    let library = recorder_as(&sandbox, &suffixed("live"));
    let group = sandbox
        .launch("daemon")
        .arg("-m")
        .arg(&library)
        .set("record", sandbox.path("record"))
        .puppet(["hang"])
        .start();
    let upgrade = recorder_as(&sandbox, "upgrade");
    std::fs::rename(upgrade, &library).unwrap();
    group.member(immortal_tests::Role::Monitor).signal(immortal_tests::Signal::SIGKILL);
    assert_eq!(group.wait_hook("setup", 1).text("why"), "pump restart");
}

#[test]
fn the_runtime_directory_is_made_for_its_owner_alone_and_kept() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    group.stop();
    let mode = std::fs::metadata(sandbox.runtime()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "{mode:o}");
}

#[test]
fn missing_parents_of_the_runtime_directory_are_made() {
    let sandbox = Sandbox::new();
    let deep = sandbox.path("a/b/run");
    let outcome =
        sandbox.launch("unattached").env("IMMORTAL_RUNTIME_DIR", &deep).recorder().puppet(["hang"]).run();
    outcome.assert_code(0);
    assert!(deep.is_dir());
    sandbox.immortal(["stop", "group"]).env("IMMORTAL_RUNTIME_DIR", &deep).run().assert_code(0);
}

fn refused_runtime(sandbox: &Sandbox, words: &[&str]) {
    let outcome = sandbox.launch("daemon").recorder().puppet(["note=ran", "hang"]).run();
    let error = outcome.assert_refused(125);
    assert!(error.contains(sandbox.runtime().to_str().unwrap_or_default()), "{error}");
    assert!(words.iter().any(|word| error.contains(word)), "one of {words:?} in {error}");
    assert!(sandbox.processes().is_empty() && sandbox.noted("ran").is_empty());
}

#[test]
fn a_runtime_directory_that_others_may_write_to_is_refused() {
    for mode in [0o720, 0o702] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.runtime()).unwrap();
        std::fs::set_permissions(sandbox.runtime(), PermissionsExt::from_mode(mode)).unwrap();
        refused_runtime(&sandbox, &["writ"]);
    }
}

#[test]
fn a_runtime_directory_that_is_a_symbolic_link_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("real")).unwrap();
    std::fs::set_permissions(sandbox.path("real"), PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(sandbox.path("real"), sandbox.runtime()).unwrap();
    refused_runtime(&sandbox, &["symbolic link", "symlink"]);
}

#[test]
fn a_runtime_directory_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give directories away");
        return;
    }
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.runtime()).unwrap();
    std::fs::set_permissions(sandbox.runtime(), PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(sandbox.runtime(), Some(65534), None).unwrap();
    refused_runtime(&sandbox, &["own", "belong"]);
}

#[test]
fn a_runtime_directory_that_cannot_be_made_is_refused() {
    for strategy in ["unattached", "daemon"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox
            .launch(strategy)
            .env("IMMORTAL_RUNTIME_DIR", "/dev/null/run")
            .recorder()
            .puppet(["hang"])
            .run();
        assert!(outcome.assert_refused(125).contains("/dev/null/run"), "{outcome}");
        assert!(sandbox.processes().is_empty());
    }
}

#[test]
fn any_length_of_the_runtime_directory_works() {
    let sandbox = Sandbox::new();
    // The address of a socket has room for 108 bytes, 104 on macOS.
    let long = sandbox.path("x".repeat(100)).join("y".repeat(100)).join("run");
    let at = |command: &[&str]| sandbox.immortal(command).env("IMMORTAL_RUNTIME_DIR", &long).run();
    let name = "n".repeat(64);
    let start = sandbox
        .launch("daemon")
        .name(&name)
        .env("IMMORTAL_RUNTIME_DIR", &long)
        .recorder()
        .puppet(["hang"])
        .run();
    start.assert_code(0);
    at(&["restart", &name]).assert_code(0);
    assert_eq!(at(&["status", &name, "--json"]).json()["restarts"], 1);
    assert_eq!(at(&["list", "--json"]).json()[0]["name"], name);
    at(&["stop", &name]).assert_code(0);
    assert!(sandbox.processes().is_empty());
}

#[test]
fn a_group_is_found_from_any_directory() {
    let sandbox = Sandbox::new();
    let group = sandbox.launch("unattached").recorder().puppet(["hang"]).start();
    let status = sandbox.immortal(["status", "group", "--json"]).cwd("/").run();
    assert_eq!(immortal_tests::Pids::from_json(&status.json()["pids"]), group.started);
}

/// `immortal start` of a sleeper as an ordinary user, without a runtime directory in the environment.
fn start_without_runtime_dir(sandbox: &Sandbox, variables: &[(&str, PathBuf)]) {
    let mut start = sandbox.unprivileged().env_remove("IMMORTAL_RUNTIME_DIR").args([
        "start",
        "-n",
        "group",
        "-m",
        "recorder",
        "/bin/sleep",
        "1000",
    ]);
    for (key, value) in variables {
        start = start.env(key, value);
    }
    start.run().assert_code(0);
}

#[test]
fn the_runtime_directory_is_in_the_state_home() {
    let sandbox = Sandbox::new();
    start_without_runtime_dir(&sandbox, &[("XDG_STATE_HOME", sandbox.path("home/state"))]);
    assert!(sandbox.path("home/state/immortal/run").is_dir());
    let stop = sandbox.unprivileged().env_remove("IMMORTAL_RUNTIME_DIR");
    stop.env("XDG_STATE_HOME", sandbox.path("home/state")).args(["stop", "group"]).run().assert_code(0);
}

#[test]
fn the_state_home_is_below_home_by_default() {
    let sandbox = Sandbox::new();
    // Not here: it vanishes at logout.
    let fleeting = sandbox.path("home/fleeting");
    start_without_runtime_dir(&sandbox, &[("XDG_RUNTIME_DIR", fleeting.clone())]);
    assert!(sandbox.path("home/.local/state/immortal/run").is_dir());
    assert!(!fleeting.exists());
    let stop = sandbox.unprivileged().env_remove("IMMORTAL_RUNTIME_DIR").args(["stop", "group"]).run();
    stop.assert_code(0);
}

#[test]
fn without_a_home_the_runtime_directory_is_in_tmp() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become a user without a home");
        return;
    }
    let sandbox = Sandbox::new();
    // A user whose directory nobody else uses: the number of this process's own pid is as good as any.
    let uid = 100_000 + std::process::id();
    let directory = PathBuf::from(format!("/tmp/immortal-{uid}"));
    drop(sandbox.unprivileged());
    let start = sandbox
        .invocation(sandbox.path("bin/immortal"))
        .user(uid, uid)
        .env_remove("IMMORTAL_RUNTIME_DIR")
        .env_remove("HOME")
        .args(["start", "-n", "group", "-m", "recorder", "/bin/sleep", "1000"])
        .run();
    let made = directory.symlink_metadata();
    let stop = sandbox
        .invocation(sandbox.path("bin/immortal"))
        .user(uid, uid)
        .env_remove("IMMORTAL_RUNTIME_DIR")
        .env_remove("HOME")
        .args(["stop", "group"])
        .run();
    drop(std::fs::remove_dir_all(&directory));
    start.assert_code(0);
    assert_eq!(made.unwrap().permissions().mode() & 0o7777, 0o700);
    stop.assert_code(0);
}

#[test]
fn a_group_outlives_its_executable() {
    let sandbox = Sandbox::new();
    let executable = sandbox.executable(artifacts().immortal(), "immortal");
    let start = sandbox
        .invocation(&executable)
        .arg("start")
        .args(["-s", "daemon", "-n", "group", "--monitor-path"])
        .arg(artifacts().folder())
        .args(["-m", "recorder"])
        .arg(artifacts().puppet())
        .args(["note=ran", "hang"])
        .run();
    start.assert_code(0);
    let group = Group::find(&sandbox, "group");
    // As after an upgrade: roles are started again from the file they came from, not from what the path holds.
    std::fs::remove_file(&executable).unwrap();
    sandbox.file("immortal", "#!/bin/sh\nexit 1\n", 0o755);
    group.member(immortal_tests::Role::Monitor).signal(immortal_tests::Signal::SIGKILL);
    eventually("a second run", || sandbox.noted("ran").get(1).copied());
}

#[test]
fn a_monitor_that_hides_in_a_cluster_of_flags_is_the_one_that_is_loaded() {
    let sandbox = Sandbox::new();
    let record = sandbox.text_path("record");
    let group = sandbox
        .launch("unattached")
        .args(["-qm", "recorder"])
        .set("record", &record)
        .puppet(["hang"])
        .start();
    group.stop();
    let records = immortal_tests::records(&sandbox.path("record"));
    let count = |hook: &str| records.iter().filter(|record| record.hook() == hook).count();
    assert_eq!([count("check"), count("setup"), count("finish")], [1, 1, 1], "{records:#?}");
}
