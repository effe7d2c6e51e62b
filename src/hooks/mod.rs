//! Tells the hooks of an account what a pass came to.

pub mod command;
pub mod rules;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::account::Account;
use crate::account::context::Context;
use crate::config;
use crate::hooks::command::{Hook, HookError};
use crate::hooks::rules::{HookNote, Occasion, health};
use crate::message::words;
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::record::Record;
use crate::runtime::{END, Signals, event_loop};
use crate::store::note::Note;
use crate::store::state::Store;
use crate::workers;
use tokio::sync::Semaphore;

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
    account: Arc<config::AccountConfig>,
    settings: Arc<config::Settings>,
    /// The note of this process, for when the note on disk cannot be had.
    told: HookNote,
    queue: HookRuns,
}

/// Hooks that wait for their turn: those of one account run one after the other.
#[derive(Debug, Clone, Default)]
struct HookRuns(Rc<RefCell<HookQueue>>);

#[derive(Debug, Default)]
struct HookQueue {
    hooks: VecDeque<Hook>,
    at_work: bool,
}

impl Hooks {
    /// Nothing was told yet.
    pub fn new(settings: &Arc<config::Settings>, account: &Arc<config::AccountConfig>) -> Self {
        Self {
            account: Arc::clone(account),
            settings: Arc::clone(settings),
            told: HookNote::default(),
            queue: HookRuns::default(),
        }
    }

    /// The hooks that the passes finished since the last call give occasion for, in order.
    pub fn for_passes(&mut self, account: &mut Account) -> Vec<Hook> {
        let outcomes = account.take_finished();
        if self.account.hooks == config::HooksConfig::default() {
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
        let by_own_memory = self.told.hear(outcome, generation);
        store
            .update_note(|told: &mut HookNote| told.hear(outcome, generation))
            .unwrap_or(by_own_memory)
            .into_iter()
            .filter_map(|occasion| self.hook(occasion, outcome, record))
            .collect()
    }

    fn hook(&self, occasion: Occasion, outcome: &Outcome, record: Option<&Record>) -> Option<Hook> {
        let hooks = &self.account.hooks;
        let (key, event, argv) = match occasion {
            Occasion::Refresh => ("on_refresh", "refresh", &hooks.on_refresh),
            Occasion::Failure => ("on_failure", "failure", &hooks.on_failure),
            Occasion::Recovery => ("on_recovery", "recovery", &hooks.on_recovery),
            Occasion::NeedsLogin => ("on_needs_login", "needs_login", &hooks.on_needs_login),
        };
        if argv.is_empty() {
            return None;
        }
        let words = words(&Report::Finished(outcome.clone()));
        let mut environment = vec![
            ("ZG_TOKEND_EVENT", event.to_owned()),
            ("ZG_TOKEND_ACCOUNT", self.account.name.to_string()),
            ("ZG_TOKEND_CONFIG", self.settings.path.to_string_lossy().into_owned()),
            ("ZG_TOKEND_TOKEN_FILE", self.account.token_file.path.to_string_lossy().into_owned()),
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

    /// Runs hooks beside everything else, after those that wait already. One that waits and whose
    /// turn would come twice has been overtaken: only the later one runs.
    pub fn enqueue(&self, hooks: Vec<Hook>, places: &Arc<Semaphore>, context: &Rc<Context>) {
        let mut waiting = self.queue.0.borrow_mut();
        for hook in hooks {
            waiting.hooks.retain(|earlier| earlier.key != hook.key);
            waiting.hooks.push_back(hook);
        }
        if !waiting.hooks.is_empty() && !std::mem::replace(&mut waiting.at_work, true) {
            let (queue, context) = (self.queue.clone(), Rc::clone(context));
            tokio::task::spawn_local(work(queue, self.account.name.to_string(), Arc::clone(places), context));
        }
    }
}

/// Runs the hooks of a pass, one after the other, and tells of those that failed. SIGINT, SIGTERM
/// and SIGHUP end the one that runs, and keep the rest from running: what they tell of is done.
/// Each hook comes with the name of its account.
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

async fn work(queue: HookRuns, account: String, places: Arc<Semaphore>, context: Rc<Context>) {
    loop {
        let next = {
            let mut waiting = queue.0.borrow_mut();
            let next = waiting.hooks.pop_front();
            waiting.at_work = next.is_some();
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
