//! Names of signals, as people type them and as `status` shows them: without `SIG`.

use nix::sys::signal::Signal;

/// The name of a signal number, without `SIG`; unknown ones as their number.
pub(crate) fn name(number: i32) -> String {
    match (Signal::try_from(number), real_time(number)) {
        (Ok(signal), _) => signal.as_str().trim_start_matches("SIG").to_owned(),
        (Err(_), Some(0)) => "RTMIN".to_owned(),
        (Err(_), Some(above)) => format!("RTMIN+{above}"),
        (Err(_), None) => number.to_string(),
    }
}

/// Which of the real-time signals it is.
#[cfg(target_os = "linux")]
fn real_time(number: i32) -> Option<i32> {
    let first = libc::SIGRTMIN();
    (first..=libc::SIGRTMAX()).contains(&number).then(|| number - first)
}

/// There are none.
#[cfg(not(target_os = "linux"))]
fn real_time(_number: i32) -> Option<i32> {
    None
}

/// Tells whether a signal that has a name has this number.
pub(crate) fn exists(number: i32) -> bool {
    Signal::try_from(number).is_ok()
}

/// Reads a signal: `TERM`, `SIGTERM`, `term` or `15`.
pub(crate) fn parse(text: &str) -> Result<i32, String> {
    let number = match text.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
            full.parse::<Signal>().ok()
        }
    };
    number.map(|signal| signal as i32).ok_or_else(|| format!("{text} is no signal; TERM, INT, HUP, 15, …"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        assert!(parse("TREM").is_err());
        assert!(parse("0").is_err());
        assert_eq!(name(9), "KILL");
        assert_eq!(name(1000), "1000");
        #[cfg(target_os = "linux")]
        assert_eq!([0, 3].map(|above| name(libc::SIGRTMIN() + above)), ["RTMIN", "RTMIN+3"]);
    }
}
