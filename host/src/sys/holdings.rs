//! What code in this process may have left behind there, which goes when the process does.

/// Counts of it. Equal counts before and after some code ran mean that it left nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: u64,
    threads: u64,
    has_children: bool,
}

impl Holdings {
    /// What there is now. `None`: the system does not tell (it does since Linux 6.2).
    #[cfg(linux_path)]
    pub(crate) fn now() -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        // The size of this directory is the number of its entries; before, it was zero.
        let descriptors = std::fs::metadata("/proc/self/fd").ok()?.len();
        let threads = std::fs::metadata("/proc/self/task").ok()?.nlink();
        let has_children = super::family::has_children();
        (descriptors > 0).then_some(Self { descriptors, threads, has_children })
    }

    /// Nobody tells.
    #[cfg(portable_path)]
    pub(crate) fn now() -> Option<Self> {
        None
    }
}

#[cfg(all(test, linux_path))]
mod tests {
    use super::Holdings;
    use std::process::Command;

    #[test]
    fn what_is_left_behind_is_seen() {
        if !crate::sys::alone::is_alone() {
            return;
        }
        let Some(before) = Holdings::now() else { return };
        let is_unchanged = || Holdings::now() == Some(before);

        let pipe = std::io::pipe().unwrap();
        assert!(!is_unchanged());
        drop(pipe);
        assert!(is_unchanged());

        let mut child = Command::new("true").spawn().unwrap();
        assert!(!is_unchanged());
        child.wait().unwrap();
        assert!(is_unchanged());

        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(!is_unchanged());
        drop(end);
        assert!(thread.join().unwrap().is_err());
    }
}
