//! Instants on two clocks, and the only place that reads a clock.
//!
//! The wall clock continues across reboots, but people and NTP set it. The boot clock
//! (`CLOCK_BOOTTIME`, which continues through suspend) is never set, and starts again at a reboot. A [`Timestamp`] carries both, and the boot's identity.

use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::secret::Fingerprint;

/// One instant, read from both clocks at once. All numbers are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z, by the wall clock. May be wrong, may step.
    #[serde(rename = "wall_ms")]
    pub wall: i64,
    /// Milliseconds since boot, suspend included (clock_gettime(2), `CLOCK_BOOTTIME`).
    #[serde(rename = "boot_ms")]
    pub boot: i64,
    /// Which boot `boot` counts from.
    pub boot_id: BootId,
}

/// The identity of one boot of one machine: a fingerprint of
/// `/proc/sys/kernel/random/boot_id` (random(4)).
pub type BootId = Fingerprint;

impl Timestamp {
    /// This instant moved later on both clocks.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let ms = millis(duration);
        Self { wall: self.wall.saturating_add(ms), boot: self.boot.saturating_add(ms), ..self }
    }

    /// This instant moved earlier on both clocks.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let ms = millis(duration);
        Self { wall: self.wall.saturating_sub(ms), boot: self.boot.saturating_sub(ms), ..self }
    }

    /// Milliseconds since `earlier` by the wall clock; negative if that clock was set back.
    pub fn wall_since(self, earlier: Self) -> i64 {
        self.wall.saturating_sub(earlier.wall)
    }

    /// Milliseconds since `earlier` by the boot clock; `None` if the machine was restarted
    /// in between, or if the numbers cannot be of one boot (a time namespace, a copied state).
    pub fn boot_since(self, earlier: Self) -> Option<i64> {
        (self.boot_id == earlier.boot_id)
            .then(|| self.boot.saturating_sub(earlier.boot))
            .filter(|elapsed| *elapsed >= 0)
    }

    /// By the boot clock where that is known, else by the wall clock; never negative.
    pub fn since(self, earlier: Self) -> Duration {
        let ms = self.boot_since(earlier).unwrap_or_else(|| self.wall_since(earlier));
        Duration::from_millis(ms.max(0).cast_unsigned())
    }
}

/// A wall time in Unix seconds as RFC 3339 in UTC, for machines.
pub fn utc(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| "never".into(), |at| at.to_string())
}

/// A duration as whole milliseconds, as [`Timestamp`] counts them.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A source of timestamps.
pub trait Clock {
    /// Both clocks, read at once.
    fn now(&self) -> Timestamp;
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    boot_id: BootId,
}

impl SystemClock {
    /// Reads the boot's identity once per process. Without `/proc`, every process counts as a boot of its
    /// own: then only the wall clock carries over from one to the next.
    pub fn new() -> Self {
        static BOOT_ID: OnceLock<BootId> = OnceLock::new();
        let read = || {
            let boot_id = std::fs::read("/proc/sys/kernel/random/boot_id");
            Fingerprint::of([&boot_id.unwrap_or_else(|_| std::process::id().to_be_bytes().to_vec())])
        };
        Self { boot_id: *BOOT_ID.get_or_init(read) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Timestamp {
            // Before 1970 there are no tokens: a clock set there is as wrong as one at 1970.
            wall: millis(since_epoch.unwrap_or_default()),
            boot: boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000,
            boot_id: self.boot_id,
        }
    }
}

/// Microseconds by `CLOCK_MONOTONIC`, as systemd counts them.
pub fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

/// Milliseconds by `CLOCK_MONOTONIC`, which stops while the machine is suspended.
/// Comparable within one boot only.
pub fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use crate::clock::*;

    fn at(wall: i64, boot: i64, boot_id: &str) -> Timestamp {
        Timestamp { wall, boot, boot_id: Fingerprint::of([boot_id.as_bytes()]) }
    }

    #[test]
    fn the_boot_clock_wins_within_a_boot() {
        let issued = at(1_000_000, 5_000, "a");
        let stepped_back = at(0, 65_000, "a");
        assert_eq!(stepped_back.since(issued), Duration::from_secs(60));
        assert_eq!(stepped_back.wall_since(issued), -1_000_000);
    }

    #[test]
    fn the_wall_clock_carries_over_a_reboot() {
        let issued = at(1_000_000, 5_000, "a");
        assert_eq!(at(1_060_000, 10, "b").since(issued), Duration::from_secs(60));
        assert_eq!(at(0, 10, "b").since(issued), Duration::ZERO);
    }

    #[test]
    fn a_boot_clock_that_ran_backwards_is_not_believed() {
        assert_eq!(at(70_000, 10, "a").boot_since(at(0, 5_000, "a")), None);
    }

    #[test]
    fn the_system_clock_runs() {
        let clock = SystemClock::new();
        let (a, b) = (clock.now(), clock.now());
        assert!(b.boot_since(a).is_some() && a.wall > 1_700_000_000_000);
    }
}
