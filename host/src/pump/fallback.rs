//! The monitor of a group whose own ones are all set aside: `log`, into the group's directory.

use crate::loader::{self, CheckContext, CheckError, Checked, SearchPath, Settings, Spec};
use crate::options::RawOption;
use crate::places::FALLBACK_LOG;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Finds and checks it.
pub(super) fn log(settings: &Settings, executable: &Path) -> Result<Checked, CheckError> {
    let directory = Path::new(OsStr::from_bytes(settings.get(b"directory").unwrap_or(b"/"))).to_owned();
    let beside = std::env::current_exe().unwrap_or_else(|_| executable.to_owned());
    let option = [b"output=", directory.join(FALLBACK_LOG).as_os_str().as_bytes()].concat();
    let context = CheckContext {
        executable,
        directory: &directory,
        search: &SearchPath::from_environment(&[], &directory, &beside),
        max_level: log::max_level(),
    };
    let specs = [Spec::parse(OsStr::new("log"))?];
    let options = [RawOption::parse(OsStr::from_bytes(&option))?];
    let mut checked = loader::check_all(&specs, &options, settings, &context)?;
    Ok(checked.remove(0))
}
