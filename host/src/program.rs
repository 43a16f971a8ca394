//! The user's program: where it is, whether it can be executed, and everything an exec needs.

use crate::launch::{Bytes, Program};
use crate::strings::Strings;
use crate::sys::exit_status::{FAILED, NOT_EXECUTABLE, NOT_FOUND};
use crate::sys::spawn::c_string;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Where a program without a slash is searched when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Why a program cannot be executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Exit status 127.
    #[error("{}: not found{}", program.display(), if *searched { " in PATH" } else { "" })]
    NotFound {
        /// As given.
        program: PathBuf,
        /// It has no slash.
        searched: bool,
    },
    /// Exit status 126.
    #[error("{}: {why}", program.display())]
    NotExecutable {
        /// As given, or where it was found.
        program: PathBuf,
        /// Why not.
        why: String,
    },
    /// Exit status 125: what was given cannot be handed to a program.
    #[error("{what}: {why}")]
    Invalid {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl ProgramError {
    /// The exit status of `start`.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => NOT_FOUND,
            Self::NotExecutable { .. } => NOT_EXECUTABLE,
            Self::Invalid { .. } => FAILED,
        }
    }
}

/// Everything an exec needs, laid out before the fork.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Strings,
    pub(crate) directory: CString,
}

/// The environment of whoever starts a group, `KEY=VALUE` each.
pub(crate) fn caller_environment() -> Strings {
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    Strings::join(variables.iter().map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()]))
}

/// The environment of the process: the caller's as changed, without what is meant for immortal itself.
pub(crate) fn environment(program: &Program, inherited: &Strings) -> Strings {
    let ours = |variable: &[u8]| {
        let key = key_of(variable);
        key == b"NOTIFY_SOCKET" || key.starts_with(b"WATCHDOG_") || key.starts_with(b"LISTEN_")
    };
    if program.env.is_empty() && !program.env_clear && !inherited.iter().any(ours) {
        return inherited.clone();
    }
    let mut environment: Vec<Bytes> = Vec::new();
    if !program.env_clear {
        environment.extend(inherited.iter().filter(|variable| !ours(variable)).map(<[u8]>::to_vec));
    }
    for (key, value) in &program.env {
        environment.retain(|other| key_of(other) != key);
        environment.push([key.as_slice(), b"=", value].concat());
    }
    environment.into_iter().collect()
}

/// An environment with one variable set.
pub(crate) fn with_variable(environment: &Strings, key: &[u8], value: &[u8]) -> Strings {
    let variable = [key, b"=", value].concat();
    environment.iter().filter(|other| key_of(other) != key).chain([variable.as_slice()]).collect()
}

/// What stands before the `=`. One at the very beginning belongs to the key.
fn key_of(variable: &[u8]) -> &[u8] {
    let end = variable.iter().skip(1).position(|byte| *byte == b'=').map_or(variable.len(), |at| at + 1);
    &variable[..end]
}

/// More than any environment that the system takes.
const MOST_OF_ENV_FILE: u64 = 4 << 20;

/// Reads a file of `KEY=VALUE` lines.
pub(crate) fn read_env_file(path: &Path) -> Result<Vec<(Bytes, Bytes)>, ProgramError> {
    let invalid = |why| ProgramError::Invalid { what: "the environment file", why };
    let shown = path.display();
    let mut bytes = Vec::new();
    let file =
        std::fs::File::open(path).and_then(|file| file.take(MOST_OF_ENV_FILE + 1).read_to_end(&mut bytes));
    file.map_err(|error| invalid(format!("{shown}: {error}")))?;
    if bytes.len() as u64 > MOST_OF_ENV_FILE {
        return Err(invalid(format!("{shown}: it is larger than 4 MiB")));
    }
    let mut variables = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
            continue;
        }
        let at = line.iter().position(|byte| *byte == b'=').filter(|at| *at > 0);
        let Some(at) = at else {
            return Err(invalid(format!("{shown}: line {} is not KEY=VALUE", number + 1)));
        };
        variables
            .push((line[..at].trim_ascii_end().to_vec(), unquoted(line[at + 1..].trim_ascii()).to_vec()));
    }
    Ok(variables)
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [first @ (b'"' | b'\''), inner @ .., last] if first == last => inner,
        value => value,
    }
}

/// What is executed: the interpreter if there is one, else the file.
fn executed(program: &Program) -> &Bytes {
    program.exec.as_ref().unwrap_or(&program.file)
}

fn absolute(program: &Program, name: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(&program.caller_directory)).join(OsStr::from_bytes(name))
}

/// The paths to try, in order.
fn candidates(program: &Program, environment: &Strings) -> Vec<PathBuf> {
    let name = executed(program);
    if name.contains(&b'/') {
        return vec![absolute(program, name)];
    }
    let path =
        environment.iter().find_map(|variable| variable.strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let directory = Path::new(OsStr::from_bytes(&program.directory));
    path.split(|byte| *byte == b':')
        .map(|part| directory.join(OsStr::from_bytes(part)).join(OsStr::from_bytes(name)))
        .collect()
}

/// Lays out everything an exec needs.
pub(crate) fn prepare(program: &Program, environment: &Strings) -> Result<Prepared, ProgramError> {
    let invalid = |what| move |error: io::Error| ProgramError::Invalid { what, why: error.to_string() };
    let strings = |list: Vec<OsString>| {
        list.into_iter().map(|s| c_string(s.into_vec())).collect::<io::Result<Vec<_>>>()
    };
    let paths = candidates(program, environment).into_iter().map(PathBuf::into_os_string).collect();
    let mut arguments = Vec::new();
    if let Some(exec) = &program.exec {
        arguments.push(OsString::from_vec(exec.clone()));
        arguments.push(absolute(program, &program.file).into_os_string());
    } else {
        arguments.push(OsString::from_vec(program.file.clone()));
    }
    arguments.extend(program.args.iter().map(|arg| OsString::from_vec(arg.clone())));
    environment.c_strings().map_err(invalid("the environment"))?;
    Ok(Prepared {
        candidates: strings(paths).map_err(invalid("the program's path"))?,
        arguments: strings(arguments).map_err(invalid("an argument"))?,
        environment: environment.clone(),
        directory: c_string(program.directory.clone()).map_err(invalid("the working directory"))?,
    })
}

/// Finds out, as far as can be known without executing it, whether the program can be executed.
pub(crate) fn verify(program: &Program, environment: &Strings) -> Result<(), ProgramError> {
    if program.file.is_empty() {
        return Err(ProgramError::NotFound { program: "FILE (an empty name)".into(), searched: false });
    }
    if program.exec.is_some() {
        let file = absolute(program, &program.file);
        let unusable = |why: io::Error| {
            if why.kind() == io::ErrorKind::NotFound {
                return ProgramError::NotFound { program: file.clone(), searched: false };
            }
            ProgramError::NotExecutable { program: file.clone(), why: format!("unreadable: {why}") }
        };
        let open = std::fs::metadata(&file).and_then(|data| {
            if data.is_file() {
                std::fs::File::open(&file).map(drop)
            } else {
                Err(io::Error::other("not a regular file"))
            }
        });
        open.map_err(unusable)?;
    }
    let name = Path::new(OsStr::from_bytes(executed(program)));
    let mut refused = None;
    for path in candidates(program, environment) {
        match examine(&path) {
            Ok(()) => return Ok(()),
            Err(Some(why)) if why == PERMISSION => {
                refused = refused.or(Some(ProgramError::NotExecutable { program: path, why }));
            }
            Err(Some(why)) => return Err(ProgramError::NotExecutable { program: path, why }),
            Err(None) => {}
        }
    }
    let searched = !executed(program).contains(&b'/');
    Err(refused.unwrap_or_else(|| ProgramError::NotFound { program: name.to_owned(), searched }))
}

const PERMISSION: &str = "not executable: permission denied";

/// `Err(None)`: there is no such file.
fn examine(path: &Path) -> Result<(), Option<String>> {
    let data = match std::fs::metadata(path) {
        Ok(data) => data,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(None);
        }
        Err(_) => return Err(Some(PERMISSION.into())),
    };
    let executable = nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    if data.is_dir() || !data.is_file() || !executable {
        return Err(Some(PERMISSION.into()));
    }
    // A program that may be executed but not read is the kernel's to judge.
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
    // A regular file gives all that is asked for.
    let mut head = [0; 512];
    match file.read(&mut head) {
        Ok(count) => judge_head(&head[..count]),
        Err(_) => Ok(()),
    }
}

fn judge_head(head: &[u8]) -> Result<(), Option<String>> {
    if let Some(line) = head.strip_prefix(b"#!") {
        return judge_interpreter(line.split(|byte| *byte == b'\n').next().unwrap_or_default());
    }
    let formats: [&[u8]; 7] = [
        b"\x7fELF",
        b"\xcf\xfa\xed\xfe",
        b"\xce\xfa\xed\xfe",
        b"\xca\xfe\xba\xbe",
        b"\xfe\xed\xfa\xcf",
        b"MZ",
        b"\0asm",
    ];
    if formats.iter().any(|magic| head.starts_with(magic)) || kernel_knows_more_formats() {
        return Ok(());
    }
    Err(Some("its format is unknown: it is neither a binary nor a script with a #! line".into()))
}

/// The first line of a script, behind the `#!`. To the kernel a carriage return is a part of the name.
fn judge_interpreter(line: &[u8]) -> Result<(), Option<String>> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let name = line.split(is_blank).find(|word| !word.is_empty()).unwrap_or_default();
    let shown = String::from_utf8_lossy(name.strip_suffix(b"\r").unwrap_or(name)).into_owned();
    let path = Path::new(OsStr::from_bytes(name));
    let why = match std::fs::metadata(path) {
        Ok(data) if data.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() => {
            return Ok(());
        }
        Ok(_) => format!("its interpreter {shown} is not executable"),
        Err(_) if name.ends_with(b"\r") => {
            format!(
                "its interpreter {shown} is missing: a carriage return follows the name, as in a DOS file"
            )
        }
        Err(_) => format!("its interpreter {shown} is missing"),
    };
    Err(Some(why))
}

/// Somebody registered formats of their own (binfmt_misc): then the kernel is the judge.
fn kernel_knows_more_formats() -> bool {
    std::fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| !["register", "status"].iter().any(|own| entry.file_name() == *own))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(file: &str) -> Program {
        Program {
            file: file.into(),
            caller_directory: b"/".to_vec(),
            directory: b"/".to_vec(),
            ..Program::default()
        }
    }

    fn path(path: &str) -> Strings {
        [format!("PATH={path}")].iter().collect()
    }

    #[test]
    fn a_program_is_searched_in_the_path_of_the_process() {
        assert!(verify(&program("sh"), &path("/nonexistent:/bin")).is_ok());
        let error = verify(&program("sh"), &path("/nonexistent")).unwrap_err();
        assert_eq!(error.status(), 127);
    }

    #[test]
    fn what_exists_and_cannot_run_is_126() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, "#!/nonexistent/interpreter\n").unwrap();
        let name = script.to_str().unwrap();
        assert_eq!(verify(&program(name), &Strings::default()).unwrap_err().status(), 126);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = verify(&program(name), &Strings::default()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/interpreter is missing"), "{error}");
        for (line, why) in [
            ("#!/bin/sh\r\n", "/bin/sh is missing: a carriage return"),
            ("#! /etc/passwd -x\n", "/etc/passwd is not executable"),
            ("#!/etc\n", "/etc is not executable"),
        ] {
            std::fs::write(&script, line).unwrap();
            let error = verify(&program(name), &Strings::default()).unwrap_err();
            assert!(error.status() == 126 && error.to_string().contains(why), "{line:?}: {error}");
        }
        std::fs::write(&script, "#! \t/bin/sh -e\n").unwrap();
        assert!(verify(&program(name), &Strings::default()).is_ok());
        std::fs::write(&script, "echo hello\n").unwrap();
        assert_eq!(verify(&program(name), &Strings::default()).unwrap_err().status(), 126);
    }

    #[test]
    fn an_environment_file_without_end_is_refused() {
        let error = read_env_file(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("larger than 4 MiB"), "{error}");
    }

    #[test]
    fn changes_of_the_environment_win_and_our_own_variables_stay_out() {
        let mut changed = program("x");
        changed.env = vec![(b"A".to_vec(), b"2".to_vec()), (b"A".to_vec(), b"3".to_vec())];
        let inherited: Strings =
            ["A=1", "B=1", "NOTIFY_SOCKET=1", "LISTEN_FDS=1", "WATCHDOG_USEC=1"].into_iter().collect();
        let environment = environment(&changed, &inherited);
        assert_eq!(environment.iter().collect::<Vec<_>>(), [b"B=1", b"A=3"]);
        let environment = with_variable(&environment, b"B", b"=");
        assert_eq!(environment.iter().collect::<Vec<_>>(), [b"A=3", b"B=="]);
    }
}
