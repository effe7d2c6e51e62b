//! `run` as the first process of a container: it starts itself once more, passes signals on, and reaps the
//! processes that hooks leave behind. The kernel gives those to the first process, and each would stay a
//! zombie until the container has no more process ids.

use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::runtime::{END, Signals, event_loop};
use crate::signals;

/// Runs the rest of `run` in another process, if this one is the first; gives its exit code. `None`
/// elsewhere, and where the program cannot be started again.
pub(super) fn as_first_process() -> Option<Exit> {
    if std::process::id() != 1 {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(std::env::args_os().skip(1));
    let runtime = event_loop().ok()?;
    runtime.block_on(async {
        let mut received = Signals::new(&[&END[..], &[Signal::USR1, Signal::CHILD]].concat()).ok()?;
        signals::unblock_refresh();
        let child = Pid::from_child(&command.spawn().ok()?);
        loop {
            match received.next().await {
                Signal::CHILD => {
                    if let Some(status) = reap(child) {
                        return Some(exit_of(status));
                    }
                }
                // It may have ended meanwhile.
                signal => drop(kill_process(child, signal)),
            }
        }
    })
}

/// Reaps all that have ended; the status of the child if it is among them.
fn reap(child: Pid) -> Option<WaitStatus> {
    let mut own = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            own = Some(status);
        }
    }
    own
}

fn exit_of(status: WaitStatus) -> Exit {
    status.exit_status().and_then(Exit::of_code).unwrap_or_else(|| {
        output::error("`run` was killed", Some("look for the reason in the kernel log: dmesg"));
        Exit::Failure
    })
}
