//! The executable: the command line, and the roles it starts itself again as.

use std::process::ExitCode;

fn main() -> ExitCode {
    immortal::main()
}
