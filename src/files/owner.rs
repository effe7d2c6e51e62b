//! Users and groups by name, through the system's name service (getpwnam(3)), which includes LDAP
//! and sssd where a site has them.

use std::io;

use nix::unistd::{Gid, Group, Uid, User};

/// A user or a group. A number is not looked up: it works where names do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Name(String),
    Id(u32),
}

/// The id of a user; `None` if there is no such user.
pub fn user_id(name: &str) -> io::Result<Option<u32>> {
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

/// The id of a group; `None` if there is no such group.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// A user as sudo(8) takes it: the name, or `#` and the number.
pub fn user_name(id: u32) -> String {
    let user = User::from_uid(Uid::from_raw(id)).ok().flatten();
    user.map_or_else(|| format!("#{id}"), |user| user.name)
}

/// A group's name, or `#` and the number.
pub fn group_name(id: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(id)).ok().flatten();
    group.map_or_else(|| format!("#{id}"), |group| group.name)
}

/// Whether a user id stands for root in a user namespace that has no root of its own (the
/// sandbox of a user's systemd unit is one): there `/` belongs to the overflow id, `nobody`.
pub(super) fn is_unmapped_root(id: u32) -> bool {
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    let map = std::fs::read_to_string("/proc/self/uid_map");
    overflow.is_ok_and(|text| text.trim().parse() == Ok(id)) && map.is_ok_and(|map| !maps_root(&map))
}

/// Whether a uid_map (user_namespaces(7): inside, outside, count) maps the outer root.
fn maps_root(map: &str) -> bool {
    map.lines().any(|line| line.split_whitespace().nth(1) == Some("0"))
}

#[cfg(test)]
mod tests {
    use crate::files::owner::*;

    #[test]
    fn ids_by_name() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert_eq!(user_id("no-such-user").unwrap(), None);
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(group_id("no-such-group").unwrap(), None);
        assert_eq!((user_name(0), user_name(4_000_000)), ("root".into(), "#4000000".into()));
    }

    #[test]
    fn the_outer_root_is_mapped_or_not() {
        assert!(maps_root("         0          0 4294967295\n"));
        assert!(!maps_root("      1000       1000          1\n"));
        assert!(maps_root("1000 1000 1\n0 0 1\n"));
    }
}
