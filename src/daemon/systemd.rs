//! Notifications to systemd, sd_notify(3). Without `$NOTIFY_SOCKET` they do nothing.

use std::future::pending;
use std::time::Duration;

use sd_notify::NotifyState;

/// How long a stop with work left may take, whatever TimeoutStopSec= says: a kill during an
/// exchange can lose the login. An exchange takes up to 30 s, storing its answer is retried for
/// another 30 s, and the machine may be slow.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// How long each account may take before the start counts as failed. One takes a minute and a half
/// at worst (a secret command, a lock, the server's deadline); a thousand of them in an outage
/// take longer together than the TimeoutStartSec= of any unit.
const START_STEP: Duration = Duration::from_secs(3 * 60);

/// The sentence that `systemctl status` shows.
#[derive(Default)]
pub struct StatusText(String);

impl StatusText {
    pub fn ready(&mut self, text: String) {
        notify(&[NotifyState::Ready, NotifyState::Status(&text)]);
        self.0 = text;
    }

    /// Sends only a text that differs from the last one.
    pub fn update(&mut self, text: String) {
        if text != self.0 {
            notify(&[NotifyState::Status(&text)]);
            self.0 = text;
        }
    }
}

/// One more account was checked: extends the time limit of the start.
pub fn starting() {
    notify(&[extension(START_STEP)]);
}

pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

pub fn reloaded() {
    notify(&[NotifyState::Ready]);
}

pub fn stopping(idle: bool) {
    let text = NotifyState::Status("completing refreshes in progress");
    let all = [NotifyState::Stopping, extension(STOP_LIMIT), text];
    notify(if idle { &all[..1] } else { &all });
}

pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    // A service manager that does not listen is no reason to fail.
    let _ = sd_notify::notify(states);
}

fn extension(limit: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX))
}

/// `WatchdogSec=`. The loop itself answers, so that a loop that hangs is noticed.
pub struct Watchdog {
    ticks: Option<tokio::time::Interval>,
}

impl Watchdog {
    pub fn of_process() -> Self {
        // Twice as often as required, as sd_watchdog_enabled(3) recommends.
        let every = sd_notify::watchdog_enabled().map(|limit: Duration| limit / 2);
        Self { ticks: every.map(tokio::time::interval) }
    }

    /// Waits until an answer is due; for ever without a watchdog.
    pub async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => pending().await,
        }
    }
}
