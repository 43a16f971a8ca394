//! What the arguments of a `start` ask for, as far as it can be told before they are read. They may be wrong, and then
//! nothing is started: what was got ready in vain costs time and nothing else.

use crate::launch::Strategy;
use crate::loader::Spec;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Options without a value.
const FLAGS: [&str; 10] =
    ["--verbose", "-v", "--quiet", "-q", "--json", "--no-auto", "--no-relay", "--env-clear", "--help", "-h"];

/// The options before the program, with their values. Ends at what it cannot tell apart.
struct Options<I>(I);

impl<I: Iterator<Item = OsString>> Iterator for Options<I> {
    /// Name with its dashes, and value.
    type Item = (Vec<u8>, Option<Vec<u8>>);

    fn next(&mut self) -> Option<Self::Item> {
        let word = self.0.next()?.into_vec();
        let is_long = word.starts_with(b"--");
        if word.len() < 2 || word[0] != b'-' || word == b"--" {
            return None;
        }
        let name_length = if is_long { word.iter().position(|byte| *byte == b'=') } else { Some(2) };
        let (name, rest) = word.split_at(name_length.unwrap_or(word.len()));
        let is_flag = FLAGS.iter().any(|flag| flag.as_bytes() == name);
        let value = match (rest, is_flag) {
            ([], true) => None,
            ([], false) => Some(self.0.next()?.into_vec()),
            // `-qm` and `--json=x`
            (_, true) => return None,
            ([b'=', value @ ..] | value, false) => Some(value.to_vec()),
        };
        Some((name.to_vec(), value))
    }
}

fn options(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    Options(arguments.skip(2))
}

/// The strategy.
pub(crate) fn strategy(arguments: impl Iterator<Item = OsString>) -> Strategy {
    let given = options(arguments).find(|(name, _)| matches!(&name[..], b"-s" | b"--strategy" | b"--mode"));
    match given.and_then(|(_, value)| value).as_deref() {
        Some(b"daemon") => Strategy::Daemon,
        Some(b"development") => Strategy::Development,
        Some(_) | None => Strategy::Unattached,
    }
}

/// The first monitor, if it is looked for where the environment says, and what it logs when it is loaded is of no
/// interest.
pub(crate) fn monitor(arguments: impl Iterator<Item = OsString>) -> Option<Spec> {
    let mut named = None;
    for (name, value) in options(arguments) {
        match &name[..] {
            b"--monitor-path" | b"-v" | b"--verbose" => return None,
            b"-m" | b"--monitor" => named = named.or(value),
            _ => {}
        }
    }
    Spec::parse(OsStr::from_bytes(named.as_deref().unwrap_or(b"log"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::start_line;
    use crate::loader::Target;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        ["immortal", "start"].into_iter().chain(line.split(' ')).map(OsString::from)
    }

    #[test]
    fn the_options_without_a_value_are_known() {
        let command = start_line();
        let arguments = command.get_arguments().filter(|argument| !argument.is_positional());
        let names = |argument: &clap::Arg| {
            let long = argument.get_long_and_visible_aliases().unwrap_or_default();
            let long = long.into_iter().map(|name| format!("--{name}"));
            let short = argument.get_short().map(|name| format!("-{name}"));
            long.chain(short).collect::<Vec<_>>()
        };
        for argument in arguments {
            for name in names(argument) {
                let is_flag = !argument.get_action().takes_values();
                assert_eq!(FLAGS.contains(&name.as_str()), is_flag, "{name}");
            }
        }
    }

    #[test]
    fn the_strategy_is_told_from_what_stands_before_the_program() {
        for line in [
            "-s daemon -- web",
            "-sdaemon -- web",
            "-s=daemon web",
            "--strategy=daemon -n a -- web",
            "-n x -q --mode daemon web",
            "-o -s -s daemon web",
        ] {
            assert_eq!(strategy(words(line)), Strategy::Daemon, "{line}");
        }
        assert_eq!(strategy(words("--strategy development -- web")), Strategy::Development);
        for line in [
            "web",
            "-- daemon",
            "-n a -- web -s daemon",
            "web -s daemon",
            "--json web -s daemon",
            "-n -s daemon",
            "mydaemon",
            "-o output=daemon -- web",
        ] {
            assert_eq!(strategy(words(line)), Strategy::Unattached, "{line}");
        }
    }

    #[test]
    fn the_monitor_is_told_from_what_stands_before_the_program() {
        let target = |line: &str| monitor(words(line)).map(|spec| spec.target);
        let name = |name: &str| Some(Target::Name(name.to_owned()));
        for line in [
            "-- web",
            "web",
            "-n a -o x=y -- web -m other",
            "--name=a -- --monitor other",
            "web -m other",
            "-n a web -mother",
            "--json --env-clear web --monitor=other",
            // The cluster is not taken apart.
            "-qm other web",
        ] {
            assert_eq!(target(line), name("log"), "{line}");
        }
        for line in
            ["-m other -- web", "-mother web", "-m=other -m log -- web", "--monitor l=other -m=log web"]
        {
            assert_eq!(target(line), name("other"), "{line}");
        }
        assert_eq!(target("--monitor=./a.so -- web"), Some(Target::Path("./a.so".into())));
        for line in
            ["--monitor-path x -- web", "--monitor-path=x -m a -- web", "-v -- web", "-m a=b=c -- web"]
        {
            assert_eq!(target(line), None, "{line}");
        }
    }
}
