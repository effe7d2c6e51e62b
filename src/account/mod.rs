//! One account: performs the actions of its core, `refresh`.
//!
//! The actions wait in a queue. Each one is performed, its result goes into the core as an event, and
//! the actions that the core returns join the queue, until it is empty. File actions run on another
//! thread (`trip.rs`), because a file system may hang; an account that is alone runs them on its own. Only
//! two actions need the network: `begin` and `look` stop before them, so that the caller can limit the
//! exchanges at the same time; `finish` performs them as well. Reports go to the observers.

pub mod barrier;
pub mod certificates;
pub mod client;
pub mod context;
pub mod credentials;
pub mod files;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod fleet_note;
pub mod google;
pub mod info_file;
pub mod machine;
pub mod obtain;
pub mod once;
pub mod origin;
pub mod outputs;
pub mod plain_copy;
pub mod policy;
pub mod queue;
pub mod reseal;
pub mod sealing;
pub mod set;
pub mod sources;
pub mod token_file;
mod trip;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::account::client::Client;
use crate::account::context::{Context, Notice};
use crate::account::files::Files;
use crate::account::fleet_note::FleetNote;
use crate::account::sealing::KeyUse;
use crate::account::trip::{Told, Trip, needs_network, perform};
use crate::clock::{SystemClock, Timestamp};
use crate::config;
use crate::config::Endpoint;
use crate::message::{Level, Message, words};
use crate::problem::{Class, Problem};
use crate::refresh::decide::Inputs;
use crate::refresh::fleet::{Ask, RowReply};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::{Action, Event, Policy, Refresher};
use crate::secret::Fingerprint;
use crate::store;
use crate::store::note::Note;
use crate::store::seal::{StateKeys, is_open};
use crate::workers;

/// How often the secrets are read while only a new login can help: soon enough for a user who has
/// just logged in, seldom enough for a password manager.
pub const REREAD: Duration = Duration::from_secs(5 * 60);

/// File work that takes longer than this is reported as hanging: an idle disk needs milliseconds, a
/// busy one a second.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// How long the note of a hang may take.
const NOTE_TIME: Duration = Duration::from_secs(1);

/// Whether the account's files hang, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HangNote {
    /// The start in Unix seconds; absent if they do not hang.
    pub since: Option<i64>,
    /// The process that waits for them.
    pub pid: Option<u32>,
}

impl Note for HangNote {
    const FILE: &'static str = "hang";
}

/// The next step where a wait for other machines ends by itself.
const FLEET_WAITS: &str = "wait: this ends by itself; `zg-tokend fleet status` shows the row";

#[derive(Debug)]
pub struct Account {
    settings: Arc<config::Settings>,
    configured: Arc<config::AccountConfig>,
    core: Refresher,
    client: Client,
    /// Absent between passes, and while another thread works on them.
    files: Option<Box<Files>>,
    /// The keys of the state, from the reading of the secrets to the end of the pass.
    keys: Option<Arc<StateKeys>>,
    /// The temporaries of killed processes are removed: once per process is enough.
    swept: bool,
    /// The outcome of the last pass.
    outcome: Option<Outcome>,
    /// The outcomes that [`Account::take_finished`] has not taken yet.
    finished: Vec<Outcome>,
    refused_login: Option<Box<(Fingerprint, Problem)>>,
    queue: VecDeque<Action>,
    stopping: bool,
    is_abandoned: bool,
    #[cfg(feature = "fleet")]
    fleet: fleet::FleetAccess,
}

impl Account {
    pub fn new(
        settings: &Arc<config::Settings>,
        account: &Arc<config::AccountConfig>,
        policy: Policy,
    ) -> Self {
        Self {
            settings: Arc::clone(settings),
            configured: Arc::clone(account),
            core: Refresher::new(policy, getrandom::u64().unwrap_or_default()),
            client: Client::new(settings, account),
            files: None,
            keys: None,
            swept: false,
            outcome: None,
            finished: Vec::new(),
            refused_login: None,
            queue: VecDeque::new(),
            stopping: false,
            is_abandoned: false,
            #[cfg(feature = "fleet")]
            fleet: fleet::FleetAccess::default(),
        }
    }

    pub fn settings(&self) -> &Arc<config::Settings> {
        &self.settings
    }

    /// The account's part of the config.
    pub fn configured(&self) -> &Arc<config::AccountConfig> {
        &self.configured
    }

    pub fn name(&self) -> &str {
        self.configured.name.as_str()
    }

    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.core.next_wakeup()
    }

    /// The outcome of the last pass.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The last new login that the server refused while the account continued with an earlier one.
    pub fn refused_login(&self) -> Option<&(Fingerprint, Problem)> {
        self.refused_login.as_deref()
    }

    /// Whether only a new login can help. `set` may bring it, through the state.
    pub fn waits_for_login(&self) -> bool {
        if !self.configured.grant.grant_type.has_login() {
            return false;
        }
        let has_login = self.core.record().is_some_and(|record| record.refresh_token.is_some());
        self.core.is_idle() && (!has_login || matches!(self.outcome, Some(Outcome::Refused(_))))
    }

    /// Whether another process has changed the state since it was loaded. It does not read the token
    /// file, whose file system may hang.
    pub fn is_outdated(&mut self) -> bool {
        let loaded = self.files().load_state();
        let Ok(stored) = loaded else { return false };
        let mut stored = stored.into_parts().0;
        // Sealing changes nothing else.
        if let (Some(stored), Some(known)) = (&mut stored, self.core.record()) {
            stored.version = known.version;
        }
        stored.as_ref() != self.core.record()
    }

    /// Whether it has received [`Event::Stop`].
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub fn core(&self) -> &Refresher {
        &self.core
    }

    pub fn files(&mut self) -> &mut Files {
        let keys = || self.keys.clone();
        self.files.get_or_insert_with(|| {
            Box::new(Files::new(&self.settings, &self.configured, self.swept).with_keys(keys()))
        })
    }

    /// The outcomes of the passes since the last call, in order.
    pub fn take_finished(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.finished)
    }

    /// Between passes, frees the memory that a pass needed and wipes its secrets.
    pub fn forget(&mut self) {
        if self.core.is_idle() {
            self.core.forget();
            self.client.forget();
            self.queue.shrink_to_fit();
            self.swept |= self.files.take().is_some_and(|files| files.swept());
        }
    }

    /// Passes an event to the core. True if actions follow for [`Account::look`] or
    /// [`Account::finish`].
    pub fn start(&mut self, event: Event, context: &Context) -> bool {
        self.stopping |= matches!(event, Event::Stop);
        self.handle(event, context);
        !self.queue.is_empty()
    }

    /// Passes an event to the core, and performs the actions before the first one that needs the
    /// network, on this thread. True if there is one, for [`Account::finish`].
    pub fn begin(&mut self, event: Event, context: &Context) -> bool {
        self.start(event, context);
        while let Some(action) = self.queue.pop_front_if(|action| !needs_network(action)) {
            if let Some(event) = self.perform_on_files(action, context) {
                self.handle(event, context);
            }
        }
        !self.queue.is_empty()
    }

    /// Performs the actions before the first one that needs the network. True if there is one, for
    /// [`Account::finish`].
    pub async fn look(&mut self, context: &Context) -> bool {
        while let Some(action) = self.queue.pop_front_if(|action| !needs_network(action)) {
            self.perform(action, context).await;
        }
        !self.queue.is_empty()
    }

    /// Performs all actions.
    pub async fn finish(&mut self, context: &Context) {
        while let Some(action) = self.queue.pop_front() {
            if context.is_stopping() && !self.stopping {
                self.start(Event::Stop, context);
            }
            self.perform(action, context).await;
        }
    }

    fn handle(&mut self, event: Event, context: &Context) {
        self.queue.extend(self.core.handle(context.clock.now(), event));
    }

    /// The parts that need the network are in boxes: most passes need none, and each account of a start has a
    /// task of this size.
    async fn perform(&mut self, action: Action, context: &Context) {
        let event = match action {
            Action::ReadInputs => Some(Event::InputsRead(Box::pin(self.read_inputs(context)).await)),
            Action::Request(request) => {
                let last = self.core.record().and_then(|record| record.came_by.clone());
                let post = self.client.post(&request, last.as_deref(), context);
                Some(Event::Answered(Box::pin(post).await))
            }
            Action::Ask(ask) => Some(Event::Replied(Box::pin(self.ask(&ask, context)).await)),
            action if context.inline || matches!(action, Action::Report(_)) => {
                self.perform_on_files(action, context)
            }
            action => {
                self.perform_elsewhere(action, context).await;
                None
            }
        };
        if self.files.as_mut().is_some_and(|files| files.take_moved()) {
            context.message(self.name(), &machine::moved());
        }
        if let Some(event) = event {
            self.handle(event, context);
        }
    }

    /// Reads the keys of the state before the other secrets: without them no answer could be stored.
    async fn read_inputs(&mut self, context: &Context) -> Result<Inputs, Problem> {
        let account = &self.configured;
        let has_key = account.state_key.is_some() || account.state_key_previous.is_some();
        if has_key || !self.core.record().is_none_or(is_open) {
            let keys = sealing::read_keys(&self.settings, account, KeyUse::Open, context.inline).await?;
            self.set_keys(keys);
        }
        #[cfg(feature = "fleet")]
        if self.configured.fleet.is_some() {
            // A problem with it is told when it is asked.
            let _ = self.fleet.open(&self.configured).await;
        }
        let inputs = self.client.read_inputs(context).await;
        inputs.map_err(|mut problem| {
            let last = self.core.record().and_then(|record| record.came_by.as_deref());
            if problem.kind == "discovery" {
                let end = problem.cause.as_mut().unwrap_or(&mut problem.message);
                end.push_str(&self.client.other_way(last, context));
            }
            problem
        })
    }

    #[cfg(feature = "fleet")]
    async fn ask(&mut self, ask: &Ask, context: &Context) -> Result<RowReply, Problem> {
        let reply = self.fleet.ask(&self.configured, ask).await;
        let now = context.clock.now().wall / 1000;
        // For `status` alone.
        self.files().store().update_note(|note: &mut FleetNote| match &reply {
            Ok(reply) => note.see(reply, now),
            Err(problem) => (note.problem, note.hint) = (Some(problem.whole()), problem.hint.clone()),
        });
        reply
    }

    #[cfg(not(feature = "fleet"))]
    #[expect(clippy::unused_async, reason = "as with the feature")]
    async fn ask(&mut self, _: &Ask, _: &Context) -> Result<RowReply, Problem> {
        Err(Problem::bug("this zg-tokend was built without the fleet"))
    }

    /// For `status`, and for the log of `run` when it changes: a machine may wait for another one until its token
    /// expires.
    fn note_wait(&mut self, outcome: &Outcome, context: &Context) {
        let waits = match outcome {
            // Those that refresh, or are about to, are done within seconds.
            Outcome::Held { problem, .. }
                if matches!(
                    &*problem.kind,
                    "fleet_unclear" | "fleet_failover" | "fleet_changing" | "fleet_unclaimed"
                ) =>
            {
                let hint = problem.hint.clone().unwrap_or_else(|| FLEET_WAITS.to_owned());
                Some((problem.message.clone(), hint))
            }
            _ => None,
        };
        let note = self.files().store().update_note(|note: &mut FleetNote| {
            let is_new = note.waits != waits;
            note.waits.clone_from(&waits);
            is_new
        });
        if let (Some(true), Some((text, hint)), true) = (note, waits, self.core.policy().patient) {
            let message = Message::new(Level::Info, "fleet_waits", format!("waiting: {text}")).hint(hint);
            context.message(self.name(), &message);
        }
    }

    fn set_keys(&mut self, keys: Option<Arc<StateKeys>>) {
        self.keys = keys;
        self.files.iter_mut().for_each(|files| files.set_keys(self.keys.clone()));
    }

    /// Performs an action on another thread, and those that follow from it.
    async fn perform_elsewhere(&mut self, action: Action, context: &Context) {
        self.files();
        let Some(files) = self.files.take() else { return };
        // If the files hang for too long, this one stays: it has nothing to do.
        let idle = Refresher::new(self.core.policy().clone(), 0);
        let waits = Arc::new(());
        let trip = Trip {
            files,
            core: std::mem::replace(&mut self.core, idle),
            queue: std::mem::take(&mut self.queue),
            told: Vec::new(),
            clock: SystemClock::new(),
            stopping: context.stopping(),
            awaited: Arc::downgrade(&waits),
        };
        let mut work = pin!(workers::run(move || trip.done(action)));
        let done = match timeout(HANGS_AFTER, &mut work).await {
            Ok(done) => Some(done),
            Err(_) => self.wait_for_files(work, context).await,
        };
        let Some(trip) = done else {
            self.is_abandoned = true;
            let text = format!("the file system does not answer: {}", self.places());
            let problem = Problem::of(Class::Io, "files_hang", text);
            let problem = problem.hint("check the file system: mount, df, dmesg");
            self.outcome = Some(Outcome::Failed(problem.into()));
            return;
        };
        (self.files, self.core, self.queue) = (Some(trip.files), trip.core, trip.queue);
        trip.told.into_iter().for_each(|told| self.report(told, context));
    }

    /// Waits for file work that hangs, and reports it; `None` after the patience of the context.
    async fn wait_for_files<T>(&self, work: impl Future<Output = T>, context: &Context) -> Option<T> {
        let name = self.name();
        let text = format!("the file system does not answer, so this account waits: {}", self.places());
        let message = Message::new(Level::Warn, "files_hang", text)
            .hint("check the file system: mount, df, dmesg; other accounts go on");
        // `status` must know before anybody is told to look at it. The state may hang as well.
        let _ = timeout(NOTE_TIME, self.note_hang(Some(context.clock.now().wall / 1000))).await;
        context.notice(&Notice::Hang { account: name, hangs: true, message: &message });
        let done = match context.hang_patience {
            Some(patience) => timeout(patience, work).await.ok()?,
            None => work.await,
        };
        let _ = timeout(NOTE_TIME, self.note_hang(None)).await;
        let message = Message::new(Level::Info, "files_answer", "the file system answers again");
        context.notice(&Notice::Hang { account: name, hangs: false, message: &message });
        Some(done)
    }

    /// For `status`.
    async fn note_hang(&self, since: Option<i64>) {
        let mut files = Files::new(&self.settings, &self.configured, true);
        workers::run(move || {
            files.store().update_note(|note: &mut HangNote| {
                *note = HangNote { since, pid: since.map(|_| std::process::id()) };
            })
        })
        .await;
    }

    /// The paths of the files, for messages.
    fn places(&self) -> String {
        let state = store::open(&self.settings, &self.configured).path();
        let outputs = self.configured.outputs.iter().map(|output| &output.file);
        let files = std::iter::once(&self.configured.token_file).chain(outputs);
        let files: Vec<_> = files.map(|file| file.path.display().to_string()).collect();
        format!("token file {}, state {}", files.join(", "), state.display())
    }

    /// Whether its files hang and it was given up.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// The host of the token endpoint, or of the issuer.
    pub fn host(&self) -> &str {
        match &self.configured.endpoint {
            Endpoint::Explicit(url) => url.host_str().unwrap_or_default(),
            Endpoint::Discovered { issuer } => issuer.split('/').nth(2).unwrap_or_default(),
            // One file is most often one server.
            Endpoint::Elsewhere => self.configured.elsewhere.place(),
        }
    }

    /// When the token expires, in milliseconds of the boot clock: the first to expire is refreshed first.
    pub fn ends_at(&self) -> i64 {
        let token = self.core.record().and_then(|record| record.access_token.as_ref());
        token.map_or(0, |token| token.expires_at().boot)
    }

    fn perform_on_files(&mut self, action: Action, context: &Context) -> Option<Event> {
        if let Action::Report(report) = action {
            let (next_pass, now) = (self.core.next_wakeup(), context.clock.now());
            self.report(Told { report: *report, next_pass, now }, context);
            return None;
        }
        perform(self.files(), action)
    }

    fn report(&mut self, told: Told, context: &Context) {
        let Told { report, next_pass, now } = told;
        context.notice(&Notice::Report {
            account: &self.configured.name,
            token_file: &self.configured.token_file.path,
            report: &report,
            next_pass,
            now,
        });
        if let Report::FellBack { refused, error, message, hint } = &report {
            let problem = Problem::of(Class::NeedsLogin, error.clone(), words(&report).text)
                .cause(message.clone())
                .hint(hint.clone());
            self.refused_login = Some(Box::new((*refused, problem)));
        }
        if let (Report::Finished(outcome), Some(_)) = (&report, &self.configured.fleet) {
            self.note_wait(outcome, context);
        }
        if let Report::Finished(outcome) = report {
            self.finished.push(outcome.clone());
            self.outcome = Some(outcome);
            self.set_keys(None);
            #[cfg(feature = "fleet")]
            self.fleet.close();
            // A thousand idle accounts must not keep a thousand directories open.
            self.files.iter_mut().for_each(|files| files.unlock());
        }
    }
}
