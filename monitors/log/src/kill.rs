//! Where a pump may be killed: between any two system calls that change a file, and within a write.
//!
//! Unit tests do it there, by a panic that takes all threads of the instance along. Everywhere else what is here does
//! nothing.

#[cfg(not(test))]
pub(crate) use never::{Fate, part, point};
#[cfg(test)]
pub(crate) use planned::{Fate, Plan, part, point};

#[cfg(not(test))]
mod never {
    /// A moment at which a pump may be killed.
    #[inline(always)]
    pub(crate) fn point() {}

    /// How much of these bytes a write takes.
    #[inline(always)]
    pub(crate) fn part(bytes: &[u8]) -> &[u8] {
        bytes
    }

    /// What a thread shares with the one that starts it.
    pub(crate) struct Fate;

    impl Fate {
        #[inline(always)]
        pub(crate) fn of_this_thread() -> Self {
            Self
        }

        #[inline(always)]
        pub(crate) fn share(self) {}
    }
}

#[cfg(test)]
mod planned;
