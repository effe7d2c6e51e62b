//! File systems that other machines can change.

use std::path::Path;

use rustix::fs::statfs;

/// File systems that others can change without an event here: NFS, SMB, CIFS, FUSE (and virtiofs), 9P,
/// Ceph, AFS, and those of VirtualBox, VMware and Parallels; statfs(2).
const SHARED: [i64; 10] = [
    0x6969,
    0xfe53_4d42,
    0xff53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x786f_4256,
    0xbacb_acbc,
    0x7c7c_6673,
];

/// Whether changes on this file system may go without an event.
pub(super) fn is_shared(path: &Path) -> bool {
    let existing = path.ancestors().find_map(|ancestor| statfs(ancestor).ok());
    existing.is_some_and(|found| SHARED.contains(&found.f_type))
}
