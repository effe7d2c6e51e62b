//! Talking to systemd, sd_notify(3). Without `$NOTIFY_SOCKET` all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// What an end that is not idle may take, whatever the unit's TimeoutStopSec= says: to be killed
/// in an exchange is to risk the login. Its deadline is 30 s, to store its answer is tried for 30 s
/// more, and then the machine may be slow.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// How long after one account the next may be looked at before the start counts as failed. One takes
/// a minute and a half at worst (a secret command, a lock, the server's deadline); a thousand of
/// them in an outage take longer together than the TimeoutStartSec= of any unit.
const START_STEP: Duration = Duration::from_secs(3 * 60);

/// Tells the service manager how things are.
pub struct Notifier {
    /// The sentence that it knows.
    told: String,
}

impl Notifier {
    /// Of this process.
    pub fn of_process() -> Self {
        Self { told: String::new() }
    }

    /// The start goes on: one more account has been looked at.
    pub fn starting(&self) {
        self.send(&[extension(START_STEP)]);
    }

    /// The start is complete.
    pub fn ready(&mut self, status: String) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.told = status;
    }

    /// One sentence for `systemctl status`, sent if it is another than the last.
    pub fn status(&mut self, status: String) {
        if status != self.told {
            self.send(&[NotifyState::Status(&status)]);
            self.told = status;
        }
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.send(&[NotifyState::Reloading, now]);
        }
    }

    /// The reload is over.
    pub fn reloaded(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// The end has begun, and waits for nothing.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// The end has begun, and something is under way that is finished first.
    pub fn finishing(&self) {
        let states = [extension(STOP_LIMIT), NotifyState::Status("finishing what is under way")];
        self.send(&[&[NotifyState::Stopping], &states[..]].concat());
    }

    #[expect(clippy::unused_self, reason = "whoever notifies shows that it was set up to")]
    fn send(&self, states: &[NotifyState<'_>]) {
        // A manager that does not listen is no reason to fail.
        let _ = sd_notify::notify(states);
    }
}

fn extension(limit: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX))
}

/// The watchdog, `WatchdogSec=`: answered from the loop that does the work.
pub struct Watchdog {
    ticks: Option<tokio::time::Interval>,
}

impl Watchdog {
    /// Set up if the unit asks for it.
    pub fn of_process() -> Self {
        // Twice as often as must be, as sd_watchdog_enabled(3) recommends.
        let every = sd_notify::watchdog_enabled().map(|limit: Duration| limit / 2);
        Self { ticks: every.map(tokio::time::interval) }
    }

    /// Waits until an answer is due; for ever without a watchdog.
    pub async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Still alive.
    pub fn answer(&self) {
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}
