//! Many lines at once, each with a stamp before it.

use super::Stamp;
use wide::u8x16;

/// How many bytes are looked at together, one bit of a mask for each.
const BLOCK_BYTES: usize = 64;
const LANES: usize = 16;

/// Appends lines with a stamp before each until the buffer is `most` bytes long, or nearly. Returns how many bytes
/// of them that took, which are whole lines. Up to 63 bytes behind the last whole block are not looked at.
///
/// All newlines of a block are found together: one search after the other could begin only when the one before is
/// done, and what is written would wait for it.
pub(crate) fn append_lines(buffer: &mut Vec<u8>, bytes: &[u8], stamp: &Stamp, most: usize) -> usize {
    let mut taken = 0;
    for (index, block) in bytes.as_chunks().0.iter().enumerate() {
        let mut newlines = newlines(block);
        while newlines != 0 {
            let end = BLOCK_BYTES * index + newlines.trailing_zeros() as usize + 1;
            newlines &= newlines - 1;
            let line = &bytes[taken..end];
            if buffer.len() + stamp.as_bytes().len() + line.len() > most {
                return taken;
            }
            stamp.append_to(buffer);
            buffer.extend_from_slice(line);
            taken = end;
        }
    }
    taken
}

/// Where a block has newlines, its first byte the lowest bit.
#[inline]
fn newlines(block: &[u8; BLOCK_BYTES]) -> u64 {
    let newline = u8x16::splat(b'\n');
    let (lanes, _) = block.as_chunks::<LANES>();
    lanes.iter().rev().fold(0, |mask, &lanes| {
        let found = u8x16::new(lanes).simd_eq(newline).to_bitmask();
        mask << LANES | u64::from(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Format, Stamper};
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    proptest! {
        #[test]
        fn every_whole_line_that_fits_has_a_stamp(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>(), Just(b'x'), Just(b'x')], 0..700),
            before in 0..3_usize,
            most in 0..2000_usize,
            format in prop_oneof![Just(Format::Rfc3339), Just(Format::Tai64n)],
        ) {
            let stamp = Stamper::new(format).stamp(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
            let mut buffer = vec![b'b'; before];
            let taken = append_lines(&mut buffer, &bytes, &stamp, most);
            let mut expected = vec![b'b'; before];
            let mut left = bytes.as_slice();
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let is_looked_at = bytes.len() - left.len() + line.len() <= bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
                let length = expected.len() + stamp.as_bytes().len() + line.len();
                if !is_looked_at || !line.ends_with(b"\n") || length > most {
                    break;
                }
                expected.extend_from_slice(stamp.as_bytes());
                expected.extend_from_slice(line);
                left = &left[line.len()..];
            }
            prop_assert_eq!(taken, bytes.len() - left.len());
            prop_assert_eq!(buffer, expected);
        }
    }
}
