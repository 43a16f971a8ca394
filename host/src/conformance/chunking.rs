//! The same bytes in other pieces: what a monitor makes of a stream must not depend on where it was cut.

use std::collections::{BTreeMap, BTreeSet};

use super::life::{Broken, Context, How, Life, Outcome};
use super::notes::step;
use super::source::Source;
use super::wire::Finding;
use crate::loader::{Stream, one_line};

/// Bytes of the stream.
const LENGTH: usize = 24 << 10;

/// What can be seen of a life from outside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    reports: BTreeMap<Vec<u8>, Vec<u8>>,
    asked: (bool, bool),
}

fn live(context: &Context<'_>, how: &str, chunks: &[&[u8]]) -> Result<Seen, Broken> {
    step(&format!("the stream {how}"));
    let mut life = Life::begin(context)?;
    life.spawn()?;
    for chunk in chunks {
        life.output(Stream::Stdout, chunk)?;
    }
    life.idle()?;
    life.exit(How::Code(0))?;
    life.finish()?;
    let seen = Seen { reports: life.recorder.reports(), asked: life.recorder.requests() };
    life.destroy()?;
    Ok(seen)
}

pub(super) fn pieces(context: &Context<'_>) -> Outcome {
    let mut source = Source::new(context.job.seed);
    let stream = source.lines(LENGTH);
    let whole = live(context, "as a whole", &[&stream])?;
    let again = live(context, "as a whole", &[&stream])?;
    // A time or a count over all instances differs by itself; nothing can be told from it.
    let keys: BTreeSet<&Vec<u8>> = whole.reports.keys().chain(again.reports.keys()).collect();
    let is_steady = |key: &&Vec<u8>| whole.reports.get(*key) == again.reports.get(*key);
    let steady: Vec<&Vec<u8>> = keys.iter().copied().filter(is_steady).collect();
    let mut cuts: Vec<(String, Vec<&[u8]>)> = vec![
        ("byte by byte".into(), stream.chunks(1).collect()),
        ("line by line".into(), stream.split_inclusive(|&byte| byte == b'\n').collect()),
        ("in pieces of 7 bytes".into(), stream.chunks(7).collect()),
    ];
    for number in 0..3 {
        cuts.push((
            format!("in pieces by chance ({number} of seed {})", context.job.seed),
            cut(&stream, &mut source),
        ));
    }
    for (how, chunks) in &cuts {
        let seen = live(context, how, chunks)?;
        for &key in &steady {
            let (one, other) = (whole.reports.get(key), seen.reports.get(key));
            if one != other {
                return Ok(Finding::Fail(format!(
                    "it reports {}={} when the same bytes come {how}, and {} when they come at once: a chunk is what one read returned",
                    shown(Some(key)),
                    shown(other),
                    shown(one)
                )));
            }
        }
        if let Some(key) = seen.reports.keys().find(|key| !keys.contains(key)) {
            return Ok(Finding::Fail(format!(
                "it reports {} only when the bytes come {how}",
                shown(Some(key))
            )));
        }
        if seen.asked != whole.asked && whole.asked == again.asked {
            return Ok(Finding::Fail(format!(
                "it asks for {} when the same bytes come {how}, and for {} when they come at once",
                asked(seen.asked),
                asked(whole.asked)
            )));
        }
    }
    Ok(if steady.is_empty() && whole.asked == (false, false) {
        Finding::Pass(
            "nothing can be seen of what it makes of them: it reports nothing and asks for nothing".into(),
        )
    } else {
        Finding::Pass(format!("{} ways of cutting", cuts.len()))
    })
}

fn cut<'a>(mut rest: &'a [u8], source: &mut Source) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(source.length(rest.len()).max(1));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

fn shown(text: Option<&Vec<u8>>) -> String {
    const CHARS: usize = 60;
    text.map_or_else(
        || "nothing".into(),
        |text| one_line(&String::from_utf8_lossy(text)).chars().take(CHARS).collect(),
    )
}

fn asked(requests: (bool, bool)) -> &'static str {
    match requests {
        (false, false) => "nothing",
        (true, false) => "a restart",
        (false, true) => "a shutdown",
        (true, true) => "a restart and a shutdown",
    }
}
