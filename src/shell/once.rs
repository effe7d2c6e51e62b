//! One pass over the accounts, from cron or a terminal.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use super::Context;
use super::account::Account;
use crate::clock::{Clock, Timestamp, millis};
use crate::supervisor::Event;
use crate::supervisor::decide::Trigger;

/// How long a pass stays for the resend of a request that got no answer: the next pass may come
/// when the server has forgotten what it granted.
const RESEND_PATIENCE: Duration = Duration::from_secs(10);

/// Refreshes what is due, and gives the accounts back, each with its outcome. The network, and
/// the runtime that it needs, are touched only if something is due.
pub fn once(accounts: Vec<Account>, trigger: Trigger, context: Context) -> io::Result<Vec<Account>> {
    let mut finished = Vec::with_capacity(accounts.len());
    let mut at_work = Vec::new();
    for (place, mut account) in accounts.into_iter().enumerate() {
        let unfinished = account.begin(Event::Begin(trigger), &context);
        if unfinished || stays_for(&account, context.clock.now()) {
            at_work.push((place, account));
        } else {
            finished.push((place, account));
        }
    }
    if !at_work.is_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        finished.extend(LocalSet::new().block_on(&runtime, finish_all(at_work, context))?);
    }
    finished.sort_by_key(|(place, _)| *place);
    Ok(finished.into_iter().map(|(_, account)| account).collect())
}

async fn finish_all(accounts: Vec<(usize, Account)>, context: Context) -> io::Result<Vec<(usize, Account)>> {
    context.set_active(accounts.len());
    let context = Rc::new(context);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut at_work = Vec::new();
    for (place, mut account) in accounts {
        let (context, mut stopped) = (Rc::clone(&context), stopped.clone());
        at_work.push(tokio::task::spawn_local(async move {
            finish(&mut account, &context, &mut stopped).await;
            context.set_active(context.active.get().saturating_sub(1));
            (place, account)
        }));
    }
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::task::spawn_local(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        // An exchange in flight is finished and stored; nothing new begins.
        context.stop();
        let _ = stop.send(true);
        std::future::pending::<()>().await;
    });
    let mut finished = Vec::new();
    for task in at_work {
        // A panic aborts the process, and nothing cancels the task.
        finished.extend(task.await.ok());
    }
    Ok(finished)
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
