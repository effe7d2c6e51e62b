//! Talking to systemd, sd_notify(3). Without `$NOTIFY_SOCKET` all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells the service manager how things are.
pub struct Notifier(());

impl Notifier {
    /// Of this process.
    pub fn of_process() -> Self {
        Self(())
    }

    /// Start, or reload, is complete.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// One sentence for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(status)]);
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            self.send(&[NotifyState::Reloading, now]);
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("finishing what is under way")]);
    }

    #[expect(clippy::unused_self, reason = "whoever notifies shows that it was set up to")]
    fn send(&self, states: &[NotifyState<'_>]) {
        // A manager that does not listen is no reason to fail.
        let _ = sd_notify::notify(states);
    }
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
