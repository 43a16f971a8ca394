//! The scripted lives: output of every awkward shape, deaths of every kind, respawned pumps and daemons.

use immortal_monitor_api::abi;

use super::life::{Broken, Context, How, Life, Outcome};
use super::notes::step;
use super::wire::Finding;
use crate::loader::{Stream, Why, borrow, size_u32};

/// Chunks in [`many_chunks`].
const MANY: usize = 100_000;

pub(super) fn ready(context: &Context<'_>) -> Outcome {
    Life::begin(context)?.end()?;
    Ok(Finding::pass())
}

pub(super) fn whole_life(context: &Context<'_>) -> Outcome {
    Life::begin(context)?.whole()?;
    Ok(Finding::pass())
}

/// A life in which these chunks are written to both streams.
fn life_of(context: &Context<'_>, chunks: &[&[u8]]) -> Outcome {
    let mut life = Life::begin(context)?;
    life.spawn()?;
    for stream in [Stream::Stdout, Stream::Stderr] {
        for chunk in chunks {
            life.output(stream, chunk)?;
        }
        life.idle()?;
    }
    life.exit(How::Code(0))?;
    life.end()?;
    Ok(Finding::pass())
}

pub(super) fn no_output(context: &Context<'_>) -> Outcome {
    life_of(context, &[])
}

/// A read returns at least one byte, but what passes through a spool may be empty.
pub(super) fn empty_chunks(context: &Context<'_>) -> Outcome {
    life_of(context, &[b"", b"text", b"", b"\n", b""])
}

pub(super) fn one_byte(context: &Context<'_>) -> Outcome {
    life_of(context, &[b"x", b"\n", b"\r", b" ", b"\t"])
}

pub(super) fn no_newline(context: &Context<'_>) -> Outcome {
    life_of(context, &[b"a line that never ends", b" and goes on"])
}

pub(super) fn long_line(context: &Context<'_>) -> Outcome {
    let line = vec![b'x'; 1 << 20];
    let parts: Vec<&[u8]> = line.chunks(1 << 16).collect();
    life_of(context, &[&[line.as_slice(), b"\n"], parts.as_slice(), &[b"\n"]].concat())
}

pub(super) fn nul_bytes(context: &Context<'_>) -> Outcome {
    life_of(context, &[b"\0", b"a\0b\n", b"\0\0\0\0\n\0", &[0; 4096]])
}

pub(super) fn invalid_utf8(context: &Context<'_>) -> Outcome {
    let all: Vec<u8> = (1..=255).collect();
    // A character of four bytes, cut at each place; overlong, surrogate, and lone continuation bytes.
    let cut: [&[u8]; 6] = [b"\xf0", b"\x9f\xa6\x80", b"\xf0\x9f", b"\xa6\x80\n", b"\xf0\x9f\xa6", b"\x80"];
    life_of(
        context,
        &[[all.as_slice(), b"\xff\n", b"\xc0\xaf\n", b"\xed\xa0\x80\n", b"\x80\x80"].as_slice(), &cut]
            .concat(),
    )
}

pub(super) fn many_chunks(context: &Context<'_>) -> Outcome {
    let mut life = Life::begin(context)?;
    life.spawn()?;
    let mut taken = 0;
    while taken < MANY && !context.is_late() {
        let stream = if taken % 3 == 2 { Stream::Stderr } else { Stream::Stdout };
        life.output(stream, if taken % 7 == 0 { b"end\n" } else { b"ten bytes." })?;
        taken += 1;
    }
    let took = context.started.elapsed().as_secs_f32();
    life.exit(How::Code(0))?;
    life.end()?;
    Ok(match taken {
        MANY => Finding::Pass(format!("{MANY} in {took:.2} s")),
        _ => Finding::Fail(format!("it took only {taken} of {MANY} small chunks in {took:.1} s")),
    })
}

pub(super) fn exits(context: &Context<'_>) -> Outcome {
    let mut life = Life::begin(context)?;
    life.spawn()?;
    let codes = [0, 1, 2, 125, 126, 127, 128, 255].map(How::Code);
    let signals =
        (1..=64).filter(|signal| ![32, 33].contains(signal)).map(|signal| How::Signal(signal, false));
    for how in codes.into_iter().chain(signals).chain([How::Signal(libc::SIGSEGV, true)]) {
        step_in("exit", how);
        life.exit(how)?;
        life.respawn()?;
    }
    life.exit(How::Code(0))?;
    life.end()?;
    Ok(Finding::pass())
}

fn step_in(hook: &str, how: How) {
    step(&match how {
        How::Code(code) => format!("{hook} with code {code}"),
        How::Signal(signal, _) => format!("{hook} with signal {signal}"),
    });
}

/// A successor: told why, then what was left in the streams, then that the process was restarted.
fn succeed(context: &Context<'_>, why: Why, message: &[u8], cut_bytes: u64) -> Result<(), Broken> {
    let mut life = Life::create(context)?;
    life.go_on_at([123_456_789_012, 77], 41);
    life.setup(context, why, message, cut_bytes)?;
    life.output(Stream::Stdout, b"half of a line that the last monitor has seen\nleft")?;
    life.output(Stream::Stderr, b"left as well")?;
    life.respawn()?;
    life.output(Stream::Stdout, b"new\n")?;
    life.exit(How::Code(3))?;
    life.end()
}

pub(super) fn pump_restart(context: &Context<'_>) -> Outcome {
    let long = [b"x".repeat(1 << 20), b"\nthe last line".to_vec()].concat();
    let messages: [(&[u8], u64); 5] = [
        (b"error: monitor m: stdout: panicked at src/lib.rs:1:1: boom\n", 0),
        (b"", 0),
        (b"\xff\xfe not UTF-8 \0 and a NUL", 0),
        (b"\n\n\n", 12),
        (&long, 1 << 40),
    ];
    for (message, cut_bytes) in messages {
        succeed(context, Why::PumpRestart, message, cut_bytes)?;
    }
    Ok(Finding::pass())
}

pub(super) fn daemon_restart(context: &Context<'_>) -> Outcome {
    succeed(context, Why::DaemonRestart, b"", 0)?;
    succeed(context, Why::DaemonRestart, b"the pump's last words", 3)?;
    Ok(Finding::pass())
}

/// Two labels may lead to one library: its instances live side by side.
pub(super) fn two_instances(context: &Context<'_>) -> Outcome {
    let mut one = Life::begin(context)?;
    let mut two = Life::begin(context)?;
    for life in [&mut one, &mut two] {
        life.spawn()?;
    }
    for _ in 0..10 {
        one.output(Stream::Stdout, b"first\n")?;
        two.output(Stream::Stdout, b"second\n")?;
    }
    one.exit(How::Code(0))?;
    one.end()?;
    two.output(Stream::Stdout, b"still here\n")?;
    two.exit(How::Code(0))?;
    two.end()?;
    Ok(Finding::pass())
}

/// What a newer host may pass: longer structures, and kinds that did not exist.
pub(super) fn newer_host(context: &Context<'_>) -> Outcome {
    #[repr(C)]
    struct Longer<T> {
        old: T,
        new: [u64; 4],
    }
    const NEW: [u64; 4] = [u64::MAX; 4];
    let mut life = Life::create(context)?;
    step("setup for a reason that it cannot know");
    let setup = abi::Setup {
        size: size_u32::<Longer<abi::Setup>>(),
        why: 77,
        flags: 0,
        process_pid: 0,
        message: borrow(b"new"),
        cut_bytes: 0,
        first_offset: [0; 2],
    };
    let setup = Longer { old: setup, new: NEW };
    life.instance.setup_lent(&setup.old)?;
    life.respawn()?;
    step("output of a stream that it cannot know");
    for stream in [abi::STREAM_STDOUT, 9] {
        let data = borrow(b"bytes\n");
        let size = size_u32::<Longer<abi::Output>>();
        let output = abi::Output { size, stream, flags: 0, reserved: 0, offset: 0, mono_ns: 0, data };
        let output = Longer { old: output, new: NEW };
        life.instance.output_lent(&output.old)?;
        debug_assert_eq!(output.new, NEW);
    }
    step("an event that it cannot know");
    let event = abi::Event {
        size: size_u32::<Longer<abi::Event>>(),
        kind: 99,
        pid: 0,
        code: -1,
        signal: -1,
        count: 0,
        flags: u32::MAX,
        reserved: 0,
        mono_ns: 0,
        wall_ns: 0,
        ran_ns: 0,
    };
    let event = Longer { old: event, new: NEW };
    life.instance.event_lent(&event.old)?;
    debug_assert_eq!((setup.new, event.new), (NEW, NEW));
    life.exit(How::Code(0))?;
    life.end()?;
    Ok(Finding::pass())
}
