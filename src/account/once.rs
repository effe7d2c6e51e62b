//! One pass over the accounts, from cron or a terminal.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::account::Account;
use crate::account::context::{Context, EXCHANGES};
use crate::clock::{BootId, Timestamp, millis, monotonic};
use crate::refresh::Event;
use crate::refresh::decide::Trigger;
use crate::runtime::{END, Signals, event_loop};
use crate::store::note::Note;
use serde::{Deserialize, Serialize};

/// How long a pass stays for the resend of a request that got no answer: the next pass may come
/// when the server has forgotten what it granted.
const RESEND_PATIENCE: Duration = Duration::from_secs(10);

/// Refreshes what is due, and gives the accounts back, each with its outcome. The network, and
/// the runtime that it needs, are touched only if something is due.
pub fn once(accounts: Vec<Account>, trigger: Trigger, context: Context) -> io::Result<Vec<Account>> {
    let queue = accounts.into_iter().enumerate();
    let mut pass = Pass { queue, trigger, context: Rc::new(context), finished: Vec::new() };
    if let Some(first) = pass.next_due() {
        let runtime = event_loop()?;
        let done = LocalSet::new().block_on(&runtime, pass.finish_all(first));
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        done?;
    }
    pass.finished.sort_by_key(|(place, _)| *place);
    Ok(pass.finished.into_iter().map(|(_, account)| account).collect())
}

/// When the last `once` came by, so that passes that are too far apart are noticed. Counted by the
/// monotonic clock, which stands still while the machine sleeps: a night's sleep is no missed pass.
#[derive(Default, Serialize, Deserialize)]
struct LastPass {
    monotonic_ms: i64,
    boot_id: Option<BootId>,
}

impl Note for LastPass {
    const FILE: &'static str = "last-pass";
}

/// Notes that a pass came by; returns how long after the one before, if that is known.
pub fn note_pass(account: &mut Account, boot_id: BootId) -> Option<Duration> {
    let now = monotonic();
    account.files().store().update_note(|last: &mut LastPass| {
        let gap = now.saturating_sub(last.monotonic_ms).max(0).cast_unsigned();
        let is_known = last.boot_id == Some(boot_id);
        *last = LastPass { monotonic_ms: now, boot_id: Some(boot_id) };
        is_known.then(|| Duration::from_millis(gap))
    })?
}

/// Accounts keep their places, for the report.
struct Pass {
    queue: std::iter::Enumerate<std::vec::IntoIter<Account>>,
    trigger: Trigger,
    context: Rc<Context>,
    finished: Vec<(usize, Account)>,
}

impl Pass {
    /// Begins one account after the other, until one has something left to do.
    fn next_due(&mut self) -> Option<(usize, Account)> {
        for (place, mut account) in self.queue.by_ref() {
            let unfinished = account.begin(Event::Begin(self.trigger), &self.context);
            if unfinished || stays_for(&account, self.context.clock.now()) {
                return Some((place, account));
            }
            self.finished.push((place, account));
        }
        None
    }

    /// Finishes this one and all that follow, a limited number of them together.
    async fn finish_all(&mut self, first: (usize, Account)) -> io::Result<()> {
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
        let mut at_work = JoinSet::new();
        let mut next = Some(first);
        loop {
            while at_work.len() < EXCHANGES
                && let Some((place, mut account)) = next.take().or_else(|| self.next_due())
            {
                let (context, mut stopped) = (Rc::clone(&self.context), stopped.clone());
                at_work.spawn_local(async move {
                    finish(&mut account, &context, &mut stopped).await;
                    (place, account)
                });
            }
            self.context.set_active(at_work.len());
            let Some(done) = at_work.join_next().await else { return Ok(()) };
            // A panic aborts the process, and nothing cancels the task.
            self.finished.extend(done.ok());
        }
    }
}

async fn finish(account: &mut Account, context: &Context, stopped: &mut tokio::sync::watch::Receiver<bool>) {
    loop {
        account.finish(context).await;
        let now = context.clock.now();
        // What only memory holds is not given up for a signal.
        let may_leave = *stopped.borrow() && account.core().is_idle();
        if may_leave || !stays_for(account, now) {
            break;
        }
        let Some(wake_at) = account.next_wakeup() else { break };
        let wait = Duration::from_millis(millis_until(wake_at, now));
        tokio::select! {
            () = tokio::time::sleep(wait) => account.begin(Event::Woke, context),
            _ = stopped.changed() => account.begin(Event::Stop, context),
        };
    }
}

/// True if an account that has nothing to do just now is not done: it waits for the lock, for the
/// disk, or for the moment to send a request again.
fn stays_for(account: &Account, now: Timestamp) -> bool {
    let Some(wake_at) = account.next_wakeup() else { return false };
    let soon = millis_until(wake_at, now) <= millis(RESEND_PATIENCE).cast_unsigned();
    !account.core().is_idle() || (account.core().will_resend_soon() && soon)
}

fn millis_until(at: Timestamp, now: Timestamp) -> u64 {
    at.boot.saturating_sub(now.boot).max(0).cast_unsigned()
}
