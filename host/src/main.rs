//! The executable; so far it is the helper process and nothing else.
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == immortal::loader::helper::ARGUMENT) {
        return immortal::loader::helper::run();
    }
    ExitCode::from(2)
}
