//! A start while its monitors are being checked: it has its name already, and is no group yet.

use immortal_tests::{CLibrary, Running, Sandbox, Signal, artifacts, eventually};
use std::path::{Path, PathBuf};

const STRATEGIES: [&str; 3] = ["unattached", "daemon", "development"];

/// A monitor whose `check` makes the file `entered`, and then does this.
fn checking(sandbox: &Sandbox, name: &str, then: &str) -> PathBuf {
    let source = format!(
        r#"
        #include <fcntl.h>
        #include <sys/file.h>
        #include <time.h>
        #include <unistd.h>
        static int32_t check(const im_host *host, const im_opt *options, size_t count) {{
            struct timespec moment = {{ 0, 5000000 }};
            (void)host; (void)options; (void)count; (void)moment;
            close(open("{entered}", O_CREAT | O_WRONLY, 0600));
            {then}
            return IM_OK;
        }}
        #define MORE .check = check,
        "#,
        entered = sandbox.text_path("entered"),
    );
    CLibrary::quiet(&source).arg("-D_DEFAULT_SOURCE").build(sandbox, name)
}

/// Code that waits until the file `go` is there.
fn until_go(sandbox: &Sandbox) -> String {
    format!("while (access(\"{}\", F_OK) != 0) nanosleep(&moment, 0);", sandbox.text_path("go"))
}

/// A start of the group `late` whose monitor is in `check`; the runtime directory was there before.
fn start_in_check(sandbox: &Sandbox, strategy: &str, monitors: &[&Path]) -> Running {
    sandbox.launch("unattached").name("other").recorder().puppet(["hang"]).start().stop();
    let mut launch = sandbox.launch(strategy).name("late");
    for monitor in monitors {
        launch = launch.arg("--monitor").arg(monitor);
    }
    let start = launch.puppet(["note=ran", "hang"]).spawn();
    eventually("the monitor is in check", || sandbox.path("entered").exists().then_some(()));
    start
}

#[test]
fn a_start_that_is_killed_leaves_nothing() {
    for strategy in STRATEGIES {
        for signal in [Signal::SIGKILL, Signal::SIGINT] {
            let sandbox = Sandbox::new();
            let monitor = checking(&sandbox, "waiting", &until_go(&sandbox));
            let start = start_in_check(&sandbox, strategy, &[&monitor]);
            let claimed = sandbox.runtime_files();
            let has_name = claimed.iter().any(|file| file.ends_with("late/lock"));
            assert!(has_name, "{strategy}, {signal}: the name is taken: {claimed:?}");
            start.signal(signal);
            drop(start.wait());
            eventually(&format!("{strategy}, {signal}: nothing is left"), || {
                (sandbox.processes().is_empty() && sandbox.runtime_files().is_empty()).then_some(())
            });
            assert!(sandbox.noted("ran").is_empty(), "{strategy}, {signal}: the program ran");
        }
    }
}

#[test]
fn it_is_no_group_and_has_its_name() {
    let sandbox = Sandbox::new();
    let monitor = checking(&sandbox, "waiting", &until_go(&sandbox));
    let start = start_in_check(&sandbox, "unattached", &[&monitor]);
    assert_eq!(sandbox.immortal(["list", "--json"]).run().json(), serde_json::json!([]));
    sandbox.immortal(["status", "late"]).run().assert_code(1);
    let second = sandbox.launch("unattached").name("late").recorder().puppet(["note=ran", "hang"]).run();
    let error = second.assert_refused(125);
    assert!(error.contains("name late: a start of it is under way"), "{error}");
    start.signal(Signal::SIGKILL);
    drop(start.wait());
    sandbox.launch("unattached").name("late").recorder().puppet(["hang"]).run().assert_code(0);
    sandbox.immortal(["stop", "late"]).run().assert_code(0);
    sandbox.assert_nothing_left();
}

#[test]
fn one_that_is_refused_at_last_does_not_take_the_name_from_another() {
    let sandbox = Sandbox::new();
    let monitor = checking(
        &sandbox,
        "refusing",
        "moment.tv_nsec = 200000000; nanosleep(&moment, 0); return IM_FAILED;",
    );
    let refused = start_in_check(&sandbox, "daemon", &[&monitor]);
    let good = sandbox.launch("daemon").name("late").recorder().puppet(["hang"]).run();
    refused.wait().assert_code(125);
    good.assert_code(0);
    sandbox.immortal(["stop", "late"]).run().assert_code(0);
    sandbox.assert_nothing_left();
}

#[test]
fn a_library_that_is_upgraded_meanwhile_is_checked_anew() {
    for strategy in STRATEGIES {
        let sandbox = Sandbox::new();
        let first = sandbox.path("libfirst.so");
        std::fs::copy(artifacts().monitor("quiet"), &first).unwrap();
        let waiting = checking(&sandbox, "waiting", &until_go(&sandbox));
        let start = start_in_check(&sandbox, strategy, &[&first, &waiting]);
        std::fs::copy(&first, sandbox.path("new")).unwrap();
        std::fs::rename(sandbox.path("new"), &first).unwrap();
        std::fs::write(sandbox.path("go"), "").unwrap();
        eventually(&format!("{strategy}: the program runs"), || {
            (!sandbox.noted("ran").is_empty()).then_some(())
        });
        sandbox.immortal(["stop", "late"]).run().assert_code(0);
        drop(start.wait());
        sandbox.assert_nothing_left();
    }
}

#[test]
fn what_a_monitor_holds_in_check_is_free_when_it_is_set_up() {
    // The second is a lock that no descriptor holds any more, but the mapped file does.
    let keep = "return IM_OK;";
    let map = "mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0); close(fd); return IM_OK;";
    for (strategy, then) in STRATEGIES.into_iter().flat_map(|strategy| [(strategy, keep), (strategy, map)]) {
        let sandbox = Sandbox::new();
        let lock = format!("open(\"{}\", O_CREAT | O_RDWR, 0600)", sandbox.text_path("lock"));
        let source = format!(
            r#"
            #include <fcntl.h>
            #include <sys/file.h>
            #include <sys/mman.h>
            #include <unistd.h>
            static int32_t take(void) {{
                int fd = {lock};
                if (flock(fd, LOCK_EX | LOCK_NB) != 0) return IM_FAILED;
                {then}
            }}
            static int32_t check(const im_host *host, const im_opt *options, size_t count) {{
                (void)host; (void)options; (void)count;
                return take();
            }}
            static int32_t setup(void *self, const im_setup *args) {{
                (void)self; (void)args;
                return take();
            }}
            #define MORE .check = check, .setup = setup,
            "#
        );
        let library = CLibrary::quiet(&source).arg("-D_DEFAULT_SOURCE").build(&sandbox, "locking");
        let running =
            sandbox.launch(strategy).arg("--monitor").arg(library).puppet(["note=ran", "hang"]).spawn();
        eventually(&format!("{strategy}, {then}: the program runs"), || {
            (!sandbox.noted("ran").is_empty()).then_some(())
        });
        sandbox.immortal(["stop", "group"]).run().assert_code(0);
        drop(running.wait());
    }
}

#[test]
fn a_start_that_takes_its_time_keeps_no_helper() {
    let sandbox = Sandbox::new();
    let start = sandbox
        .launch("unattached")
        .recorder()
        .set("recorder.ready", "later:5000ms")
        .puppet(["hang"])
        .spawn();
    let has = |call: &str| {
        let record = std::fs::read_to_string(sandbox.path("record")).unwrap_or_default();
        record.contains(&format!("\"{call}\""))
    };
    eventually("the monitor is set up", || has("setup").then_some(()));
    eventually("command and pump are left", || (sandbox.processes().len() == 2).then_some(()));
    assert!(!has("ready"), "before the start is over");
    start.signal(Signal::SIGKILL);
    drop(start.wait());
    eventually("nothing is left", || sandbox.processes().is_empty().then_some(()));
}

#[test]
fn what_stands_behind_the_program_is_not_loaded() {
    let sandbox = Sandbox::new();
    let source = format!(
        r#"
        #include <fcntl.h>
        #include <unistd.h>
        __attribute__((constructor)) static void loaded(void) {{
            close(open("{}", O_CREAT | O_WRONLY, 0600));
        }}
        "#,
        sandbox.text_path("loaded"),
    );
    let library = CLibrary::quiet(&source).arg("-D_DEFAULT_SOURCE").build(&sandbox, "loaded");
    let program = sandbox.launch("unattached").recorder().puppet(["hang", "-m"]).program_args([&library]);
    let group = program.start();
    assert_eq!(group.status()["args"][1], "-m");
    group.stop();
    assert!(!sandbox.path("loaded").exists());
}
