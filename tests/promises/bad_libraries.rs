//! Files that are no monitors, or broken ones: each refused before anything is started, in one line that says
//! what is wrong with the file.

use immortal_tests::{CLibrary, Sandbox, artifacts};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Starts with this file as the monitor and asserts the refusal; the message must name the file and hold one of
/// `words`.
#[track_caller]
fn refused_as(sandbox: &Sandbox, library: &Path, words: &[&str]) {
    let outcome =
        sandbox.launch("unattached").arg("--monitor").arg(library).puppet(["note=ran", "hang"]).run();
    let error = outcome.assert_refused(125);
    assert!(outcome.took < Duration::from_secs(11), "{outcome}");
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    assert!(error.contains(&*name), "it names the file: {error}");
    let lower = error.to_lowercase();
    assert!(words.is_empty() || words.iter().any(|word| lower.contains(word)), "one of {words:?}: {error}");
    assert!(sandbox.noted("ran").is_empty(), "the program ran");
    sandbox.assert_nothing_left();
}

/// The bytes of a good monitor library.
fn good() -> Vec<u8> {
    std::fs::read(artifacts().monitor("recorder")).expect("the recorder was built")
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_good_library_by_path_is_accepted() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "good");
    let group = sandbox.launch("unattached").arg("--monitor").arg(library).puppet(["hang"]).start();
    assert_eq!(group.status()["monitors"][0]["name"], "quiet");
}

#[test]
fn absent() {
    let sandbox = Sandbox::new();
    refused_as(&sandbox, &sandbox.path("absent.so"), &["no such file", "not found", "does not exist"]);
}

#[test]
fn empty() {
    let sandbox = Sandbox::new();
    let library = sandbox.file("empty.so", "", 0o755);
    refused_as(&sandbox, &library, &["empty", "too short", "truncated", "not a", "no shared"]);
}

#[test]
fn text() {
    let sandbox = Sandbox::new();
    let library = sandbox.file("text.so", "hello, I am a plugin, honestly\n".repeat(100), 0o755);
    refused_as(&sandbox, &library, &["not a", "no shared", "format", "elf", "mach-o"]);
}

#[test]
fn a_directory() {
    let sandbox = Sandbox::new();
    let library = sandbox.path("directory.so");
    std::fs::create_dir(&library).unwrap();
    refused_as(&sandbox, &library, &["directory", "regular file"]);
}

#[test]
fn a_fifo() {
    let sandbox = Sandbox::new();
    let library = sandbox.path("fifo.so");
    nix::unistd::mkfifo(&library, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    refused_as(&sandbox, &library, &["fifo", "pipe", "regular file"]);
}

#[test]
fn a_device() {
    let sandbox = Sandbox::new();
    refused_as(&sandbox, Path::new("/dev/null"), &["device", "regular file"]);
}

/// A library that was cut may still be whole in all that is loaded; it is then good, and any other result but a
/// refusal is wrong.
#[test]
fn truncated_at_any_length() {
    let whole = good();
    let sandbox = Sandbox::new();
    // Around every border that matters: the header, the program headers, and each part of the file.
    let mut lengths: Vec<usize> = vec![1, 4, 15, 16, 17, 63, 64, 65, 100, 200, 500, 1000];
    lengths.extend((1..20).map(|part| whole.len() * part / 20));
    for length in lengths {
        let library = sandbox.file("truncated.so", &whole[..length], 0o755);
        let outcome = sandbox.launch("unattached").arg("--monitor").arg(&library).puppet(["hang"]).check();
        if outcome.code != Some(0) {
            let error = outcome.assert_refused(outcome.code.unwrap_or(-1));
            assert!(error.contains("truncated.so"), "{length}: {error}");
        }
        assert!(outcome.signal.is_none() && outcome.took < Duration::from_secs(11), "{length}: {outcome}");
    }
}

#[test]
fn truncated_in_the_middle() {
    let whole = good();
    let sandbox = Sandbox::new();
    let library = sandbox.file("half.so", &whole[..whole.len() / 2], 0o755);
    refused_as(
        &sandbox,
        &library,
        &["truncated", "short", "incomplete", "cut", "end of the file", "beyond", "past"],
    );
}

#[cfg(target_os = "linux")]
#[test]
fn for_another_machine() {
    let sandbox = Sandbox::new();
    let mut bytes = good();
    // e_machine of an ELF file: elf(5). No machine that runs these tests is a PDP-11.
    bytes[18..20].copy_from_slice(&65_u16.to_le_bytes());
    let library = sandbox.file("foreign.so", bytes, 0o755);
    refused_as(&sandbox, &library, &["machine", "architecture", "processor", "cpu"]);
}

#[cfg(target_os = "linux")]
#[test]
fn of_32_bits() {
    let sandbox = Sandbox::new();
    let mut bytes = good();
    bytes[4] = 1;
    let library = sandbox.file("small.so", bytes, 0o755);
    refused_as(&sandbox, &library, &["bit", "class", "machine", "architecture"]);
}

#[test]
fn an_executable() {
    let sandbox = Sandbox::new();
    let library = sandbox.path("executable.so");
    std::fs::copy(artifacts().immortal(), &library).unwrap();
    refused_as(&sandbox, &library, &["executable", "program", "not a shared"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_object_file() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").arg("-c").build(&sandbox, "object");
    refused_as(&sandbox, &library, &["object", "not a shared", "relocatable"]);
}

#[test]
fn without_the_entry_symbol() {
    let sandbox = Sandbox::new();
    let library = CLibrary::new("int something_else = 1;\n").build(&sandbox, "symbolless");
    refused_as(&sandbox, &library, &["immortal_monitor_v1", "entry"]);
}

#[test]
fn with_a_symbol_that_is_too_small() {
    let sandbox = Sandbox::new();
    let library = CLibrary::new("const char immortal_monitor_v1 = 1;\n").build(&sandbox, "small");
    refused_as(&sandbox, &library, &[]);
}

#[test]
fn with_a_function_in_place_of_the_table() {
    let sandbox = Sandbox::new();
    let library = CLibrary::new("int immortal_monitor_v1(void) { return 1; }\n").build(&sandbox, "function");
    refused_as(&sandbox, &library, &[]);
}

#[test]
fn with_an_unresolved_symbol() {
    let sandbox = Sandbox::new();
    let lenient = if cfg!(target_os = "macos") { "-Wl,-undefined,dynamic_lookup" } else { "-O0" };
    let library = CLibrary::quiet("void nobody_has_this(void);\nvoid call(void) { nobody_has_this(); }\n")
        .arg(lenient)
        .build(&sandbox, "unresolved");
    refused_as(&sandbox, &library, &["nobody_has_this"]);
}

#[cfg(target_os = "linux")]
#[test]
fn with_a_library_that_it_needs_missing() {
    let sandbox = Sandbox::new();
    let needed =
        CLibrary::new("int needed;\n").arg("-Wl,-soname,libneeded.so.7").build(&sandbox, "libneeded");
    let library = CLibrary::quiet("extern int needed;\nint *use(void) { return &needed; }\n")
        .arg(needed.to_str().unwrap())
        .build(&sandbox, "needy");
    std::fs::remove_file(needed).unwrap();
    refused_as(&sandbox, &library, &["libneeded.so.7"]);
}

#[test]
fn with_the_wrong_magic() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").arg("-DSAID_MAGIC=0x12345678").build(&sandbox, "magic");
    refused_as(&sandbox, &library, &["magic", "not a monitor", "no monitor"]);
}

#[test]
fn with_a_newer_abi() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").arg("-DSAID_ABI=2").build(&sandbox, "newer");
    refused_as(&sandbox, &library, &["abi", "version"]);
}

#[test]
fn without_a_constructor_function() {
    let sandbox = Sandbox::new();
    let table = "#include \"immortal_monitor.h\"\nconst im_monitor immortal_monitor_v1 = \
        { .magic = IM_MAGIC, .abi = IM_ABI, .size = sizeof(im_monitor), .name = \"x\" };\n";
    let library = CLibrary::new(table).build(&sandbox, "createless");
    refused_as(&sandbox, &library, &["create"]);
}

#[test]
fn with_a_constructor_that_segfaults() {
    let sandbox = Sandbox::new();
    let code = "__attribute__((constructor)) static void f(void) { *(volatile int *)8 = 1; }\n";
    let library = CLibrary::quiet(code).build(&sandbox, "segfault");
    refused_as(&sandbox, &library, &["segv", "signal 11", "crash", "bus"]);
}

#[test]
fn with_a_constructor_that_aborts() {
    let sandbox = Sandbox::new();
    let code = "#include <stdlib.h>\n__attribute__((constructor)) static void f(void) { abort(); }\n";
    let library = CLibrary::quiet(code).build(&sandbox, "abort");
    refused_as(&sandbox, &library, &["abrt", "abort", "signal 6", "crash"]);
}

#[test]
fn with_a_constructor_that_loops() {
    let sandbox = Sandbox::new();
    let code = "__attribute__((constructor)) static void f(void) { for (volatile int i = 0;; i++) { } }\n";
    let library = CLibrary::quiet(code).build(&sandbox, "loop");
    refused_as(&sandbox, &library, &["time", "10 s", "hang", "long"]);
}

#[test]
fn with_a_constructor_that_loops_and_ignores_signals() {
    let sandbox = Sandbox::new();
    let code = "#include <signal.h>\n__attribute__((constructor)) static void f(void) {\n\
        for (int s = 1; s < 32; s++) signal(s, SIG_IGN);\nfor (volatile int i = 0;; i++) { } }\n";
    let library = CLibrary::quiet(code).build(&sandbox, "stubborn");
    refused_as(&sandbox, &library, &["time", "10 s", "hang", "long"]);
}

#[test]
fn with_a_constructor_that_exits_with_0() {
    let sandbox = Sandbox::new();
    let code = "#include <stdlib.h>\n__attribute__((constructor)) static void f(void) { exit(0); }\n";
    let library = CLibrary::quiet(code).build(&sandbox, "exit");
    refused_as(&sandbox, &library, &["exit", "ended"]);
}

#[test]
fn with_a_constructor_that_floods_stdout_and_stderr() {
    let sandbox = Sandbox::new();
    let code = "#include <stdio.h>\n__attribute__((constructor)) static void f(void) {\n\
        for (int i = 0; i < 100000; i++) { puts(\"noise on stdout\"); fputs(\"noise\\n\", stderr); } }\n";
    let library = CLibrary::quiet(code).arg("-DSAID_ABI=9").build(&sandbox, "noisy");
    let outcome = sandbox.launch("unattached").arg("--monitor").arg(library).puppet(["hang"]).run();
    outcome.assert_code(125);
    assert!(outcome.stdout.is_empty(), "standard output is for results");
    sandbox.assert_nothing_left();
}

#[test]
fn that_the_world_may_write_to() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "world");
    std::fs::set_permissions(&library, PermissionsExt::from_mode(0o757)).unwrap();
    refused_as(&sandbox, &library, &["writ"]);
    let outcome = sandbox.launch("unattached").arg("--monitor").arg(&library).puppet(["hang"]).run();
    assert!(outcome.err().contains("chmod"), "what to type: {outcome}");
}

#[test]
fn that_root_takes_only_if_no_other_group_may_write_to_it() {
    if !is_root() {
        eprintln!("skipped: only root is that careful");
        return;
    }
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "group_writable");
    std::os::unix::fs::chown(&library, None, Some(65534)).unwrap();
    std::fs::set_permissions(&library, PermissionsExt::from_mode(0o775)).unwrap();
    refused_as(&sandbox, &library, &["writ"]);
}

#[test]
fn that_root_takes_only_from_a_directory_that_others_may_not_write_to() {
    if !is_root() {
        eprintln!("skipped: only root is that careful");
        return;
    }
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "inner");
    let directory = sandbox.path("open");
    std::fs::create_dir(&directory).unwrap();
    let inside = directory.join("inside.so");
    std::fs::copy(library, &inside).unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    refused_as(&sandbox, &inside, &["writ"]);
    // A sticky one is as good as /tmp: nobody can put another file under the name.
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o1777)).unwrap();
    let outcome = sandbox.launch("unattached").arg("--monitor").arg(&inside).puppet(["hang"]).check();
    outcome.assert_code(0);
}

#[test]
fn of_a_foreign_owner() {
    if !is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "foreign_owner");
    std::os::unix::fs::chown(&library, Some(65534), None).unwrap();
    refused_as(&sandbox, &library, &["own"]);
    let outcome = sandbox.launch("unattached").arg("--monitor").arg(&library).puppet(["hang"]).run();
    assert!(outcome.err().contains("chown"), "what to type: {outcome}");
}

#[test]
fn that_cannot_be_read() {
    let sandbox = Sandbox::new();
    let library = CLibrary::quiet("").build(&sandbox, "unreadable");
    std::fs::set_permissions(&library, PermissionsExt::from_mode(0o000)).unwrap();
    let outcome = sandbox
        .unprivileged()
        .args(["start", "--monitor"])
        .arg(&library)
        .args(["-n", "group", "/bin/sleep", "1000"])
        .run();
    let error = outcome.assert_refused(125);
    assert!(error.contains("unreadable") && error.to_lowercase().contains("permission"), "{error}");
    assert!(sandbox.processes().is_empty());
}

#[test]
fn built_for_another_layout() {
    let library: PathBuf = immortal_tests::other_layout();
    let sandbox = Sandbox::new();
    refused_as(&sandbox, &library, &["layout", "event", "built", "rebuild"]);
}

#[test]
fn a_first_hit_that_fails_is_an_error_and_no_reason_to_look_further() {
    let sandbox = Sandbox::new();
    for folder in ["first", "second"] {
        std::fs::create_dir(sandbox.path(folder)).unwrap();
    }
    let good = CLibrary::quiet("").build(&sandbox, "quiet");
    let file = format!("libimmortal_monitor_quiet{}", std::env::consts::DLL_SUFFIX);
    std::fs::rename(good, sandbox.path("second").join(&file)).unwrap();
    sandbox.file(&format!("first/{file}"), "text", 0o755);
    let path = |folder: &str| sandbox.text_path(folder);
    let outcome = sandbox
        .launch("unattached")
        .args(["--monitor-path", &path("first"), "--monitor-path", &path("second"), "-m", "quiet"])
        .puppet(["hang"])
        .run();
    assert!(outcome.assert_refused(125).contains("first/"), "{outcome}");
}
