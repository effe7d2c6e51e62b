//! Wake-ups at a time, exact after suspend and clock steps, without polling.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::Timestamp;

/// Two timers of the kernel, timerfd_create(2).
pub(super) struct Timer {
    /// `CLOCK_BOOTTIME`: continues through suspend, and fires on resume if the deadline has passed.
    deadline: AsyncFd<OwnedFd>,
    /// `CLOCK_REALTIME`, never reached, cancelled by the kernel when that clock is set and when the
    /// machine resumes.
    step: AsyncFd<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeUp {
    Deadline,
    /// The wall clock was set, or the machine was suspended.
    ClockChanged,
}

/// Far enough never to be reached, near enough for every kernel's arithmetic: the year 2200.
const NEVER: i64 = 7_258_118_400;

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let deadline = timerfd_create(TimerfdClockId::Boottime, flags)?;
        let step = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let timer = Self { deadline: async_fd(deadline)?, step: async_fd(step)? };
        timer.watch_steps()?;
        Ok(timer)
    }

    fn watch_steps(&self) -> io::Result<()> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        Ok(timerfd_settime(&self.step, flags, &at(NEVER, 0)).map(drop)?)
    }

    /// Sets the deadline; `None` for never.
    pub(super) fn set(&self, deadline: Option<Timestamp>) -> io::Result<()> {
        // All zero switches it off; a deadline that has passed is one millisecond after boot.
        let since_boot = deadline.map_or(0, |at| at.boot.max(1));
        let at = at(since_boot / 1000, since_boot % 1000 * 1_000_000);
        Ok(timerfd_settime(&self.deadline, TimerfdTimerFlags::ABSTIME, &at).map(drop)?)
    }

    pub(super) async fn wait(&self) -> io::Result<WakeUp> {
        tokio::select! {
            fired = fired(&self.deadline) => fired.map(|()| WakeUp::Deadline),
            fired = fired(&self.step) => {
                match fired {
                    Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => {}
                    fired => fired?,
                }
                self.watch_steps()?;
                Ok(WakeUp::ClockChanged)
            }
        }
    }
}

#[expect(deprecated, reason = "an OwnedFd keeps its descriptor; the replacement is unsafe, which we forbid")]
pub fn async_fd(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(timer, Interest::READABLE)
}

async fn fired(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = timer.readable().await?;
        let mut expirations = [0; 8];
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?)) {
            Ok(read) => return read.map(drop),
            Err(_would_block) => {}
        }
    }
}

fn at(seconds: i64, nanoseconds: i64) -> Itimerspec {
    let never = Timespec { tv_sec: 0, tv_nsec: 0 };
    Itimerspec { it_interval: never, it_value: Timespec { tv_sec: seconds, tv_nsec: nanoseconds } }
}
