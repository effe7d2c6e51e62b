//! Wake-ups at a time, exact after suspend and clock steps, without polling.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::clock::{Clock, SystemClock, Timestamp};

/// How often the clocks are read where the kernel refuses a timer: tokens are refreshed a minute before
/// they expire.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// A difference between the clocks that has changed by more than this, in milliseconds, is a step.
const STEP: i64 = 1000;

/// Wakes at a deadline and when the wall clock was set. Without timers of the kernel it reads the clocks
/// every second.
pub(super) struct Timer {
    kernel: Option<KernelTimers>,
    /// The kernel's timers do not work, or there are none.
    polls: Cell<bool>,
    deadline: Cell<Option<Timestamp>>,
    clock: SystemClock,
    /// The wall clock minus the boot clock when they were last read.
    offset: Cell<i64>,
    /// Why there are none, until [`Timer::take_refusal`].
    refusal: Cell<Option<io::Error>>,
}

/// Two timers of the kernel, timerfd_create(2).
struct KernelTimers {
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
    pub(super) fn new() -> Self {
        let clock = SystemClock::new();
        let now = clock.now();
        let timer = Self {
            kernel: None,
            polls: Cell::new(false),
            deadline: Cell::new(None),
            clock,
            offset: Cell::new(now.wall - now.boot),
            refusal: Cell::new(None),
        };
        match KernelTimers::new() {
            Ok(kernel) => Self { kernel: Some(kernel), ..timer },
            Err(error) => {
                timer.poll_from_now_on(error);
                timer
            }
        }
    }

    /// Sets the deadline; `None` for never.
    pub(super) fn set(&self, deadline: Option<Timestamp>) {
        self.deadline.set(deadline);
        if let Some(kernel) = self.kernel.as_ref().filter(|_| !self.polls.get())
            && let Err(error) = kernel.set(deadline)
        {
            self.poll_from_now_on(error);
        }
    }

    pub(super) async fn wait(&self) -> WakeUp {
        if let Some(kernel) = self.kernel.as_ref().filter(|_| !self.polls.get()) {
            match kernel.wait().await {
                Ok(woken) => return woken,
                Err(error) => self.poll_from_now_on(error),
            }
        }
        loop {
            // Before the sleep: a caller that begins to wait anew again and again would never look.
            if let Some(woken) = self.look() {
                return woken;
            }
            sleep(POLL).await;
        }
    }

    /// Why the kernel's timers cannot be used, for the log. It is told once.
    pub(super) fn take_refusal(&self) -> Option<io::Error> {
        self.refusal.take()
    }

    fn poll_from_now_on(&self, error: io::Error) {
        self.polls.set(true);
        self.refusal.set(Some(error));
    }

    fn look(&self) -> Option<WakeUp> {
        let now = self.clock.now();
        let offset = now.wall - now.boot;
        if (offset - self.offset.replace(offset)).abs() > STEP {
            return Some(WakeUp::ClockChanged);
        }
        self.deadline.get().is_some_and(|at| at.boot <= now.boot).then_some(WakeUp::Deadline)
    }
}

impl KernelTimers {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let deadline = timerfd_create(TimerfdClockId::Boottime, flags)?;
        let step = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let timers = Self { deadline: async_fd(deadline)?, step: async_fd(step)? };
        timers.watch_steps()?;
        Ok(timers)
    }

    fn watch_steps(&self) -> io::Result<()> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        Ok(timerfd_settime(&self.step, flags, &at(NEVER, 0)).map(drop)?)
    }

    fn set(&self, deadline: Option<Timestamp>) -> io::Result<()> {
        // All zero switches it off; a deadline that has passed is one millisecond after boot.
        let since_boot = deadline.map_or(0, |at| at.boot.max(1));
        let at = at(since_boot / 1000, since_boot % 1000 * 1_000_000);
        Ok(timerfd_settime(&self.deadline, TimerfdTimerFlags::ABSTIME, &at).map(drop)?)
    }

    async fn wait(&self) -> io::Result<WakeUp> {
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

#[cfg(test)]
mod tests {
    use crate::timer::*;

    fn refused() -> Timer {
        let timer = Timer::new();
        timer.poll_from_now_on(Errno::MFILE.into());
        timer
    }

    #[test]
    fn without_timers_of_the_kernel_a_deadline_is_noticed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let timer = refused();
            assert!(timer.take_refusal().is_some() && timer.take_refusal().is_none());
            let now = timer.clock.now();
            timer.set(Some(now.plus(Duration::from_millis(100))));
            assert_eq!(timer.wait().await, WakeUp::Deadline);
            assert!(timer.clock.now().boot >= now.boot + 100);
        });
    }

    #[test]
    fn without_timers_of_the_kernel_a_step_of_the_clock_is_noticed_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let timer = refused();
        assert_eq!(timer.look(), None);
        timer.offset.set(timer.offset.get() - 60_000);
        assert_eq!(timer.look(), Some(WakeUp::ClockChanged));
        assert_eq!(timer.look(), None);
    }
}
