//! How far delivery has come: the part of the state page that a pump leaves to its successor.
//!
//! A pump may be killed between any two instructions. So what belongs together is written to one of two slots, and a
//! single store says which of them counts. What is true of one monitor alone is a number of its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many numbers of the page belong to delivery.
pub(crate) const WORDS: usize = 64;
/// Of how many monitors the state of delivery is kept; those beyond are given the whole of a pending chunk again.
pub(crate) const MOST_MONITORS: usize = (WORDS - MONITORS) / MONITOR_WORDS;

/// Which slot counts.
const SLOT: usize = 0;
const SLOTS: [usize; 2] = [1, 6];
/// A hook that is being called: see [`Delivery::enter`].
const HOOK: usize = 11;
/// How many hooks were called by this pump.
const CALLS: usize = 12;
/// What a pump that left by itself says of its reason: see [`Delivery::set_verdict`].
const VERDICT: usize = 13;
/// How many bytes of the spool are taken.
const FILL: usize = 14;
/// A monitor and up to where bytes of a stream were set aside for it: see [`Delivery::set_aside`].
const ASIDE: usize = 15;
/// Where the first monitor's numbers are: what it got of stdout and of stderr, and the last event.
const MONITORS: usize = 16;
const MONITOR_WORDS: usize = 3;

/// Bit of the stream's number while the spool is being rewound.
const REWINDING: u64 = 1 << 8;

/// A chunk that was taken and may not be delivered to everybody yet, and what was before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// Where the chunk begins: in the spool, or in the ring of recent output.
    pub(crate) from: u64,
    /// Its stream: 0 stdout, 1 stderr.
    pub(crate) stream: usize,
    /// Up to where each stream is delivered to everybody.
    pub(crate) offsets: [u64; 2],
    /// Length of the chunk, in bytes; with a spool that is what lies behind `from`.
    pub(crate) length: u64,
    /// The spool is being rewound, and holds nothing.
    pub(crate) rewinding: bool,
}

/// A hook, as a number that a successor understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Hook {
    Create = 1,
    Setup,
    Stdout,
    Stderr,
    Spawn,
    Respawn,
    Exit,
    Idle,
    Finish,
    Destroy,
}

impl Hook {
    const ALL: [Self; 10] = [
        Self::Create,
        Self::Setup,
        Self::Stdout,
        Self::Stderr,
        Self::Spawn,
        Self::Respawn,
        Self::Exit,
        Self::Idle,
        Self::Finish,
        Self::Destroy,
    ];

    fn of_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| *hook as u64 == number)
    }

    /// The name that authors know.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Setup => "setup",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Spawn => "spawn",
            Self::Respawn => "respawn",
            Self::Exit => "exit",
            Self::Idle => "idle",
            Self::Finish => "finish",
            Self::Destroy => "destroy",
        }
    }

    /// Whether it takes bytes of a stream.
    pub(crate) fn is_output(self) -> bool {
        matches!(self, Self::Stdout | Self::Stderr)
    }
}

/// A hook of a monitor that has been called and has not returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InHook {
    /// Index of the monitor.
    pub(crate) monitor: usize,
    pub(crate) hook: Hook,
}

/// What a pump that left by itself says of its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It did not leave by itself.
    None,
    /// The hook in progress failed or panicked.
    Hook,
    /// Anything else: no monitor is to blame.
    Other,
    /// The monitor of this index said outside its hooks that it has failed.
    Monitor(usize),
    /// This hook did not return in time. By now it may have, and another one may be in progress.
    Late(InHook),
}

impl Verdict {
    fn word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Hook => 1,
            Self::Other => 2,
            Self::Monitor(index) => 3 + index as u64,
            Self::Late(InHook { monitor, hook }) => (hook as u64) << 32 | monitor as u64,
        }
    }

    fn of_word(word: u64) -> Self {
        match word {
            0 => Self::None,
            1 => Self::Hook,
            2 => Self::Other,
            late if late >> 32 != 0 => match Hook::of_number(late >> 32) {
                Some(hook) => Self::Late(InHook { monitor: (late & 0xffff_ffff) as usize, hook }),
                None => Self::Other,
            },
            more => usize::try_from(more - 3).map_or(Self::Other, Self::Monitor),
        }
    }
}

/// What the delivery is about at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moment {
    /// Up to where each stream is delivered to everybody.
    pub(crate) offsets: [u64; 2],
    /// The chunk behind that, taken and not delivered to everybody: its stream and its length.
    pub(crate) pending: Option<(usize, u64)>,
    /// The hook that is being called, or that failed.
    pub(crate) in_hook: Option<InHook>,
}

fn standing_of(get: impl Fn(usize) -> u64) -> Standing {
    let slot = SLOTS[usize::from(get(SLOT) == 1)];
    let stream = get(slot + 1);
    Standing {
        from: get(slot),
        stream: usize::from(stream & 1 == 1),
        offsets: [get(slot + 2), get(slot + 3)],
        length: get(slot + 4),
        rewinding: stream & REWINDING != 0,
    }
}

fn in_hook_of(get: impl Fn(usize) -> u64) -> Option<InHook> {
    let word = get(HOOK);
    let monitor = usize::try_from((word >> 8).checked_sub(1)?).ok()?;
    let hook = Hook::of_number(word & 0xff)?;
    Some(InHook { monitor, hook })
}

fn moment_of(get: impl Fn(usize) -> u64) -> Moment {
    let standing = standing_of(&get);
    // Without a spool nothing is noted of it, and with one the standing has no length.
    let bytes = standing.length.max(get(FILL));
    let pending = (bytes > 0).then_some((standing.stream, bytes));
    Moment { offsets: standing.offsets, pending, in_hook: in_hook_of(&get) }
}

/// What one monitor was given and told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Got {
    done: [u64; 2],
    /// See [`Delivery::told`].
    pub(crate) told: u64,
}

/// The numbers on the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    words: &'static [AtomicU64],
}

impl Delivery {
    /// Takes the part of the page that belongs to delivery.
    pub(crate) fn new(words: &'static [AtomicU64]) -> Self {
        assert_eq!(words.len(), WORDS, "the page has a part for this");
        Self { words }
    }

    fn get(self, index: usize) -> u64 {
        self.words[index].load(Ordering::Acquire)
    }

    fn set(self, index: usize, value: u64) {
        self.words[index].store(value, Ordering::Release);
    }

    /// How far delivery is.
    pub(crate) fn standing(self) -> Standing {
        standing_of(|index| self.get(index))
    }

    /// What it is about.
    pub(crate) fn moment(self) -> Moment {
        moment_of(|index| self.get(index))
    }

    /// Notes how far delivery is: all of it, or, if this process is killed on the way, nothing.
    pub(crate) fn commit(self, standing: Standing) {
        let other = u64::from(self.get(SLOT) != 1);
        let slot = SLOTS[usize::from(other == 1)];
        self.set(slot, standing.from);
        self.set(slot + 1, standing.stream as u64 | if standing.rewinding { REWINDING } else { 0 });
        self.set(slot + 2, standing.offsets[0]);
        self.set(slot + 3, standing.offsets[1]);
        self.set(slot + 4, standing.length);
        self.set(SLOT, other);
    }

    fn of_monitor(monitor: usize) -> Option<usize> {
        (monitor < MOST_MONITORS).then_some(MONITORS + monitor * MONITOR_WORDS)
    }

    /// Up to where a monitor was given a stream.
    pub(crate) fn done(self, monitor: usize, stream: usize) -> u64 {
        Self::of_monitor(monitor).map_or(0, |at| self.get(at + stream))
    }

    /// See [`Delivery::done`].
    pub(crate) fn set_done(self, monitor: usize, stream: usize, offset: u64) {
        if let Some(at) = Self::of_monitor(monitor) {
            self.set(at + stream, offset);
        }
    }

    /// A monitor says up to where a stream is safe with it: it goes on from there, as far as bytes are still there,
    /// but not in front of what was set aside.
    pub(crate) fn set_durable(self, monitor: usize, stream: usize, offset: u64) {
        let floor = match self.aside() {
            Some((whose, which, end)) if (whose, which) == (monitor, stream) => end,
            Some(_) | None => 0,
        };
        self.set_done(monitor, stream, offset.max(floor));
    }

    /// Notes that bytes of a stream up to this offset are not to be delivered to this monitor any more.
    pub(crate) fn set_aside(self, monitor: usize, stream: usize, end: u64) {
        self.set(ASIDE, aside_word(monitor, stream, end));
        self.set_done(monitor, stream, end);
    }

    fn aside(self) -> Option<(usize, usize, u64)> {
        let word = self.get(ASIDE);
        let monitor = usize::try_from((word >> 56).checked_sub(1)?).ok()?;
        Some((monitor, usize::from(word >> 55 & 1 == 1), word & ((1 << 55) - 1)))
    }

    /// The number of the last event that a monitor was told: `2 * restarts + 1` for a start of the process, one
    /// more for its end.
    pub(crate) fn told(self, monitor: usize) -> u64 {
        Self::of_monitor(monitor).map_or(0, |at| self.get(at + 2))
    }

    /// See [`Delivery::told`].
    pub(crate) fn set_told(self, monitor: usize, event: u64) {
        if let Some(at) = Self::of_monitor(monitor) {
            self.set(at + 2, event);
        }
    }

    /// What so many monitors were given and told.
    pub(crate) fn got(self, monitors: usize) -> Vec<Got> {
        let got =
            |monitor| Got { done: [self.done(monitor, 0), self.done(monitor, 1)], told: self.told(monitor) };
        (0..monitors).map(got).collect()
    }

    /// The monitors are others from now on. `before` is what the ones before got, and `heirs` says of each new one to
    /// which of those it is the heir. One that is heir to none goes on behind what everybody was given, and knows of the
    /// events up to `told`.
    pub(crate) fn hand_over(self, before: &[Got], heirs: &[Option<usize>], told: u64) {
        let newcomer = Got { done: self.standing().offsets, told };
        for (monitor, heir) in heirs.iter().enumerate() {
            let got = heir.and_then(|heir| before.get(heir)).unwrap_or(&newcomer);
            for stream in 0..2 {
                self.set_done(monitor, stream, got.done[stream]);
            }
            self.set_told(monitor, got.told);
        }
    }

    /// What was set aside for one monitor is set aside for its heir, or for nobody.
    pub(crate) fn hand_over_aside(self, heirs: &[Option<usize>]) {
        let Some((whose, stream, end)) = self.aside() else { return };
        match heirs.iter().position(|heir| *heir == Some(whose)) {
            Some(monitor) => self.set(ASIDE, aside_word(monitor, stream, end)),
            None => self.set(ASIDE, 0),
        }
    }

    /// Notes that a hook is being called.
    pub(crate) fn enter(self, monitor: usize, hook: Hook) {
        self.set(CALLS, self.get(CALLS).wrapping_add(1));
        self.set(HOOK, (monitor as u64 + 1) << 8 | hook as u64);
    }

    /// Notes that the hook has returned, and well. One that fails stays noted: the pump ends with it.
    pub(crate) fn leave(self) {
        self.set(HOOK, 0);
    }

    /// The hook that is being called, or that failed.
    pub(crate) fn in_hook(self) -> Option<InHook> {
        in_hook_of(|index| self.get(index))
    }

    /// How many hooks have been called: a number that moves as long as they return.
    pub(crate) fn calls(self) -> u64 {
        self.get(CALLS)
    }

    /// Says why this pump is about to leave.
    pub(crate) fn set_verdict(self, verdict: Verdict) {
        self.set(VERDICT, verdict.word());
    }

    /// See [`Delivery::set_verdict`].
    pub(crate) fn verdict(self) -> Verdict {
        Verdict::of_word(self.get(VERDICT))
    }

    /// Forgets what the pump before left of its hooks.
    pub(crate) fn begin(self) {
        self.set(HOOK, 0);
        self.set(VERDICT, Verdict::None.word());
    }

    /// How many bytes of the spool are taken.
    pub(crate) fn fill(self) -> u64 {
        self.get(FILL)
    }

    /// Notes how many bytes of the spool are taken.
    pub(crate) fn set_fill(self, bytes: u64) {
        self.set(FILL, bytes);
    }
}

fn aside_word(monitor: usize, stream: usize, end: u64) -> u64 {
    (monitor as u64 + 1) << 56 | (stream as u64) << 55 | end
}

/// How many bytes of the spool are taken, as another process reads it from a copy of the numbers.
pub(crate) fn fill(words: &[u64]) -> u64 {
    words[FILL]
}

/// The same of the delivery as a whole.
pub(crate) fn moment(words: &[u64]) -> Moment {
    moment_of(|index| words[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Delivery::new(Vec::leak(words))
    }

    #[test]
    fn a_commit_that_is_cut_short_changes_nothing() {
        let delivery = delivery();
        let first = Standing { from: 10, stream: 1, offsets: [3, 4], length: 2, rewinding: false };
        delivery.commit(first);
        assert_eq!(delivery.standing(), first);
        let second = Standing { from: 20, stream: 0, offsets: [5, 6], length: 0, rewinding: true };
        // Everything but the last store.
        let slot = delivery.get(SLOT);
        delivery.commit(second);
        delivery.set(SLOT, slot);
        assert_eq!(delivery.standing(), first);
        delivery.commit(second);
        assert_eq!(delivery.standing(), second);
    }

    #[test]
    fn a_hook_is_noted_until_it_has_returned_well() {
        let delivery = delivery();
        assert_eq!(delivery.in_hook(), None);
        for hook in Hook::ALL {
            delivery.enter(3, hook);
            assert_eq!(delivery.in_hook(), Some(InHook { monitor: 3, hook }));
        }
        delivery.leave();
        assert_eq!(delivery.in_hook(), None);
        assert_eq!(delivery.calls(), Hook::ALL.len() as u64);
    }

    #[test]
    fn an_heir_goes_on_where_its_ancestor_stopped_and_a_newcomer_behind_what_everybody_got() {
        let delivery = delivery();
        let standing = Standing { from: 0, stream: 0, offsets: [100, 50], length: 7, rewinding: false };
        delivery.commit(standing);
        for (monitor, done) in [(0, 107), (1, 103)] {
            delivery.set_done(monitor, 0, done);
            delivery.set_done(monitor, 1, 50);
        }
        // The second does not know yet that the process has ended.
        delivery.set_told(0, 6);
        delivery.set_told(1, 5);
        delivery.set_aside(1, 1, 45);
        delivery.set_done(1, 1, 50);
        let before = delivery.got(2);
        let heirs = [None, Some(1), Some(0)];
        delivery.hand_over(&before, &heirs, 5);
        delivery.hand_over_aside(&heirs);
        let got = |done, told| Got { done: [done, 50], told };
        assert_eq!(delivery.got(3), [got(100, 5), got(103, 5), got(107, 6)]);
        assert_eq!(delivery.aside(), Some((1, 1, 45)));
        // And back.
        delivery.hand_over(&before, &[Some(0), Some(1)], 0);
        delivery.hand_over_aside(&[Some(2), None]);
        assert_eq!(delivery.got(2), before);
        assert_eq!(delivery.aside(), None);
    }

    #[test]
    fn monitors_do_not_share_their_numbers() {
        let delivery = delivery();
        for monitor in 0..MOST_MONITORS {
            delivery.set_done(monitor, 0, monitor as u64 + 100);
            delivery.set_done(monitor, 1, monitor as u64 + 200);
            delivery.set_told(monitor, monitor as u64 + 300);
        }
        delivery.set_done(MOST_MONITORS, 0, 7);
        for monitor in 0..MOST_MONITORS {
            let numbers = (delivery.done(monitor, 0), delivery.done(monitor, 1), delivery.told(monitor));
            assert_eq!(numbers, (monitor as u64 + 100, monitor as u64 + 200, monitor as u64 + 300));
        }
        assert_eq!(delivery.done(MOST_MONITORS, 0), 0);
        assert_eq!(delivery.standing(), Standing::default());
    }
}
