//! Talking to systemd, sd_notify(3). Without `$NOTIFY_SOCKET` all of it does nothing.
//!
//! Nothing here blocks: what a manager that does not read cannot take now is sent later.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};

use crate::clock::monotonic_micros;

/// The time limit of an end that is not idle, whatever the unit's TimeoutStopSec= says: to be killed
/// in an exchange is to risk the login. Its deadline is 30 s, to store its answer is tried for 30 s
/// more, and then the machine may be slow.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// How long after one account the next may be looked at before the start counts as failed. One takes
/// a minute and a half at worst (a secret command, a lock, the server's deadline); a thousand of
/// them in an outage take longer together than the TimeoutStartSec= of any unit.
const START_STEP: Duration = Duration::from_secs(3 * 60);

/// Tells the service manager about the process.
pub struct Notifier {
    socket: Option<(OwnedFd, SocketAddrUnix)>,
    /// The sentence that it has.
    status: String,
    /// Messages that it could not take so far. Few: a sentence replaces the one before.
    pending: VecDeque<String>,
}

impl Notifier {
    /// For the manager of this process, if there is one.
    pub fn of_process() -> Self {
        Self { socket: socket(), status: String::new(), pending: VecDeque::new() }
    }

    /// The start goes on: one more account has been looked at.
    pub fn starting(&mut self) {
        self.send(extension(START_STEP));
    }

    /// The start is complete.
    pub fn ready(&mut self, status: String) {
        self.send(format!("READY=1\nSTATUS={status}\n"));
        self.status = status;
    }

    /// One sentence for `systemctl status`, sent if it differs from the last.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            self.pending.retain(|message| !message.starts_with("STATUS="));
            self.send(format!("STATUS={status}\n"));
            self.status = status;
        }
    }

    /// The config is read again.
    pub fn reloading(&mut self) {
        self.send(format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_micros()));
    }

    /// The config is in force.
    pub fn reloaded(&mut self) {
        self.send("READY=1\n".into());
    }

    /// The end has begun, and waits for nothing.
    pub fn stopping(&mut self) {
        self.send("STOPPING=1\n".into());
    }

    /// The end has begun, and something is under way that is finished first.
    pub fn finishing(&mut self) {
        self.send(format!("STOPPING=1\n{}STATUS=completing refreshes in progress\n", extension(STOP_LIMIT)));
    }

    /// The watchdog's answer. One that cannot be sent now is worth nothing later.
    pub fn alive(&mut self) {
        if self.pending.is_empty() {
            self.try_send("WATCHDOG=1\n");
        }
    }

    /// Whether something is left to be sent.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends what could not be sent before.
    pub fn flush(&mut self) {
        while let Some(message) = self.pending.front() {
            if !self.try_send(message) {
                return;
            }
            self.pending.pop_front();
        }
    }

    fn send(&mut self, message: String) {
        if self.socket.is_some() {
            self.pending.push_back(message);
            self.flush();
        }
    }

    /// False if the manager's queue is full. One that is gone takes everything.
    fn try_send(&self, message: &str) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        !matches!(
            sendto(socket, message.as_bytes(), flags, address),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS)
        )
    }
}

fn socket() -> Option<(OwnedFd, SocketAddrUnix)> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let bytes = name.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(abstract_name) => SocketAddrUnix::new_abstract_name(abstract_name),
        None => SocketAddrUnix::new(bytes),
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    Some((socket.ok()?, address.ok()?))
}

fn extension(limit: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}\n", limit.as_micros())
}

/// The watchdog, `WatchdogSec=`: answered from the loop that does the work.
pub struct Watchdog {
    ticks: Option<tokio::time::Interval>,
}

impl Watchdog {
    /// Set up if the unit asks for it: sd_watchdog_enabled(3).
    pub fn of_process() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 1).map(Duration::from_micros);
        // Twice as often as must be, as the manual recommends.
        Self { ticks: limit.map(|limit| tokio::time::interval(limit / 2)) }
    }

    /// Waits until an answer is due; for ever without a watchdog.
    pub async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}
