//! Numbers and bytes that look random and come again with the same seed.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(super) struct Source(u64);

impl Source {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// A length: small ones, great ones, and those around powers of two.
    pub(super) fn length(&mut self, most: usize) -> usize {
        let power = 1_usize << self.below(17);
        let length = match self.below(4) {
            0 => self.below(4),
            1 => power + self.below(3) - 1,
            _ => self.below(power),
        };
        length.min(most)
    }

    /// Output as programs write it, and as they should not.
    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let kind = self.below(4);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            match kind {
                0 => bytes.push(self.next().to_le_bytes()[0]),
                1 => bytes.extend_from_slice(&[b'x'; 61]),
                _ => bytes.extend_from_slice(self.line().as_bytes()),
            }
        }
        bytes.truncate(length);
        bytes
    }

    /// A line with its end.
    fn line(&mut self) -> String {
        const WORDS: &[&str] =
            &["GET /", "error:", "ERROR", "warning", "panic", "päivä", "🦀", "", "42", "ready", "="];
        let count = self.below(9);
        let words: Vec<&str> = (0..count).map(|_| WORDS[self.below(WORDS.len())]).collect();
        let end = if self.below(8) == 0 { "\r\n" } else { "\n" };
        words.join(" ") + end
    }

    /// Lines of text, about this long in all.
    pub(super) fn lines(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 128);
        while bytes.len() < length {
            bytes.extend_from_slice(self.line().as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same() {
        let all = |seed| {
            let mut source = Source::new(seed);
            let length = source.length(1 << 16);
            (length, source.bytes(length), source.lines(1000))
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }
}
