//! `logs`: the recent output of a group.

use super::report::Failure;
use crate::groups::{self, GroupError};
use crate::recent::Recent;
use std::io::{self, Write};
use std::time::Duration;

/// How often a follower looks.
const LOOK: Duration = Duration::from_millis(50);

/// Writes the last lines, and with `follow` what comes after them until the group ends.
pub(super) fn show(name: &str, lines: usize, follow: bool) -> Result<(), Failure> {
    let system = |source| GroupError::System { name: name.to_owned(), source };
    let group = groups::find(name)?;
    let Some(file) = group.open_recent().map_err(system)? else { return Ok(()) };
    let recent = Recent::new(file);
    let (bytes, mut position) = recent.since(0).map_err(system)?;
    let mut out = io::stdout().lock();
    if ignore_closed(out.write_all(last_lines(&bytes, lines)).and_then(|()| out.flush()))? {
        return Ok(());
    }
    let mut goes_on = follow;
    while goes_on {
        std::thread::sleep(LOOK);
        // Asked before the look: what was written until the end is seen.
        goes_on = groups::is_alive(name);
        let (bytes, behind) = recent.since(position).map_err(system)?;
        position = behind;
        if ignore_closed(out.write_all(&bytes).and_then(|()| out.flush()))? {
            break;
        }
    }
    Ok(())
}

/// True: whoever reads has had enough, as `head` does.
fn ignore_closed(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        result => result.map(|()| false),
    }
}

fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match lines {
        0 => &[],
        _ => &bytes[{ ends }.nth(lines - 1).unwrap_or(0)..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_cut_at_line_ends() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\n\n", 1), b"\n");
        assert_eq!(last_lines(b"a\nb", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
    }
}
