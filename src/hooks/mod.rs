//! Runs the hooks of an account after a pass.

pub mod command;
pub mod rules;
pub mod signal;

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
use crate::hooks::command::{Act, Hook, HookError};
use crate::hooks::rules::{HookEvent, HookNote, health};
use crate::message::words;
use crate::problem::told;
use crate::refresh::outcome::{Outcome, Report};
use crate::runtime::{END, Signals, event_loop};
use crate::store;
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
    let Some(hooks) = Hooks::new(account.settings(), account.configured()) else { return Vec::new() };
    let passes = finished(account);
    let (mut note, name) = (HookNote::default(), account.name().to_owned());
    let store = account.files().store();
    let due = passes.iter().flat_map(|pass| hooks.chosen(pass.note(&mut note, store), pass));
    due.map(|hook| (name.clone(), hook)).collect()
}

/// The hooks of one account.
#[derive(Debug, Clone)]
pub struct Hooks {
    account: Arc<AccountConfig>,
    settings: Arc<Settings>,
    queue: Rc<RefCell<HookQueue>>,
}

/// The hooks of one account run one after the other.
#[derive(Debug, Default)]
struct HookQueue {
    /// Passes for which no hooks were chosen yet.
    finished: VecDeque<FinishedPass>,
    hooks: VecDeque<Hook>,
    /// For when the note on disk cannot be read or written.
    note: HookNote,
    is_running: bool,
}

/// A finished pass, as far as hooks are concerned.
#[derive(Debug)]
struct FinishedPass {
    outcome: Outcome,
    /// The number of the newest token, if there is a state.
    generation: Option<u64>,
    /// When that token expires, Unix seconds.
    expires_at: Option<i64>,
}

impl FinishedPass {
    /// Notes it, and returns what hooks run for. `note` stands for the note on disk if that cannot be
    /// read or written.
    fn note(&self, note: &mut HookNote, store: &mut Store) -> Vec<HookEvent> {
        let generation = self.generation.unwrap_or_default();
        let events = note.update(&self.outcome, generation);
        store.update_note(|note: &mut HookNote| note.update(&self.outcome, generation)).unwrap_or(events)
    }
}

/// The passes that have finished since the last call and may call for hooks, in order.
fn finished(account: &mut Account) -> Vec<FinishedPass> {
    let mut outcomes = account.take_finished();
    outcomes.retain(|outcome| health(outcome).is_some());
    let record = account.core().record();
    let token = record.and_then(|record| record.access_token.as_ref());
    let expires_at = token.map(|token| token.expires_at().wall / 1000);
    let generation = record.map(|record| record.generation);
    outcomes.into_iter().map(|outcome| FinishedPass { outcome, generation, expires_at }).collect()
}

impl Hooks {
    /// `None` if no command is configured.
    pub fn new(settings: &Arc<Settings>, account: &Arc<AccountConfig>) -> Option<Self> {
        let is_any = account.hooks != HooksConfig::default() || account.signal.is_some();
        is_any.then(|| Self {
            account: Arc::clone(account),
            settings: Arc::clone(settings),
            queue: Rc::default(),
        })
    }

    fn chosen(&self, events: Vec<HookEvent>, pass: &FinishedPass) -> Vec<Hook> {
        events.into_iter().flat_map(|event| [self.hook(event, pass), self.signal(event)]).flatten().collect()
    }

    fn signal(&self, event: HookEvent) -> Option<Hook> {
        let signal = self.account.signal.as_ref().filter(|_| event == HookEvent::Refresh)?;
        Some(Hook { key: "signal", act: Act::Signal(signal.clone()) })
    }

    fn hook(&self, event: HookEvent, pass: &FinishedPass) -> Option<Hook> {
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
        let words = words(&Report::Finished(pass.outcome.clone()));
        let outputs = self.account.outputs.iter().map(|output| output.file.path.to_string_lossy());
        let outputs: Vec<_> = outputs.collect();
        let mut environment = vec![
            ("ZG_TOKEND_EVENT", event.to_owned()),
            ("ZG_TOKEND_ACCOUNT", self.account.name.to_string()),
            ("ZG_TOKEND_CONFIG", self.settings.path.to_string_lossy().into_owned()),
            ("ZG_TOKEND_TOKEN_FILE", self.account.token_file.path.to_string_lossy().into_owned()),
            ("ZG_TOKEND_OUTPUTS", outputs.join("\n")),
            ("ZG_TOKEND_MESSAGE", told(&words.text, words.cause.as_deref())),
            ("ZG_TOKEND_HINT", words.hint.unwrap_or_default()),
        ];
        if let Some(expires_at) = pass.expires_at {
            environment.push(("ZG_TOKEND_EXPIRES_AT", expires_at.to_string()));
        }
        if let Some(generation) = pass.generation {
            environment.push(("ZG_TOKEND_GENERATION", generation.to_string()));
        }
        let secrets = Arc::clone(&self.account.secret_variables);
        Some(Hook { key, act: Act::Command { argv: argv.clone(), environment, secrets } })
    }

    /// Runs the hooks for the finished passes in the background, after those that wait already. A hook
    /// that waits is replaced by a later run of the same hook.
    pub fn begin(&self, account: &mut Account, places: &Arc<Semaphore>, context: &Rc<Context>) {
        let finished = finished(account);
        let mut queue = self.queue.borrow_mut();
        queue.finished.extend(finished);
        if !queue.finished.is_empty() && !std::mem::replace(&mut queue.is_running, true) {
            let (places, context) = (Arc::clone(places), Rc::clone(context));
            tokio::task::spawn_local(run_queue(self.clone(), places, context));
        }
    }

    /// Chooses hooks for the passes that have finished. The note is written on another thread: its file
    /// system may hang.
    async fn choose(&self) {
        loop {
            let (next, mut note) = {
                let mut queue = self.queue.borrow_mut();
                (queue.finished.pop_front(), queue.note)
            };
            let Some(pass) = next else { return };
            let mut store = store::open(&self.settings, &self.account);
            let noting = workers::run(move || (pass.note(&mut note, &mut store), note, pass));
            let (events, note, pass) = noting.await;
            let mut queue = self.queue.borrow_mut();
            queue.note = note;
            for hook in self.chosen(events, &pass) {
                queue.hooks.retain(|earlier| earlier.key != hook.key);
                queue.hooks.push_back(hook);
            }
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
            let mut work = pin!(workers::run_program(move || hook.run(Some(&stop))));
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

async fn run_queue(hooks: Hooks, places: Arc<Semaphore>, context: Rc<Context>) {
    loop {
        hooks.choose().await;
        let next = {
            let mut queue = hooks.queue.borrow_mut();
            let next = queue.hooks.pop_front();
            queue.is_running = next.is_some();
            next
        };
        let Some(hook) = next else { return };
        // The semaphore is never closed.
        let permit = places.acquire().await;
        let done = workers::run_program(move || hook.run(None)).await;
        drop(permit);
        if let Err(error) = done {
            context.message(hooks.account.name.as_str(), &error.message());
        }
    }
}
