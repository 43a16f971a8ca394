//! A real server under strategy `daemon`: nginx in the foreground, under load, its master killed again and again.

use immortal_tests::{Role, Sandbox, Signal, eventually, get};
use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

fn nginx() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join("nginx")).find(|file| file.is_file())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

fn configuration(sandbox: &Sandbox, port: u16) -> PathBuf {
    let own = sandbox.text_path("nginx");
    std::fs::create_dir(&own).expect("a folder for nginx");
    // Root's workers would be another user's, who cannot open a pipe of root's by its name.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "daemon off; {user} worker_processes 2; pid {own}/pid; error_log stderr warn;\n\
         events {{ worker_connections 128; }}\n\
         http {{\n\
         log_format plain '$request_uri $status'; access_log /dev/stdout plain;\n\
         client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/fastcgi;\n\
         uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"hello\\n\"; }} }}\n\
         }}\n"
    );
    sandbox.file("nginx.conf", text, 0o600)
}

#[test]
fn nginx_comes_back_each_time_and_logs_every_answered_request() {
    let Some(nginx) = nginx() else {
        eprintln!("skipped: there is no nginx on this machine");
        return;
    };
    let sandbox = Sandbox::new();
    let port = free_port();
    let configuration = configuration(&sandbox, port);
    let program = [nginx.as_os_str(), "-c".as_ref(), configuration.as_os_str()];
    let pause = ["--backoff", "100ms", "--backoff-max", "200ms"];
    let group = sandbox.launch("daemon").log().args(pause).program(program).start();
    eventually("nginx answers", || get(port, "/first"));

    let over = AtomicBool::new(false);
    let answered: HashSet<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let over = &over;
                scope.spawn(move || {
                    let mut answered = Vec::new();
                    for number in 0_u32.. {
                        let path = format!("/{client}/{number}");
                        match get(port, &path) {
                            Some(200) => answered.push(path),
                            // Nobody listens, or the one who did has died: not too eager.
                            _ => std::thread::sleep(std::time::Duration::from_millis(5)),
                        }
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    answered
                })
            })
            .collect();
        // The clients go on until this says so, even if it fails.
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut old = group.started;
            for kill in 0..10 {
                eventually("it answers", || get(port, &format!("/between/{kill}")));
                let signal = if kill % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
                group.member(Role::Process).signal(signal);
                old = group.wait_renewed(old, &[Role::Process]);
            }
            eventually("it answers after the last time", || get(port, "/last"));
        }));
        over.store(true, Ordering::Relaxed);
        let answered = clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        if let Err(reason) = killed {
            std::panic::resume_unwind(reason);
        }
        answered
    });
    assert!(answered.len() > 50, "there was load: {} answers", answered.len());

    group.stop();
    let log = group.log();
    let text = log.output_text();
    let logged: HashSet<&str> = text.lines().filter_map(|line| line.strip_suffix(" 200")).collect();
    let missing: Vec<&String> = answered.iter().filter(|path| !logged.contains(path.as_str())).collect();
    assert!(missing.is_empty(), "{} of {} without a line: {missing:?}", missing.len(), answered.len());
    let terminated = log.events().iter().filter(|event| *event == "! process terminated !").count();
    assert!(terminated >= 10, "{terminated} deaths in the log");
}
