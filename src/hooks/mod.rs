//! Runs the hooks of an account after a pass.

pub mod command;
pub mod rules;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::account::Account;
use crate::account::context::Context;
use crate::config::{AccountConfig, HooksConfig, Settings};
use crate::hooks::command::{Hook, HookError};
use crate::hooks::rules::{HookEvent, HookNote, health};
use crate::message::words;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::Record;
use crate::runtime::{END, Signals, event_loop};
use crate::store::note::Note;
use crate::store::state::Store;
use crate::workers;
/// Hooks that run at the same time: they are other people's programs, and may be heavy.
const PLACES: usize = 4;

/// The places that the hooks of all accounts share.
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PLACES))
}

impl Note for HookNote {
    const FILE: &'static str = "told";
}

/// The hooks that the finished passes of an account call for, each with the account's name.
pub fn due(account: &mut Account) -> Vec<(String, Hook)> {
    let hooks = Hooks::new(account.settings(), account.configured()).for_passes(account);
    hooks.into_iter().map(|hook| (account.name().to_owned(), hook)).collect()
}

/// The hooks of one account.
#[derive(Debug)]
pub struct Hooks {
    account: Arc<AccountConfig>,
    settings: Arc<Settings>,
    /// For when the note on disk cannot be read or written.
    note: HookNote,
    queue: Rc<RefCell<HookQueue>>,
}

/// The hooks of one account run one after the other.
#[derive(Debug, Default)]
struct HookQueue {
    hooks: VecDeque<Hook>,
    is_running: bool,
}

impl Hooks {
    pub fn new(settings: &Arc<Settings>, account: &Arc<AccountConfig>) -> Self {
        Self {
            account: Arc::clone(account),
            settings: Arc::clone(settings),
            note: HookNote::default(),
            queue: Rc::default(),
        }
    }

    /// The hooks for the passes that have finished since the last call, in order.
    pub fn for_passes(&mut self, account: &mut Account) -> Vec<Hook> {
        let outcomes = account.take_finished();
        if self.account.hooks == HooksConfig::default() {
            return Vec::new();
        }
        let record = account.core().record().cloned();
        let store = account.files().store();
        outcomes.iter().flat_map(|outcome| self.for_outcome(outcome, record.as_ref(), store)).collect()
    }

    fn for_outcome(&mut self, outcome: &Outcome, record: Option<&Record>, store: &mut Store) -> Vec<Hook> {
        if health(outcome).is_none() {
            return Vec::new();
        }
        let generation = record.map_or(0, |record| record.generation);
        let events = self.note.update(outcome, generation);
        let events =
            store.update_note(|note: &mut HookNote| note.update(outcome, generation)).unwrap_or(events);
        events.into_iter().filter_map(|event| self.hook(event, outcome, record)).collect()
    }

    fn hook(&self, event: HookEvent, outcome: &Outcome, record: Option<&Record>) -> Option<Hook> {
        let hooks = &self.account.hooks;
        let (key, event, argv) = match event {
            HookEvent::Refresh => ("on_refresh", "refresh", &hooks.on_refresh),
            HookEvent::Failure => ("on_failure", "failure", &hooks.on_failure),
            HookEvent::Recovery => ("on_recovery", "recovery", &hooks.on_recovery),
            HookEvent::NeedsLogin => ("on_needs_login", "needs_login", &hooks.on_needs_login),
        };
        if argv.is_empty() {
            return None;
        }
        let words = words(&Report::Finished(outcome.clone()));
        let outputs = self.account.outputs.iter().map(|output| output.file.path.to_string_lossy());
        let outputs: Vec<_> = outputs.collect();
        let mut environment = vec![
            ("ZG_TOKEND_EVENT", event.to_owned()),
            ("ZG_TOKEND_ACCOUNT", self.account.name.to_string()),
            ("ZG_TOKEND_CONFIG", self.settings.path.to_string_lossy().into_owned()),
            ("ZG_TOKEND_TOKEN_FILE", self.account.token_file.path.to_string_lossy().into_owned()),
            ("ZG_TOKEND_OUTPUTS", outputs.join("\n")),
            ("ZG_TOKEND_MESSAGE", words.text),
            ("ZG_TOKEND_HINT", words.hint.unwrap_or_default()),
        ];
        if let Some(token) = record.and_then(|record| record.access_token.as_ref()) {
            environment.push(("ZG_TOKEND_EXPIRES_AT", (token.expires_at().wall / 1000).to_string()));
        }
        if let Some(record) = record {
            environment.push(("ZG_TOKEND_GENERATION", record.generation.to_string()));
        }
        let secrets = Arc::clone(&self.account.secret_variables);
        Some(Hook { key, argv: argv.clone(), environment, secrets })
    }

    /// Runs hooks in the background, after those that wait already. A hook that waits is replaced by
    /// a later run of the same hook.
    pub fn enqueue(&self, hooks: Vec<Hook>, places: &Arc<Semaphore>, context: &Rc<Context>) {
        let mut queue = self.queue.borrow_mut();
        for hook in hooks {
            queue.hooks.retain(|earlier| earlier.key != hook.key);
            queue.hooks.push_back(hook);
        }
        if !queue.hooks.is_empty() && !std::mem::replace(&mut queue.is_running, true) {
            let (queue, context) = (Rc::clone(&self.queue), Rc::clone(context));
            tokio::task::spawn_local(run_queue(
                queue,
                self.account.name.to_string(),
                Arc::clone(places),
                context,
            ));
        }
    }
}

/// Runs hooks, each with the name of its account, one after the other, and reports those that
/// failed. SIGINT, SIGTERM and SIGHUP end the running hook and skip the rest: the pass itself is done.
pub fn run_all(hooks: Vec<(String, Hook)>, failed: impl Fn(&str, &HookError)) -> io::Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    event_loop()?.block_on(async {
        let mut signals = Signals::new(&END)?;
        let (stop, stopper) = io::pipe()?;
        let (stop, mut stopper) = (Arc::new(stop), Some(stopper));
        for (account, hook) in hooks {
            let stop = Arc::clone(&stop);
            let mut work = pin!(workers::run(move || hook.run(Some(&stop))));
            let done = tokio::select! {
                done = &mut work => Some(done),
                _ = signals.next() => None,
            };
            let done = if let Some(done) = done {
                done
            } else {
                stopper = None;
                work.await
            };
            if let Err(error) = done {
                failed(&account, &error);
            }
            if stopper.is_none() {
                break;
            }
        }
        Ok(())
    })
}

async fn run_queue(
    queue: Rc<RefCell<HookQueue>>,
    account: String,
    places: Arc<Semaphore>,
    context: Rc<Context>,
) {
    loop {
        let next = {
            let mut queue = queue.borrow_mut();
            let next = queue.hooks.pop_front();
            queue.is_running = next.is_some();
            next
        };
        let Some(hook) = next else { return };
        // The semaphore is never closed.
        let permit = places.acquire().await;
        let done = workers::run(move || hook.run(None)).await;
        drop(permit);
        if let Err(error) = done {
            context.message(&account, &error.message());
        }
    }
}
