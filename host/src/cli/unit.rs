//! `unit`: what a service manager needs to bring a running group back after a reboot.

use std::fmt::Write;

/// Which manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Systemd,
    Launchd,
    Compose,
}

/// What these arguments of a `start` have that no file of the manager can hold.
pub(super) fn refusal(manager: Manager, arguments: &[String]) -> Option<&'static str> {
    let have = |which: fn(char) -> bool| arguments.iter().any(|argument| argument.contains(which));
    // Arguments are bytes, and come as text.
    if have(|c| c == char::REPLACEMENT_CHARACTER) {
        return Some("bytes that are not UTF-8, which no unit can hold");
    }
    let is_lost = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    (manager == Manager::Launchd && have(is_lost))
        .then_some("control characters, which a property list cannot hold")
}

/// Writes the unit of a group: its name and the arguments of the `start` that makes it.
pub(super) fn write(manager: Manager, name: &str, executable: &str, arguments: &[String]) -> String {
    match manager {
        Manager::Systemd => systemd(name, executable, arguments, nix::unistd::geteuid().is_root()),
        Manager::Launchd => launchd(name, executable, &attached(arguments)),
        Manager::Compose => compose(name, &attached(arguments)),
    }
}

/// These managers watch the program that they start, so the strategy is the one in which it stays. No process is kept
/// in it.
fn attached(arguments: &[String]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    let option = |arguments: &[String], name: &str| {
        arguments.iter().take_while(|argument| *argument != "--").position(|argument| argument == name)
    };
    if let Some(at) = option(&arguments, "--strategy") {
        arguments[at + 1] = "development".into();
    }
    if let Some(at) = option(&arguments, "--on-crash") {
        arguments.drain(at..at + 2);
    }
    arguments
}

fn systemd(name: &str, executable: &str, arguments: &[String], is_root: bool) -> String {
    let words = std::iter::once(executable).chain(arguments.iter().map(String::as_str));
    let command = words.map(systemd_word).collect::<Vec<_>>().join(" ");
    let executable = systemd_word(executable);
    let (place, target) = match is_root {
        true => ("/etc/systemd/system", "multi-user.target"),
        false => ("~/.config/systemd/user", "default.target"),
    };
    format!(
        "# {place}/immortal-{name}.service\n\
         [Unit]\n\
         Description={name}, kept alive by immortal\n\
         After=network.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         NotifyAccess=all\n\
         ExecStart={command}\n\
         ExecStop={executable} stop {name}\n\
         KillMode=mixed\n\
         Restart=on-failure\n\
         \n\
         [Install]\n\
         WantedBy={target}\n"
    )
}

/// Quotes a word for a command line of a unit: `%` and `$` are expanded there.
fn systemd_word(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let escape = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
        c => c.into(),
    };
    let escaped: String = escaped.chars().map(escape).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

fn launchd(name: &str, executable: &str, arguments: &[String]) -> String {
    let mut words = String::new();
    for word in std::iter::once(executable).chain(arguments.iter().map(String::as_str)) {
        let word = word.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        writeln!(words, "    <string>{word}</string>").expect("a string takes everything");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- for ~/Library/LaunchAgents, under the name of its label -->\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n\
         \x20 <key>Label</key>\n  <string>immortal.{name}</string>\n\
         \x20 <key>ProgramArguments</key>\n  <array>\n{words}  </array>\n\
         \x20 <key>RunAtLoad</key>\n  <true/>\n\
         \x20 <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n\
         </dict>\n</plist>\n"
    )
}

fn compose(name: &str, arguments: &[String]) -> String {
    // A JSON array is YAML; a dollar sign would be a variable.
    let words = std::iter::once("immortal").chain(arguments.iter().map(String::as_str));
    let command: Vec<String> = words.map(|word| word.replace('$', "$$")).collect();
    let command = serde_json::Value::from(command);
    format!(
        "# compose.yaml; the image holds immortal, its monitors and the program\n\
         services:\n\
         \x20 {name}:\n\
         \x20   image: {name}\n\
         \x20   command: {command}\n\
         \x20   restart: unless-stopped\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Vec<String> {
        ["start", "--name", "web", "--strategy", "daemon", "--", "/bin/sh", "-c", "echo \"$HOME\" 100% <a&b>"]
            .map(String::from)
            .to_vec()
    }

    #[test]
    fn a_systemd_unit_quotes_what_systemd_would_expand() {
        let unit = write(Manager::Systemd, "web", "/usr/bin/immortal", &arguments());
        let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert_eq!(
            line,
            "ExecStart=/usr/bin/immortal start --name web --strategy daemon -- /bin/sh -c \
             \"echo \\\"$$HOME\\\" 100%% <a&b>\""
        );
        assert!(unit.contains("Type=notify"));
    }

    #[test]
    fn what_a_unit_cannot_hold_is_refused_and_the_rest_escaped() {
        let words = |word: &str| ["start", "--", "/bin/echo", word].map(String::from);
        assert!(refusal(Manager::Systemd, &words("a\u{fffd}b")).is_some());
        assert!(refusal(Manager::Launchd, &words("a\u{1b}b")).is_some());
        for manager in [Manager::Systemd, Manager::Compose] {
            assert_eq!(refusal(manager, &words("a\u{1b}b\n")), None);
        }
        assert_eq!(refusal(Manager::Launchd, &words("a\tb\n")), None);
        let unit = write(Manager::Systemd, "web", "/usr/bin/immortal", &words("a\u{1b}\r\n\t"));
        assert!(unit.contains("/bin/echo \"a\\x1b\\x0d\\n\\t\"\n"), "{unit}");
    }

    #[test]
    fn managers_that_watch_a_child_get_the_attached_strategy() {
        let plist = write(Manager::Launchd, "web", "/usr/bin/immortal", &arguments());
        assert!(plist.contains("<string>development</string>"));
        assert!(plist.contains("&lt;a&amp;b&gt;"));
        let yaml = write(Manager::Compose, "web", "/usr/bin/immortal", &arguments());
        assert!(yaml.contains("\"development\""));
        assert!(yaml.contains("$$HOME"));
    }

    #[test]
    fn managers_that_watch_a_child_are_not_asked_to_keep_a_process() {
        let words =
            ["start", "--strategy", "daemon", "--on-crash", "keep", "--", "tool", "--on-crash", "keep"];
        let attached = attached(&words.map(String::from));
        assert_eq!(attached, ["start", "--strategy", "development", "--", "tool", "--on-crash", "keep"]);
    }
}
