//! The newest bytes of a stream that has no end.

use std::time::{Duration, Instant};

/// Above this many bytes within [`WINDOW`] (or the limit, if that is larger) a pump is in an error loop.
const FLOOD_BYTES: u64 = 1024 * 1024;
const WINDOW: Duration = Duration::from_secs(1);
/// Below this limit the remark about what was cut does not count against it.
const SMALL_LIMIT: usize = 256;

/// Keeps the newest bytes, at most `limit`, and counts the others.
#[derive(Debug)]
pub(super) struct Tail {
    limit: usize,
    bytes: Vec<u8>,
    total: u64,
    window: Option<(Instant, u64)>,
}

impl Tail {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
            bytes: Vec::new(),
            total: 0,
            window: None,
        }
    }

    /// Adds bytes that came at this moment. True: they come too fast.
    pub(super) fn add(&mut self, bytes: &[u8], now: Instant) -> bool {
        self.total += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.limit.saturating_mul(2).max(64 * 1024) {
            self.bytes.drain(..self.bytes.len() - self.limit);
        }
        let (since, count) = match self.window {
            Some((since, count)) if now.saturating_duration_since(since) < WINDOW => (since, count),
            Some(_) | None => (now, 0),
        };
        let count = count + bytes.len() as u64;
        self.window = Some((since, count));
        count > FLOOD_BYTES.max(self.limit as u64)
    }

    /// The message for the next monitors, and how many bytes are missing before it. What was cut is said in its
    /// first line, which counts against the limit.
    pub(super) fn message(&self) -> (Vec<u8>, u64) {
        if self.total <= self.limit as u64 {
            return (self.bytes.clone(), 0);
        }
        let remark = |cut: u64| format!("[{cut} bytes cut]\n").into_bytes();
        let mut kept = self.limit;
        if self.limit >= SMALL_LIMIT {
            kept -= remark(self.total).len();
        }
        let kept = kept.min(self.bytes.len());
        let cut = self.total - kept as u64;
        let mut message = remark(cut);
        message.extend_from_slice(&self.bytes[self.bytes.len() - kept..]);
        (message, cut)
    }

    /// The last line that is not empty.
    pub(super) fn last_line(&self) -> Option<String> {
        crate::places::last_line(&self.bytes)
    }

    /// The newest bytes, no more than the limit.
    pub(super) fn newest(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(self.limit)..]
    }

    /// Forgets everything, for the next pump.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept_and_the_others_counted() {
        let mut tail = Tail::new(300);
        let now = Instant::now();
        for number in 0..100_000 {
            tail.add(format!("line {number}\n").as_bytes(), now);
        }
        let (message, cut) = tail.message();
        let text = String::from_utf8(message).unwrap();
        assert!(text.len() <= 300, "{}", text.len());
        assert!(text.starts_with(&format!("[{cut} bytes cut]\n")), "{text}");
        assert!(text.ends_with("line 99999\n"));
        let remark = text.find('\n').unwrap() + 1;
        assert_eq!(cut + (text.len() - remark) as u64, tail.total);
    }

    #[test]
    fn what_fits_is_whole() {
        let mut tail = Tail::new(5);
        tail.add(b"hello", Instant::now());
        assert_eq!(tail.message(), (b"hello".to_vec(), 0));
    }

    #[test]
    fn a_flood_is_more_than_a_mebibyte_within_a_second() {
        let start = Instant::now();
        let mut tail = Tail::new(10);
        assert!(!tail.add(&vec![b'x'; 1024 * 1024], start));
        assert!(tail.add(b"x", start + Duration::from_millis(999)));
        let mut slow = Tail::new(10);
        assert!(!slow.add(&vec![b'x'; 1024 * 1024], start));
        assert!(!slow.add(b"x", start + Duration::from_millis(1001)));
    }
}
