//! One account at work: performs what its core decides.

pub mod client;
pub mod context;
pub mod files;
pub mod info_file;
pub mod obtain;
pub mod once;
pub mod queue;
pub mod set;
pub mod token_file;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::account::client::Client;
use crate::account::context::{Context, Mode, Notice};
use crate::account::files::Files;
use crate::clock::Timestamp;
use crate::config;
use crate::config::Endpoint;
use crate::message::{LOG_IN_AGAIN, Level, Message, login_hint, words};
use crate::problem::{Class, Problem};
use crate::refresh::outcome::{Outcome, Report};
use crate::refresh::{Action, Event, Policy, Refresher};
use crate::secret::Fingerprint;
use crate::store;
use crate::store::note::Note;
use crate::workers;

/// How often the secrets are looked at while only a new login can help: soon enough for the user
/// who has just logged in, seldom enough for a password manager.
pub const REREAD: Duration = Duration::from_secs(5 * 60);

/// File work that takes longer than this is reported as hanging: a disk that works needs
/// milliseconds, a busy one a second.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// Says that the account's files hang, for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HangNote {
    /// Since when, Unix seconds; absent if they answer.
    pub since: Option<i64>,
    /// The process that waits for them.
    pub pid: Option<u32>,
}

impl Note for HangNote {
    const FILE: &'static str = "hang";
}

/// One account: its core, its files, and how it asks.
#[derive(Debug)]
pub struct Account {
    settings: Arc<config::Settings>,
    configured: Arc<config::AccountConfig>,
    core: Refresher,
    client: Client,
    /// Absent at rest, and while another thread works on them.
    files: Option<Box<Files>>,
    /// Once per process is enough.
    swept: bool,
    /// How the last finished pass ended.
    outcome: Option<Outcome>,
    /// The outcomes of finished passes that no feature has taken yet.
    finished: Vec<Outcome>,
    /// The new login that was refused last, while an earlier one went on.
    refused_login: Option<(Fingerprint, Problem)>,
    queue: VecDeque<Action>,
    told_to_stop: bool,
    is_abandoned: bool,
}

impl Account {
    /// Ready for its first pass.
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
            swept: false,
            outcome: None,
            finished: Vec::new(),
            refused_login: None,
            queue: VecDeque::new(),
            told_to_stop: false,
            is_abandoned: false,
        }
    }

    /// The config that it was built from.
    pub fn settings(&self) -> &Arc<config::Settings> {
        &self.settings
    }

    /// Its own part of the config.
    pub fn configured(&self) -> &Arc<config::AccountConfig> {
        &self.configured
    }

    /// The account's name.
    pub fn name(&self) -> &str {
        self.configured.name.as_str()
    }

    /// When its core wants to be woken.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.core.next_wakeup()
    }

    /// How the last finished pass ended.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The new login that was refused last, while an earlier one went on.
    pub fn refused_login(&self) -> Option<&(Fingerprint, Problem)> {
        self.refused_login.as_ref()
    }

    /// Whether only another login can help. It may come through the state: `set` puts it there.
    pub fn waits_for_login(&self) -> bool {
        let has_login = self.core.record().is_some_and(|record| record.refresh_token.is_some());
        self.core.is_idle() && (!has_login || matches!(self.outcome, Some(Outcome::Refused(_))))
    }

    /// Whether another process has stored something since the last look.
    pub fn is_outdated(&mut self) -> bool {
        let loaded = self.files().load();
        loaded.is_ok_and(|loaded| loaded.record.as_ref() != self.core.record())
    }

    /// Whether it knows that it is to begin nothing more.
    pub fn told_to_stop(&self) -> bool {
        self.told_to_stop
    }

    /// The core, to be asked.
    pub fn core(&self) -> &Refresher {
        &self.core
    }

    /// The files.
    pub fn files(&mut self) -> &mut Files {
        self.files.get_or_insert_with(|| Box::new(Files::new(&self.settings, &self.configured, self.swept)))
    }

    /// The outcomes of the passes that have finished since the last call, in order.
    pub fn take_finished(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.finished)
    }

    /// At rest, gives back the memory that a pass needed, and wipes its secrets.
    pub fn forget(&mut self) {
        if self.core.is_idle() {
            self.core.forget();
            self.queue.shrink_to_fit();
            self.swept |= self.files.take().is_some_and(|files| files.swept());
        }
    }

    /// Hands the core an event, and performs as much as needs neither network nor waiting. True
    /// if something is left for [`Account::finish`].
    pub fn begin(&mut self, event: Event, context: &Context) -> bool {
        self.told_to_stop |= matches!(event, Event::Stop);
        self.queue.extend(self.core.handle(context.clock.now(), event));
        while let Some(action) = self.queue.pop_front() {
            if matches!(action, Action::ReadInputs | Action::Request(_)) {
                self.queue.push_front(action);
                return true;
            }
            if let Some(event) = self.perform_on_files(action, context) {
                self.queue.extend(self.core.handle(context.clock.now(), event));
            }
        }
        false
    }

    /// Hands the core an event. True if there is something to do for [`Account::look`] or
    /// [`Account::finish`].
    pub fn start(&mut self, event: Event, context: &Context) -> bool {
        self.told_to_stop |= matches!(event, Event::Stop);
        self.queue.extend(self.core.handle(context.clock.now(), event));
        !self.queue.is_empty()
    }

    /// Performs as much as needs no network. True if something is left for [`Account::finish`].
    pub async fn look(&mut self, context: &Context) -> bool {
        while let Some(action) = self.queue.pop_front() {
            if matches!(action, Action::ReadInputs | Action::Request(_)) {
                self.queue.push_front(action);
                return true;
            }
            self.perform(action, context).await;
        }
        false
    }

    /// Performs until the core has nothing more to do now.
    pub async fn finish(&mut self, context: &Context) {
        while let Some(action) = self.queue.pop_front() {
            if context.is_stopping() && !self.told_to_stop {
                self.told_to_stop = true;
                self.queue.extend(self.core.handle(context.clock.now(), Event::Stop));
            }
            self.perform(action, context).await;
        }
    }

    async fn perform(&mut self, action: Action, context: &Context) {
        let event = match action {
            Action::ReadInputs => Some(Event::InputsRead(self.client.read_inputs(context).await)),
            Action::Request(request) => Some(Event::Answered(self.client.post(&request, context).await)),
            action if context.inline || matches!(action, Action::Report(_)) => {
                self.perform_on_files(action, context)
            }
            action => self.perform_elsewhere(action, context).await,
        };
        if let Some(event) = event {
            self.queue.extend(self.core.handle(context.clock.now(), event));
        }
    }

    /// File work on another thread: a file system that hangs must hold up this account alone.
    async fn perform_elsewhere(&mut self, action: Action, context: &Context) -> Option<Event> {
        self.files();
        let mut files = self.files.take()?;
        let mut work = pin!(workers::run(move || {
            let event = perform(&mut files, action);
            (files, event)
        }));
        let done = match timeout(HANGS_AFTER, &mut work).await {
            Ok(done) => Some(done),
            Err(_) => self.wait_for_files(work, context).await,
        };
        let Some((files, event)) = done else {
            self.queue.clear();
            self.is_abandoned = true;
            let text = format!("the file system does not answer: {}", self.places());
            let hint = Some("check the file system: mount, df, dmesg".into());
            let (class, kind) = (Class::Io, "files_hang".to_owned());
            self.outcome = Some(Outcome::Failed(Problem { class, kind, message: text, hint }));
            return None;
        };
        self.files = Some(files);
        event
    }

    /// Waits for work that hangs; `None` if it is given up. Everybody who can see it is told.
    async fn wait_for_files<T>(&self, work: impl Future<Output = T>, context: &Context) -> Option<T> {
        let name = self.name();
        let text = format!("the file system does not answer, so this account waits: {}", self.places());
        let message = Message::new(Level::Warn, "files_hang", text)
            .hint("check the file system: mount, df, dmesg; other accounts go on");
        context.notice(&Notice::Hang { account: name, hangs: true, message: &message });
        self.note_hang(Some(context.clock.now().wall / 1000));
        let done = match context.hang_patience {
            Some(patience) => timeout(patience, work).await.ok()?,
            None => work.await,
        };
        self.note_hang(None);
        let message = Message::new(Level::Info, "files_answer", "the file system answers again");
        context.notice(&Notice::Hang { account: name, hangs: false, message: &message });
        Some(done)
    }

    /// For `status`. The state may be where it hangs, so nobody waits for this.
    fn note_hang(&self, since: Option<i64>) {
        let mut files = Files::new(&self.settings, &self.configured, true);
        tokio::task::spawn_local(workers::run(move || {
            files.store().update_note(|note: &mut HangNote| {
                *note = HangNote { since, pid: since.map(|_| std::process::id()) };
            })
        }));
    }

    /// Where its files are, for messages.
    fn places(&self) -> String {
        let state = store::open(&self.settings, &self.configured.name).path();
        format!("token file {}, state {}", self.configured.token_file.path.display(), state.display())
    }

    /// Whether its files hang, so that nothing more can be done for it.
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// The host that its exchanges go to, as far as config tells.
    pub fn host(&self) -> &str {
        match &self.configured.endpoint {
            Endpoint::Explicit(url) => url.host_str().unwrap_or_default(),
            Endpoint::Discovered { issuer } => issuer.split('/').nth(2).unwrap_or_default(),
        }
    }

    /// When its token ends, in milliseconds of the boot clock: the first to end is refreshed first.
    pub fn ends_at(&self) -> i64 {
        let token = self.core.record().and_then(|record| record.access_token.as_ref());
        token.map_or(0, |token| token.expires_at().boot)
    }

    fn perform_on_files(&mut self, action: Action, context: &Context) -> Option<Event> {
        if let Action::Report(report) = action {
            self.report(*report, context);
            return None;
        }
        perform(self.files(), action)
    }

    fn report(&mut self, report: Report, context: &Context) {
        context.notice(&Notice::Report {
            account: self.configured.name.as_str(),
            report: &report,
            next_pass: self.core.next_wakeup(),
            now: context.clock.now(),
        });
        if let Report::FellBack { refused, error, .. } = &report {
            let problem = Problem {
                class: Class::NeedsLogin,
                kind: error.clone(),
                message: words(&report).text,
                hint: Some(LOG_IN_AGAIN.into()),
            };
            self.refused_login = Some((*refused, problem));
        }
        if let Report::Finished(outcome) = report {
            self.finished.push(outcome.clone());
            self.outcome = Some(outcome);
            // A thousand accounts at rest must not keep a thousand directories open.
            self.files.iter_mut().for_each(|files| files.unlock());
        }
    }
}

fn perform(files: &mut Files, action: Action) -> Option<Event> {
    Some(match action {
        Action::Load => Event::Loaded(files.load()),
        Action::Lock => Event::Locked(files.lock()),
        Action::TakeOver(seed) => Event::TakenOver(files.take_over(seed)),
        Action::Prepare(record) => Event::Prepared(files.prepare(&record)),
        Action::Persist(record) => Event::Persisted(files.persist(&record)),
        Action::Publish(token) => Event::Published(files.publish(&token)),
        Action::Withdraw(token) => Event::Withdrawn(files.withdraw(&token)),
        Action::Unlock => {
            files.unlock();
            Event::Unlocked
        }
        Action::Report(_) | Action::ReadInputs | Action::Request(_) => return None,
    })
}

/// The accounts of a config, each ready for its first pass; `only` picks one by name.
pub fn accounts(settings: &Arc<config::Settings>, only: Option<&str>, mode: Mode) -> Vec<Account> {
    let chosen = settings.chosen(only);
    chosen.map(|account| Account::new(settings, account, policy(settings, account, mode))).collect()
}

/// The part of an account's configuration that the core needs.
pub fn policy(settings: &config::Settings, account: &config::AccountConfig, mode: Mode) -> Policy {
    // The fingerprint of a refresh_token that config holds as a string.
    let inline_seed = match &account.refresh_token {
        Some(config::SecretSource::Inline(secret)) => Some(secret.fingerprint()),
        _ => None,
    };
    Policy {
        account: account.name.to_string(),
        config: settings.path.to_string_lossy().into_owned(),
        skew: account.skew,
        default_lifetime: account.default_lifetime,
        horizon: mode.horizon,
        inline_seed,
        login_hint: login_hint(settings, account),
        reread_secrets: inline_seed.is_none().then_some(REREAD),
        lock_patience: mode.lock_patience,
        remove_expired: account.remove_expired,
        patient: mode.patient,
    }
}
