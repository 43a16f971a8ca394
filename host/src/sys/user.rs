//! What the system knows of users, beyond what nix asks everywhere.

#[cfg(target_vendor = "apple")]
use nix::errno::Errno;
use nix::unistd::Gid;
use std::ffi::CStr;

/// The groups that a user is in, `gid` among them.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn groups(name: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    nix::unistd::getgrouplist(name, gid)
}

/// The groups that a user is in, `gid` among them. nix has no such call there, where groups are signed.
#[cfg(target_vendor = "apple")]
#[expect(unsafe_code, reason = "getgrouplist has no safe form")]
pub(crate) fn groups(name: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    /// More than any system lets a user be in.
    const MOST: usize = 1 << 16;
    let mut room = 64;
    while room <= MOST {
        let mut groups: Vec<libc::c_int> = vec![0; room];
        let mut count = libc::c_int::try_from(room).map_err(|_| Errno::EINVAL)?;
        let own = gid.as_raw().cast_signed();
        // SAFETY: the name ends with a NUL, and `count` is the room that `groups` has.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), own, groups.as_mut_ptr(), &raw mut count) };
        if result != -1 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            return Ok(groups.into_iter().map(|group| Gid::from_raw(group.cast_unsigned())).collect());
        }
        room *= 2;
    }
    Err(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    #[test]
    fn root_is_in_the_group_that_is_asked_for() {
        let gid = nix::unistd::Gid::from_raw(12345);
        assert!(super::groups(c"root", gid).unwrap().contains(&gid));
    }
}
