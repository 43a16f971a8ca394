use super::*;
use crate::delivery::WORDS;
use crate::sys::fd;
use proptest::prelude::*;
use std::sync::atomic::AtomicU64;

fn delivery() -> Delivery {
    let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
    Delivery::new(Vec::leak(words))
}

/// Everything that is pending, as a successor finds it.
fn reopened(file: &OwnedFd, delivery: Delivery) -> (usize, Vec<u8>) {
    let mut spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
    (delivery.standing().stream, spool.bytes().to_vec())
}

#[test]
fn what_was_taken_and_not_acknowledged_is_there_for_the_successor() {
    let (file, delivery) = (create().unwrap(), delivery());
    let (reader, writer) = fd::pipe().unwrap();
    fd::set_nonblocking(&reader).unwrap();
    let mut spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
    assert_eq!(spool.take(&reader, 0, CHUNK_BYTES).unwrap(), 0);
    nix::unistd::write(&writer, b"first").unwrap();
    assert_eq!(spool.take(&reader, 1, 3).unwrap(), 3);
    drop(spool);
    assert_eq!(reopened(&file, delivery), (1, b"fir".to_vec()));
    let mut spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
    spool.acknowledge();
    assert_eq!(delivery.standing().offsets, [0, 3]);
    assert_eq!(reopened(&file, delivery), (1, Vec::new()));
}

#[test]
fn a_rewind_that_was_cut_short_is_done_again() {
    let (file, delivery) = (create().unwrap(), delivery());
    let (reader, writer) = fd::pipe().unwrap();
    let mut spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
    nix::unistd::write(&writer, b"abc").unwrap();
    spool.take(&reader, 0, CHUNK_BYTES).unwrap();
    spool.acknowledge();
    let standing = delivery.standing();
    for moved in [false, true] {
        delivery.commit(Standing { rewinding: true, ..standing });
        if moved {
            rewind(&file).unwrap();
        }
        assert_eq!(reopened(&file, delivery), (0, Vec::new()));
        assert_eq!(delivery.standing(), Standing { from: 0, ..standing });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written, taken, acknowledged or interrupted: each stream arrives whole and in order, and nothing
    /// but what was pending at a death arrives twice.
    #[test]
    fn nothing_is_lost_over_any_number_of_pumps(
        steps in prop::collection::vec((0..2_usize, 1..90_000_usize, 0..4_u8), 1..60)
    ) {
        let (file, delivery) = (create().unwrap(), delivery());
        let pipes = [fd::pipe().unwrap(), fd::pipe().unwrap()];
        for (reader, writer) in &pipes {
            fd::set_nonblocking(reader).unwrap();
            fd::set_nonblocking(writer).unwrap();
        }
        let mut spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
        let (mut written, mut arrived) = ([0_usize; 2], [0_usize; 2]);
        let byte = |stream: usize, at: usize| u8::try_from((at * 7 + stream) % 251).unwrap();
        for (stream, length, fate) in steps {
            let bytes: Vec<u8> = (written[stream]..written[stream] + length).map(|at| byte(stream, at)).collect();
            written[stream] += nix::unistd::write(&pipes[stream].1, &bytes).unwrap_or(0);
            for which in [stream, 1 - stream] {
                spool.take(&pipes[which].0, which, length).unwrap();
                if fate == 0 {
                    // The pump dies before it can say that it has delivered.
                    spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
                }
                if spool.pending() > 0 {
                    let from = delivery.standing();
                    prop_assert_eq!(from.stream, which);
                    prop_assert_eq!(from.offsets[which], arrived[which] as u64);
                    for (index, found) in spool.bytes().iter().enumerate() {
                        prop_assert_eq!(*found, byte(which, arrived[which] + index));
                    }
                    arrived[which] += spool.pending();
                }
                spool.acknowledge();
                if fate == 1 {
                    spool = Spool::open(file.try_clone().unwrap(), delivery).unwrap();
                    prop_assert_eq!(spool.pending(), 0);
                }
            }
        }
        for stream in 0..2 {
            while spool.take(&pipes[stream].0, stream, CHUNK_BYTES).unwrap() > 0 {
                arrived[stream] += spool.pending();
                spool.acknowledge();
            }
        }
        prop_assert_eq!(arrived, written);
    }
}
