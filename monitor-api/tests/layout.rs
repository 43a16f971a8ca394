//! The boundary is frozen: every size and offset, in Rust and in the C header, is what it was in 1.0.0.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, its functions included; it says when it skips"
)]
use immortal_monitor_api::abi;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// One structure: its name in C, its size, and its members' names with their offsets.
struct Struct {
    name: &'static str,
    size: usize,
    members: Vec<(&'static str, usize)>,
}

/// Takes the layout from the compiler; members have the same names in C and in Rust.
macro_rules! layout {
    ($c:literal, $rust:ty, $($member:ident),* $(,)?) => {
        Struct {
            name: $c,
            size: size_of::<$rust>(),
            members: vec![$((stringify!($member), std::mem::offset_of!($rust, $member))),*],
        }
    };
}

fn layouts() -> Vec<Struct> {
    vec![
        layout!("im_str", abi::Str, data, len),
        layout!("im_opt", abi::Opt, key, value, kind, flags),
        layout!("im_setup", abi::Setup, size, why, flags, process_pid, message, cut_bytes, first_offset),
        layout!("im_output", abi::Output, size, stream, flags, reserved, offset, mono_ns, data),
        layout!(
            "im_event",
            abi::Event,
            size,
            kind,
            pid,
            code,
            signal,
            count,
            flags,
            reserved,
            mono_ns,
            wall_ns,
            ran_ns
        ),
        layout!("im_pids", abi::Pids, size, process, monitor, daemon),
        layout!("im_option", abi::OptionDecl, name, help, default_value, choices, choice_count, kind, flags),
        layout!("im_options", abi::OptionTable, size, flags, options, count),
        layout!(
            "im_crash",
            abi::Crash,
            size,
            role,
            code,
            signal,
            wall_ns,
            pid,
            count,
            monitor,
            hook,
            offsets,
            pending_stream,
            flags,
            pending_offset,
            pending_bytes,
            stderr_tail
        ),
        layout!(
            "im_host",
            abi::HostTable,
            abi,
            size,
            ctx,
            max_log_level,
            reserved_0,
            log,
            fail,
            ready,
            restart,
            shutdown,
            pids,
            get,
            count,
            at,
            durable,
            report,
            get_extension,
            reserved_pointers,
            reserved_numbers
        ),
        layout!(
            "im_monitor",
            abi::MonitorTable,
            magic,
            abi,
            size,
            flags,
            name,
            version,
            about,
            check,
            create,
            setup,
            output,
            event,
            idle,
            finish,
            destroy,
            get_extension,
            reserved_pointers,
            reserved_numbers
        ),
    ]
}

/// Every structure as `NAME SIZE: MEMBER@OFFSET …`, on a 64-bit system.
const FROZEN: &str = "\
im_str 16: data@0 len@8
im_opt 40: key@0 value@16 kind@32 flags@36
im_setup 56: size@0 why@4 flags@8 process_pid@12 message@16 cut_bytes@32 first_offset@40
im_output 48: size@0 stream@4 flags@8 reserved@12 offset@16 mono_ns@24 data@32
im_event 56: size@0 kind@4 pid@8 code@12 signal@16 count@20 flags@24 reserved@28 mono_ns@32 \
wall_ns@40 ran_ns@48
im_pids 16: size@0 process@4 monitor@8 daemon@12
im_option 48: name@0 help@8 default_value@16 choices@24 choice_count@32 kind@40 flags@44
im_options 24: size@0 flags@4 options@8 count@16
im_crash 120: size@0 role@4 code@8 signal@12 wall_ns@16 pid@24 count@28 monitor@32 hook@48 offsets@64 \
pending_stream@80 flags@84 pending_offset@88 pending_bytes@96 stderr_tail@104
im_host 216: abi@0 size@4 ctx@8 max_log_level@16 reserved_0@20 log@24 fail@32 ready@40 restart@48 \
shutdown@56 pids@64 get@72 count@80 at@88 durable@96 report@104 get_extension@112 \
reserved_pointers@120 reserved_numbers@184
im_monitor 208: magic@0 abi@4 size@8 flags@12 name@16 version@24 about@32 check@40 create@48 \
setup@56 output@64 event@72 idle@80 finish@88 destroy@96 get_extension@104 reserved_pointers@112 \
reserved_numbers@176
";

/// Numbers of the boundary, as Rust and C must agree on them.
const NUMBERS: &[(&str, i64)] = &[
    ("IM_MAGIC", abi::MAGIC as i64),
    ("IM_ABI", abi::ABI as i64),
    ("IM_OK", abi::OK as i64),
    ("IM_PENDING", abi::PENDING as i64),
    ("IM_FAILED", abi::FAILED as i64),
    ("IM_PANICKED", abi::PANICKED as i64),
    ("IM_WHY_PUMP_START", abi::WHY_PUMP_START as i64),
    ("IM_WHY_PUMP_RESTART", abi::WHY_PUMP_RESTART as i64),
    ("IM_WHY_DAEMON_RESTART", abi::WHY_DAEMON_RESTART as i64),
    ("IM_WHY_RELOAD", abi::WHY_RELOAD as i64),
    ("IM_STDOUT", abi::STREAM_STDOUT as i64),
    ("IM_STDERR", abi::STREAM_STDERR as i64),
    ("IM_EVENT_SPAWN", abi::EVENT_SPAWN as i64),
    ("IM_EVENT_RESPAWN", abi::EVENT_RESPAWN as i64),
    ("IM_EVENT_EXIT", abi::EVENT_EXIT as i64),
    ("IM_FLAG_KEPT", abi::FLAG_KEPT as i64),
    ("IM_FLAG_CORE", abi::FLAG_CORE as i64),
    ("IM_FLAG_REDELIVERED", abi::FLAG_REDELIVERED as i64),
    ("IM_OPT_TEXT", abi::OPT_TEXT as i64),
    ("IM_OPT_JSON", abi::OPT_JSON as i64),
    ("IM_MONITOR_PANIC_ABORT", abi::MONITOR_PANIC_ABORT as i64),
    ("IM_OPTION_STRING", abi::OPTION_STRING as i64),
    ("IM_OPTION_PATH", abi::OPTION_PATH as i64),
    ("IM_OPTION_INTEGER", abi::OPTION_INTEGER as i64),
    ("IM_OPTION_BOOLEAN", abi::OPTION_BOOLEAN as i64),
    ("IM_OPTION_SIZE", abi::OPTION_SIZE as i64),
    ("IM_OPTION_DURATION", abi::OPTION_DURATION as i64),
    ("IM_OPTION_CHOICE", abi::OPTION_CHOICE as i64),
    ("IM_OPTION_REQUIRED", abi::OPTION_REQUIRED as i64),
    ("IM_OPTION_NULLABLE", abi::OPTION_NULLABLE as i64),
    ("IM_OPTION_SECRET", abi::OPTION_SECRET as i64),
    ("IM_ROLE_PUMP", abi::ROLE_PUMP as i64),
    ("IM_ROLE_DAEMON", abi::ROLE_DAEMON as i64),
    ("IM_CRASH_BY_HOOK", abi::CRASH_BY_HOOK as i64),
];

#[test]
#[cfg(target_pointer_width = "64")]
fn no_size_and_no_offset_has_changed_since_the_first_release() {
    let mut now = String::new();
    for layout in layouts() {
        write!(now, "{} {}:", layout.name, layout.size).unwrap();
        for (member, offset) in layout.members {
            write!(now, " {member}@{offset}").unwrap();
        }
        now.push('\n');
    }
    assert_eq!(now, FROZEN);
}

#[test]
fn the_header_is_clean_c_and_cpp_and_says_the_same_as_rust() {
    let mut source = "#include \"immortal_monitor.h\"\n".to_owned();
    let mut hold = |claim: String| {
        writeln!(source, "typedef char check_{}[({claim}) ? 1 : -1];", source.len()).unwrap();
    };
    for layout in layouts() {
        hold(format!("sizeof({}) == {}", layout.name, layout.size));
        for (member, offset) in layout.members {
            hold(format!("offsetof({}, {member}) == {offset}", layout.name));
        }
    }
    for (name, number) in NUMBERS {
        hold(format!("{name} == {number}"));
    }
    // A monitor as small as can be: it must compile as it is in every language.
    source.push_str(
        "static void *create(const im_host *host, const im_opt *options, size_t count) {\n\
         (void)options; (void)count; return (void *)(uintptr_t)host; }\n\
         static void destroy(void *instance) { (void)instance; }\n\
         const im_monitor immortal_monitor_v1 = { IM_MAGIC, IM_ABI, sizeof(im_monitor), 0,\n\
         \"small\", \"1\", \"\", NULL, create, NULL, NULL, NULL, NULL, NULL, destroy, NULL, { NULL }, { 0 } };\n",
    );
    for (compiler, language, standards) in [("cc", "c", ["c99", "c11"]), ("c++", "c++", ["c++11", "c++20"])] {
        for standard in standards {
            compile(compiler, language, standard, &source);
        }
    }
}

fn compile(compiler: &str, language: &str, standard: &str, source: &str) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let child = Command::new(compiler)
        .args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"])
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fvisibility=hidden", "-I"])
        .args([include.as_os_str(), "-".as_ref()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped for {standard}: there is no {compiler} here");
            return;
        }
        Err(error) => panic!("unable to run {compiler}: {error}"),
    };
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{standard}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_extensions_have_the_headers_names() {
    let header = include_str!("../include/immortal_monitor.h");
    for (macro_name, name) in [("OPTIONS", abi::EXTENSION_OPTIONS), ("CRASH", abi::EXTENSION_CRASH)] {
        let name = name.to_str().unwrap();
        assert!(header.contains(&format!("#define IM_EXTENSION_{macro_name} \"{name}\"\n")));
    }
}
