//! Every bad library is refused within ten seconds, with one line that says what is wrong with the file, and
//! nothing of it harms the process that asks.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may, and its helpers are no tests to clippy"
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use support::{EXECUTABLE, Sandbox, check, check_specs, line, refusal};

#[test]
fn absent_file_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("absent.so");
    let error = line(&check(&file, &[]).unwrap_err());
    assert_eq!(error, format!("monitor {}: No such file or directory (os error 2)", file.display()));
}

#[test]
fn what_is_no_library_is_named() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("x.so");
    for (content, expected) in [
        (&b""[..], "it is empty"),
        (b"hello\n", "it is a text file, not a shared library"),
        (b"\0\0\0\0", "it is something unknown, not a shared library"),
    ] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(refusal(&file), expected);
    }
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(refusal(&file), "it is a FIFO, not a file");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(refusal(&file), "it is a directory, not a file");
}

#[test]
fn executable_is_refused() {
    let sandbox = Sandbox::new();
    let copy = sandbox.path("program.so");
    std::fs::copy(EXECUTABLE, &copy).unwrap();
    assert_eq!(refusal(&copy), "it is an executable, not a shared library");
}

#[test]
fn library_truncated_at_any_length_is_refused() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("whole.so", &[]) else { return };
    let whole = std::fs::read(library).unwrap();
    let part = sandbox.path("part.so");
    for length in (1..whole.len()).step_by(61).chain(whole.len() - 64..whole.len()) {
        std::fs::write(&part, &whole[..length]).unwrap();
        let text = refusal(&part);
        assert!(
            text.starts_with(&format!("it is truncated: {length} bytes of at least ")),
            "{length}: {text}"
        );
    }
}

#[test]
fn library_of_another_machine_is_refused() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("foreign.so", &[]) else { return };
    let mut bytes = std::fs::read(&library).unwrap();
    if !bytes.starts_with(b"\x7fELF") {
        return;
    }
    bytes[18..20].copy_from_slice(&22_u16.to_le_bytes());
    std::fs::write(&library, bytes).unwrap();
    let text = refusal(&library);
    assert!(text.starts_with("it is built for s390x, this machine is "), "{text}");
}

#[test]
fn what_is_wrong_with_the_table_is_said() {
    let sandbox = Sandbox::new();
    for (definition, expected) in [
        ("NO_ENTRY", "it is not a monitor: it has no symbol `immortal_monitor_v1`"),
        (
            "MAGIC=7",
            "it is not a monitor: `immortal_monitor_v1` is not a monitor's table (wrong magic number 0x00000007)",
        ),
        ("FUNCTION", "it is not a monitor: `immortal_monitor_v1` is not a monitor's table"),
        ("ABI=2", "it was built for version 2 of the monitor ABI, this immortal speaks version 1"),
        ("SIZE=16", "its table has 16 bytes instead of at least "),
        ("NO_CREATE", "its table has no function `create`"),
        ("UNRESOLVED", "the dynamic loader refused it: undefined symbol: a_function_that_is_nowhere"),
    ] {
        let Some(library) = sandbox.compile("bad.so", &[definition]) else { return };
        let text = refusal(&library);
        assert!(text.starts_with(expected), "{definition}: {text}");
    }
}

#[test]
fn library_that_ends_the_process_while_it_is_loaded_is_refused() {
    let sandbox = Sandbox::new();
    for (definition, expected) in [
        ("CTOR_SEGV", "it crashed with SIGSEGV while loading it"),
        ("CTOR_ABORT", "it crashed with SIGABRT while loading it (the last words)"),
        ("CTOR_EXIT=0", "it called exit(0) while loading it"),
        ("CTOR_EXIT=3", "it called exit(3) while loading it"),
        ("CTOR_CLOSE", "it crashed with SIGKILL while loading it"),
    ] {
        let Some(library) = sandbox.compile("bad.so", &[definition]) else { return };
        assert_eq!(refusal(&library), expected, "{definition}");
    }
}

#[test]
fn library_that_hangs_while_it_is_loaded_is_killed_with_all_it_started() {
    let sandbox = Sandbox::new();
    let Some(looping) = sandbox.compile("loop.so", &["CTOR_LOOP"]) else { return };
    let Some(forking) = sandbox.compile("fork.so", &["CTOR_FORK"]) else { return };
    let Some(flooding) = sandbox.compile("flood.so", &["CTOR_FLOOD"]) else { return };
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| refusal(&looping));
        let flooding = scope.spawn(|| refusal(&flooding));
        assert_eq!(refusal(&forking), "it called exit(0) while loading it");
        assert_eq!(looping.join().unwrap(), "it did not finish within 10 s while loading it");
        assert_eq!(flooding.join().unwrap(), "it did not finish within 10 s while loading it");
    });
    // What the library forked is no child of ours: SIGKILL was sent to it, and it is gone within a moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let left = processes_with(sandbox.path("").to_str().unwrap());
        if left.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "still there: {left:?}");
        std::thread::yield_now();
    }
}

/// Processes that have a file of this directory mapped.
fn processes_with(directory: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let maps = entries.flatten().map(|entry| entry.path().join("maps"));
    let mapped = maps.filter(|maps| std::fs::read_to_string(maps).is_ok_and(|text| text.contains(directory)));
    mapped.map(|maps| maps.display().to_string()).collect()
}

#[test]
fn one_bad_library_among_good_ones_is_named() {
    let sandbox = Sandbox::new();
    let Some(good) = sandbox.compile("good.so", &[]) else { return };
    let Some(bad) = sandbox.compile("bad.so", &["CTOR_SEGV"]) else { return };
    let specs = [&good, &bad].map(|path| immortal::loader::Spec::parse(path.as_os_str()).unwrap());
    let text = line(&check_specs(&specs, &[]).unwrap_err());
    assert!(
        text.starts_with("monitor bad: ") && text.ends_with("it crashed with SIGSEGV while loading it"),
        "{text}"
    );
}

#[test]
fn library_that_others_may_change_is_refused_with_what_to_type() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("open.so", &[]) else { return };
    std::fs::set_permissions(&library, std::fs::Permissions::from_mode(0o666)).unwrap();
    let error = check(&library, &[]).unwrap_err();
    assert!(line(&error).ends_with("everybody may write to it"), "{error:?}");
    assert_eq!(error.hint().unwrap(), format!("chmod o-w {}", library.display()));
    std::fs::set_permissions(&library, std::fs::Permissions::from_mode(0o644)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&library, Some(65534), None).unwrap();
        let error = check(&library, &[]).unwrap_err();
        assert!(line(&error).contains("it belongs to "), "{error:?}");
        assert_eq!(error.hint().unwrap(), format!("chown root {}", library.display()));
    }
}

/// As root every file can be read, so this test starts itself again as somebody else.
#[test]
fn unreadable_library_is_refused_with_what_to_type() {
    if nix::unistd::geteuid().is_root() {
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "unreadable_library_is_refused_with_what_to_type"])
            .uid(65534)
            .gid(65534)
            .env_remove("TMPDIR")
            .output();
        match again {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => println!("skipped: another user cannot run this test: {error}"),
        }
        return;
    }
    let sandbox = Sandbox::new();
    let file = sandbox.path("closed.so");
    std::fs::write(&file, "x").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    let error = check(&file, &[]).unwrap_err();
    assert!(line(&error).ends_with("unable to read it: Permission denied (os error 13)"), "{error:?}");
    assert_eq!(error.hint().unwrap(), format!("chmod a+r {}", file.display()));
}

#[test]
fn executable_that_is_not_immortal_is_not_blamed_on_the_library() {
    let sandbox = Sandbox::new();
    let Some(library) = sandbox.compile("good.so", &[]) else { return };
    let error = immortal::loader::describe(Path::new("/bin/true"), "m", &library).unwrap_err();
    assert!(line(&error).starts_with("unable to check monitor m with /bin/true: "), "{error:?}");
}
