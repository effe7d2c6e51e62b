//! The effect of each signal on each command, in one table.
//!
//! A signal whose default is to end the process must not end an exchange half-way: the server may
//! have replaced the refresh token, and its successor would be lost. So every signal that a command
//! has no use for is blocked from the start, in all threads. SIGKILL cannot be blocked. Children
//! get an empty mask again: the standard library sees to that.

use nix::sys::signal::{SigSet, Signal};

/// The signals that are not blocked, with what they do.
///
/// | signal | `run` | `once`, `token`, `rejected`, `set`, `exec` | all others |
/// | --- | --- | --- | --- |
/// | TERM, INT, QUIT | stop: finish what is under way, begin nothing | the same; `exec` passes them on to its command | end |
/// | HUP | reload the config | as TERM: the terminal is gone | end |
/// | USR1 | refresh all accounts | ignored | ignored |
/// | TSTP, TTIN, TTOU, CONT | job control | job control | job control |
/// | KILL, STOP | end, stop: cannot be changed | the same | the same |
/// | all others | ignored | ignored | ignored |
const UNBLOCKED: [Signal; 12] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
    // Their default is to do nothing.
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGWINCH,
    // The standard library ignores it.
    Signal::SIGPIPE,
];

/// Blocks every signal that no command has a use for. To be called before there is a second thread.
pub fn block_unused() {
    let mut blocked = SigSet::all();
    for signal in UNBLOCKED {
        blocked.remove(signal);
    }
    // It fails for no set.
    let _ = blocked.thread_set_mask();
}

/// Lets SIGUSR1 through: `run` has a handler for it by now.
pub fn unblock_refresh() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    let _ = set.thread_unblock();
}
