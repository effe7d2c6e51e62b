//! System calls that a signal interrupts.

use rustix::io::Errno;

/// How often a system call is repeated that a signal interrupted. Signals are rare; a call that is
/// interrupted a hundred times in a row is broken, and an endless loop would hide that.
const MAX_INTERRUPTIONS: u32 = 100;

/// Repeats a system call when a signal interrupted it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..MAX_INTERRUPTIONS {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::INTR)
}
