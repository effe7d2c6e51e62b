//! One pass over the accounts, from cron or a terminal.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::account::Account;
use crate::account::context::{Context, Notice};
use crate::account::queue::{PLACES_PER_HOST, Queue};
use crate::clock::{BootId, Timestamp, millis, monotonic};
use crate::message::no_threads;
use crate::refresh::Event;
use crate::refresh::decide::Trigger;
use crate::refresh::outcome::Outcome;
use crate::runtime::{END, Signals, event_loop};
use crate::store::note::Note;
use crate::store::state::Store;
use crate::workers;
use serde::{Deserialize, Serialize};

/// How long a pass waits to resend a request that got no answer: at the next pass the server may not
/// repeat its grant any more.
const RESEND_PATIENCE: Duration = Duration::from_secs(10);

/// How long a pass waits for files that hang, after the report: cron starts another pass.
const HANG_PATIENCE: Duration = Duration::from_secs(30);

/// Accounts that load their files at the same time: as many as there are threads for file work.
const LOOKS: usize = 8;

/// Refreshes what is due, and returns the accounts with their outcomes. A single account starts the
/// event loop only if something is due.
pub fn once(accounts: Vec<Account>, trigger: Trigger, mut context: Context) -> io::Result<Vec<Account>> {
    context.inline = accounts.len() == 1;
    context.hang_patience = Some(HANG_PATIENCE);
    let mut pass = Pass {
        waiting: accounts.into_iter().enumerate(),
        due: Queue::new(PLACES_PER_HOST),
        trigger,
        context: Rc::new(context),
        finished: Vec::new(),
    };
    if pass.context.inline
        && let Some((place, mut account)) = pass.waiting.next()
    {
        let unfinished = account.begin(Event::Begin(trigger), &pass.context);
        pass.sort(place, account, unfinished);
    }
    if pass.waiting.len() > 0 || !pass.due.is_empty() {
        let runtime = event_loop()?;
        let done = LocalSet::new().block_on(&runtime, pass.run());
        // Do not wait for a DNS lookup that is still running.
        runtime.shutdown_background();
        done?;
    }
    pass.finished.sort_by_key(|(place, _)| *place);
    Ok(pass.finished.into_iter().map(|(_, account)| account).collect())
}

/// How often `once --quiet` tells a failure that goes on: cron makes a mail of each line.
const TOLD_AGAIN_MS: i64 = 24 * 60 * 60 * 1000;

/// The last `once`.
#[derive(Default, Serialize, Deserialize)]
struct LastPass {
    /// When it ran, to find passes that are too far apart. By the monotonic clock, which stops while
    /// the machine sleeps: a night's sleep is no missed pass.
    monotonic_ms: i64,
    boot_id: Option<BootId>,
    /// The failure that goes on, as `once --quiet` told it.
    #[serde(default)]
    failure: Option<ToldFailure>,
}

#[derive(Serialize, Deserialize)]
struct ToldFailure {
    kind: String,
    /// Unix milliseconds of the first pass that failed so.
    since: i64,
    /// The same of the last time it was told.
    told_at: i64,
}

impl ToldFailure {
    fn is_due(&self, now: i64) -> bool {
        // A clock that was set back must not silence it for long.
        !(0..TOLD_AGAIN_MS).contains(&now.saturating_sub(self.told_at))
    }
}

/// The findings of [`note_pass`].
#[derive(Debug, Default)]
pub struct PassNote {
    /// The time since the pass before, if that is known.
    pub gap: Option<Duration>,
    /// When the failure began, in Unix milliseconds, if an earlier pass failed in the same way.
    pub fails_since: Option<i64>,
    /// Whether the failure was told less than a day ago.
    pub is_told: bool,
}

impl Note for LastPass {
    const FILE: &'static str = "last-pass";
}

/// Notes a pass. `is_quiet`: the failure is told now, unless it was told before.
pub fn note_pass(store: &mut Store, outcome: Option<&Outcome>, now: Timestamp, is_quiet: bool) -> PassNote {
    let (ticks, kind) = (monotonic(), outcome.and_then(Outcome::kind).map(str::to_owned));
    let note = store.update_note(|last: &mut LastPass| {
        let gap = ticks.saturating_sub(last.monotonic_ms).max(0).cast_unsigned();
        let gap = (last.boot_id == Some(now.boot_id)).then(|| Duration::from_millis(gap));
        (last.monotonic_ms, last.boot_id) = (ticks, Some(now.boot_id));
        let earlier = last.failure.take().filter(|failure| Some(&failure.kind) == kind.as_ref());
        let Some(kind) = kind.filter(|_| is_quiet) else {
            last.failure = earlier;
            return PassNote { gap, ..PassNote::default() };
        };
        let is_told = earlier.as_ref().is_some_and(|failure| !failure.is_due(now.wall));
        let fails_since = earlier.as_ref().map(|failure| failure.since);
        last.failure = Some(ToldFailure {
            kind,
            since: fails_since.unwrap_or(now.wall),
            told_at: earlier.filter(|_| is_told).map_or(now.wall, |failure| failure.told_at),
        });
        PassNote { gap, fails_since, is_told }
    });
    note.unwrap_or_default()
}

struct Pass {
    /// With their places in the config, the order of the report.
    waiting: std::iter::Enumerate<std::vec::IntoIter<Account>>,
    due: Queue<(usize, Account)>,
    trigger: Trigger,
    context: Rc<Context>,
    finished: Vec<(usize, Account)>,
}

enum Task {
    /// True if the account has more to do.
    Look(usize, Account, bool),
    /// With the host whose place it had.
    Finish(usize, Account, String),
}

impl Pass {
    /// Loads all accounts, and finishes those with something to do: the token that expires first goes
    /// first.
    async fn run(&mut self) -> io::Result<()> {
        let mut signals = Signals::new(&END)?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            signals.next().await;
            // An exchange in flight is finished and stored; nothing new begins.
            context.stop();
            let _ = stop.send(true);
            std::future::pending::<()>().await;
        });
        let (mut tasks, mut looks) = (JoinSet::new(), 0);
        loop {
            while looks < LOOKS
                && let Some((place, mut account)) = self.waiting.next()
            {
                looks += 1;
                let (context, begin) = (Rc::clone(&self.context), Event::Begin(self.trigger));
                tasks.spawn_local(async move {
                    let unfinished = account.start(begin, &context) && account.look(&context).await;
                    Task::Look(place, account, unfinished)
                });
            }
            while let Some((host, (place, mut account))) = self.due.pop() {
                let (context, mut stopped) = (Rc::clone(&self.context), stopped.clone());
                tasks.spawn_local(async move {
                    finish(&mut account, &context, &mut stopped).await;
                    Task::Finish(place, account, host)
                });
            }
            self.context.set_active(tasks.len());
            // A panic aborts the process, and nothing cancels a task.
            match tasks.join_next().await {
                None => {
                    if let Some(error) = workers::take_refusal() {
                        let message = no_threads(&error);
                        self.context.notice(&Notice::Message { account: None, message: &message });
                    }
                    return Ok(());
                }
                Some(Ok(Task::Look(place, account, unfinished))) => {
                    looks -= 1;
                    self.sort(place, account, unfinished);
                }
                Some(Ok(Task::Finish(place, account, host))) => {
                    self.due.release(&host, false);
                    self.finished.push((place, account));
                }
                Some(Err(_)) => {}
            }
        }
    }

    fn sort(&mut self, place: usize, account: Account, unfinished: bool) {
        if unfinished || stays_for(&account, self.context.clock.now()) {
            let (host, ends_at) = (account.host().to_owned(), account.ends_at());
            self.due.push(&host, ends_at, (place, account));
        } else {
            self.finished.push((place, account));
        }
    }
}

async fn finish(account: &mut Account, context: &Context, stopped: &mut tokio::sync::watch::Receiver<bool>) {
    loop {
        account.finish(context).await;
        let now = context.clock.now();
        // An answer that only memory holds is not given up for a signal.
        let may_leave = *stopped.borrow() && account.core().is_idle();
        if may_leave || !stays_for(account, now) {
            break;
        }
        let Some(wake_at) = account.next_wakeup() else { break };
        let wait = Duration::from_millis(millis_until(wake_at, now));
        tokio::select! {
            () = tokio::time::sleep(wait) => account.start(Event::Woke, context),
            _ = stopped.changed() => account.start(Event::Stop, context),
        };
    }
}

/// True if an account waits for the lock, for the disk, or for a resend.
fn stays_for(account: &Account, now: Timestamp) -> bool {
    let Some(wake_at) = account.next_wakeup() else { return false };
    let soon = millis_until(wake_at, now) <= millis(RESEND_PATIENCE).cast_unsigned();
    !account.core().is_idle() || (account.core().will_resend_soon() && soon)
}

fn millis_until(at: Timestamp, now: Timestamp) -> u64 {
    at.boot.saturating_sub(now.boot).max(0).cast_unsigned()
}
