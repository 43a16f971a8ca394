//! What helps at a shell and after a reboot: completions, the manual page, units for service managers.

use immortal_tests::{Group, Outcome, Sandbox, artifacts, eventually};
use std::process::{Command, Stdio};

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];
const COMMANDS: [&str; 11] =
    ["start", "check", "list", "status", "stop", "restart", "signal", "logs", "unit", "completions", "man"];

/// Whether a program can be run with these arguments; says so if not.
fn there(program: &str, arguments: &[&str]) -> bool {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let there = run.is_ok_and(|output| output.status.success());
    if !there {
        #[expect(clippy::print_stderr, reason = "a test that looked at nothing says so")]
        {
            eprintln!("skipped: {program} {arguments:?} does not work here");
        }
    }
    there
}

fn printed(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let outcome = sandbox.immortal(arguments).run();
    outcome.assert_code(0);
    assert_eq!(outcome.err(), "", "{outcome}");
    outcome.out()
}

/// What bash offers for the last of these words.
fn completed(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let script = "source <(immortal completions bash) || exit 1; \
                  specification=$(complete -p immortal) || exit 2; \
                  function=${specification#* -F }; function=${function%% *}; \
                  COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; COMP_LINE=\"$*\"; \
                  COMP_POINT=${#COMP_LINE}; last=$((COMP_CWORD - 1)); \
                  $function immortal \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[last]}\"; \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let folder = artifacts().folder().to_str().expect("a plain path");
    let outcome: Outcome = sandbox
        .invocation("bash")
        .env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin"))
        .args(["--norc", "-c", script, "bash", "immortal"])
        .args(words)
        .run();
    outcome.assert_code(0);
    outcome.out().lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_shell_gets_a_script() {
    let sandbox = Sandbox::new();
    for shell in SHELLS {
        let script = printed(&sandbox, &["completions", shell]);
        assert!(script.contains("immortal"), "{shell}: {script}");
    }
    let refused = sandbox.immortal(["completions", "tcsh"]).run();
    let error = refused.assert_refused(2);
    assert!(error.contains("bash"), "{error}");
}

#[test]
fn the_scripts_are_valid_where_the_shell_is_there() {
    let sandbox = Sandbox::new();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        if there(shell, &["-c", "true"]) {
            let file = sandbox.file(shell, printed(&sandbox, &["completions", shell]), 0o600);
            sandbox.invocation(shell).arg(check).arg(file).run().assert_code(0);
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    if !there("bash", &["-c", "true"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let commands = completed(&sandbox, &[""]);
    for command in COMMANDS {
        assert!(commands.iter().any(|offered| offered == command), "{command} in {commands:?}");
    }
    assert_eq!(completed(&sandbox, &["sta"]), ["start", "status"]);
    let options = completed(&sandbox, &["start", "--max"]);
    assert_eq!(options, ["--max-restarts"]);
    assert_eq!(completed(&sandbox, &["start", "--strategy", "d"]), ["development", "daemon"]);
}

#[test]
fn bash_completes_names_of_groups() {
    if !there("bash", &["-c", "true"]) {
        return;
    }
    let sandbox = Sandbox::new();
    for name in ["web", "worker-1", "worker-2"] {
        drop(sandbox.launch("unattached").name(name).recorder().puppet(["hang"]).start());
    }
    for command in ["status", "stop", "restart", "signal", "logs", "unit"] {
        assert_eq!(completed(&sandbox, &[command, "w"]), ["web", "worker-1", "worker-2"], "{command}");
        assert_eq!(completed(&sandbox, &[command, "wo"]), ["worker-1", "worker-2"], "{command}");
    }
    assert_eq!(completed(&sandbox, &["stop", "web", "we"]), ["web"], "the second name as well");
    sandbox.immortal(["stop", "--all"]).run().assert_code(0);
    assert_eq!(completed(&sandbox, &["stop", "w"]), [""; 0]);
}

#[test]
fn bash_completes_names_of_monitors() {
    if !there("bash", &["-c", "true"]) {
        return;
    }
    let sandbox = Sandbox::new();
    // Those that lie beside the executable.
    assert_eq!(completed(&sandbox, &["start", "--monitor", "rec"]), ["recorder"]);
    let offered = completed(&sandbox, &["start", "-m", ""]);
    assert!(["log", "recorder"].iter().all(|name| offered.iter().any(|found| found == name)), "{offered:?}");
}

#[test]
fn completing_is_quiet_without_a_usable_runtime_directory() {
    if !there("bash", &["-c", "true"]) {
        return;
    }
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.runtime()).unwrap();
    std::fs::set_permissions(sandbox.runtime(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(completed(&sandbox, &["stop", ""]).iter().filter(|word| !word.starts_with('-')).count(), 0);
}

#[test]
fn the_manual_page_names_every_command_and_option() {
    let sandbox = Sandbox::new();
    let page = printed(&sandbox, &["man"]);
    assert!(page.contains(".TH "), "{page}");
    let plain = page.replace('\\', "");
    for command in COMMANDS {
        assert!(plain.contains(&format!("immortal {command}")), "{command}");
        let usage = printed(&sandbox, &[command, "--help"]);
        assert!(usage.contains(&format!("Usage: immortal {command}")), "{usage}");
    }
    let help = printed(&sandbox, &["start", "--help"]);
    for word in help.split(|c: char| c.is_whitespace() || c == ',').filter(|word| word.starts_with("--")) {
        let option = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        assert!(plain.contains(option), "{option}");
    }
}

#[test]
fn the_manual_page_renders_without_a_complaint() {
    if !there("man", &["--version"]) || !there("groff", &["-v"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let file = sandbox.file("immortal.1", printed(&sandbox, &["man"]), 0o600);
    let rendered = sandbox
        .invocation("man")
        .env("MANWIDTH", "100")
        .env("LC_ALL", "C.UTF-8")
        .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
        .arg(&file)
        .run();
    rendered.assert_code(0);
    assert_eq!(rendered.err(), "", "{rendered}");
}

/// A group whose command line has what service managers would expand or cut.
fn awkward(sandbox: &Sandbox) -> Group<'_> {
    let words =
        ["note=ran", "dump=dump", "hang", "two words", "100%", "$HOME ${HOME}", "a\"b'c\\d", "<&>", "", "ä"];
    sandbox
        .launch("daemon")
        .name("awkward@1")
        .recorder()
        .set("recorder.text", "x y")
        .args(["--env", "GREETING=hello world $USER", "--stop-timeout", "3s", "--restart", "on-failure"])
        .puppet(words)
        .start()
}

/// The arguments that the process was given.
fn arguments(sandbox: &Sandbox) -> (Vec<String>, bool) {
    let dump = eventually("the dump", || std::fs::read_to_string(sandbox.path("dump")).ok());
    let taken = |prefix| dump.lines().filter_map(move |line: &str| line.strip_prefix(prefix));
    let greeting = taken("env ").any(|variable| variable == "GREETING=hello world $USER");
    (taken("arg ").skip(1).map(str::to_owned).collect(), greeting)
}

/// Runs a unit's command line and asserts that it makes the same group again.
fn assert_comes_back(sandbox: &Sandbox, command: &[String], strategy: &str) {
    let before = arguments(sandbox);
    assert!(before.1, "the variable is there");
    sandbox.immortal(["stop", "awkward@1"]).run().assert_code(0);
    std::fs::remove_file(sandbox.path("dump")).expect("the dump was read");
    // From another directory, as a service manager would.
    let running = sandbox.invocation(&command[0]).cwd("/").args(&command[1..]).spawn();
    let again = Group::find(sandbox, "awkward@1");
    assert_eq!(arguments(sandbox), before);
    let status = again.status();
    assert_eq!(status["strategy"], strategy);
    assert_eq!(status["settings"]["stop_timeout"], "3s");
    assert_eq!(status["settings"]["restart"], "on-failure");
    assert_eq!(status["monitors"][0]["label"], "recorder");
    again.stop();
    drop(running.wait());
}

/// Runs a piece of python with a file and returns what it prints, as JSON.
fn python(sandbox: &Sandbox, script: &str, text: &str) -> serde_json::Value {
    let file = sandbox.file("unit", text, 0o600);
    let outcome = sandbox.invocation("python3").args(["-c", script]).arg(file).run();
    outcome.assert_code(0);
    outcome.json()
}

fn words(value: &serde_json::Value) -> Vec<String> {
    let words = value.as_array().unwrap_or_else(|| panic!("no array: {value}"));
    words.iter().map(|word| word.as_str().expect("text").to_owned()).collect()
}

/// Takes a command line of a unit apart as systemd does: quotes, C escapes, `%%` and `$$`.
fn systemd_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '\\' => {
                let escaped = match letters.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(other) => other,
                    None => panic!("a backslash at the end of {line}"),
                };
                word.get_or_insert_default().push(escaped);
            }
            '%' | '$' => {
                assert_eq!(letters.next(), Some(letter), "it would be expanded: {line}");
                word.get_or_insert_default().push(letter);
            }
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn a_systemd_unit_brings_the_group_back() {
    let sandbox = Sandbox::new();
    drop(awkward(&sandbox));
    let unit = printed(&sandbox, &["unit", "awkward@1"]);
    assert_eq!(unit, printed(&sandbox, &["unit", "awkward@1", "--systemd"]), "it is the default");
    for line in ["[Unit]", "[Service]", "Type=notify", "[Install]"] {
        assert!(unit.lines().any(|found| found == line), "{line} in {unit}");
    }
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_comes_back(&sandbox, &systemd_words(line), "daemon");
}

#[test]
fn systemd_finds_nothing_wrong_with_its_unit() {
    if !there("systemd-analyze", &["--version"]) {
        return;
    }
    let sandbox = Sandbox::new();
    drop(awkward(&sandbox));
    let unit = sandbox.file("immortal-awkward.service", printed(&sandbox, &["unit", "awkward@1"]), 0o644);
    let verified = sandbox.invocation("systemd-analyze").args(["verify", "--man=no"]).arg(unit).run();
    assert!(!verified.err().contains("immortal-awkward"), "{verified}");
}

#[test]
fn a_property_list_for_launchd_brings_the_group_back() {
    if !there("python3", &["-c", "import plistlib"]) {
        return;
    }
    let sandbox = Sandbox::new();
    drop(awkward(&sandbox));
    let unit = printed(&sandbox, &["unit", "awkward@1", "--launchd"]);
    let script = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let list = python(&sandbox, script, &unit);
    assert_eq!(list["Label"], "immortal.awkward@1");
    assert_eq!(list["RunAtLoad"], true);
    assert_comes_back(&sandbox, &words(&list["ProgramArguments"]), "development");
}

#[test]
fn a_compose_file_brings_the_group_back() {
    if !there("python3", &["-c", "import yaml"]) {
        return;
    }
    let sandbox = Sandbox::new();
    drop(awkward(&sandbox));
    let unit = printed(&sandbox, &["unit", "awkward@1", "--compose"]);
    let script =
        "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))";
    let file = python(&sandbox, script, &unit);
    let (_, service) = file["services"].as_object().unwrap().iter().next().unwrap();
    let mut command: Vec<String> =
        words(&service["command"]).iter().map(|word| word.replace("$$", "$")).collect();
    assert_eq!(command[0], "immortal", "that of the image");
    command[0] = artifacts().immortal().to_str().unwrap().to_owned();
    assert_comes_back(&sandbox, &command, "development");
}

#[test]
fn a_unit_relays_output_only_if_its_group_does() {
    let sandbox = Sandbox::new();
    for silent in [true, false] {
        let launch = sandbox.launch("development").recorder().args(silent.then_some("--no-relay"));
        let running = launch.puppet(["hang"]).invocation("start").spawn();
        let group = Group::find(&sandbox, "group");
        for manager in ["--systemd", "--launchd", "--compose"] {
            let unit = printed(&sandbox, &["unit", "group", manager]);
            assert_eq!(unit.contains("--no-relay"), silent, "{manager}: {unit}");
        }
        group.stop();
        drop(running.wait());
    }
}

#[test]
fn a_unit_of_a_group_that_is_not_there_or_has_failed_is_1() {
    let sandbox = Sandbox::new();
    sandbox.immortal(["unit", "nobody"]).run().assert_refused(1);
    let steps = ["wait-file=go", "exit=1"];
    let group = sandbox.launch("unattached").recorder().args(["--max-restarts", "0"]).puppet(steps).start();
    sandbox.file("go", "", 0o600);
    group.wait_state("failed");
    sandbox.immortal(["unit", "group"]).run().assert_refused(1);
    sandbox.immortal(["unit", "group", "--systemd", "--compose"]).run().assert_refused(2);
}

/// A file of the folder `examples`.
fn example(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands behind the `start` of an example's command line is accepted; its program is replaced by one that is
/// there.
fn assert_start_is_accepted(sandbox: &Sandbox, words: &[String]) {
    assert!(words[0].ends_with("immortal"), "{words:?}");
    let options = words[2..].iter().take_while(|word| *word != "--");
    let output = format!("output={}", sandbox.text_path("web.log"));
    let mut command = vec!["check".to_owned()];
    command
        .extend(options.map(|word| if word.starts_with("output=") { output.clone() } else { word.clone() }));
    command.extend(["--".to_owned(), "/bin/sh".to_owned()]);
    sandbox.immortal(command).run().assert_code(0);
}

#[test]
fn the_image_of_the_examples_has_a_command_line_that_is_accepted() {
    let sandbox = Sandbox::new();
    let text = example("Dockerfile");
    let line = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)).expect("the line is there");
        words(&serde_json::from_str(found).expect("an array"))
    };
    let entry = line("ENTRYPOINT ");
    assert_eq!(entry.last().map(String::as_str), Some("--"), "the program is in CMD: {:?}", line("CMD "));
    assert_start_is_accepted(&sandbox, &entry);
}

#[test]
fn the_systemd_unit_of_the_examples_is_accepted() {
    if !nix::unistd::geteuid().is_root() {
        // It says --user.
        return;
    }
    let sandbox = Sandbox::new();
    let text = example("immortal-web.service");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_start_is_accepted(&sandbox, &systemd_words(line));
    if there("systemd-analyze", &["--version"]) {
        // The executable is not installed there.
        let here = text.replace("/usr/local/bin/immortal", artifacts().immortal().to_str().unwrap());
        let unit = sandbox.file("immortal-web.service", here, 0o644);
        let verified = sandbox.invocation("systemd-analyze").args(["verify", "--man=no"]).arg(unit).run();
        assert!(!verified.err().contains("immortal-web"), "{verified}");
    }
}

#[test]
fn the_probe_of_the_examples_tells_a_running_group() {
    let sandbox = Sandbox::new();
    let text = example("kubernetes.yaml");
    let probe = text.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let probe = words(&serde_json::from_str(probe).unwrap());
    let ask = || {
        let folder = artifacts().folder().to_str().unwrap();
        let path = format!("{folder}:/usr/bin:/bin");
        sandbox.invocation(&probe[0]).env("PATH", path).args(&probe[1..]).run().code
    };
    assert_eq!(ask(), Some(1), "there is no group");
    let steps = ["hang-after=2:count", "wait-file=go", "exit=1"];
    let pause = ["--backoff", "1h", "--backoff-max", "1h"];
    let group = sandbox.launch("unattached").name("web").recorder().args(pause).puppet(steps).start();
    assert_eq!(ask(), Some(0), "it runs");
    sandbox.file("go", "", 0o600);
    group.wait_state("backoff");
    assert_eq!(ask(), Some(1), "it does not run");
}
