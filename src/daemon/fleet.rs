//! Notifications of the databases that several machines share: a pass for each changed row.
//!
//! One task for each database, on the connection that the passes use. After it has connected it notifies
//! itself: a pooler may swallow LISTEN without a word, and then the rows are read every 30 s.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::account::context::{Context, Notice};
use crate::account::fleet::{ECHO_PREFIX, News, REFUSED, link};
use crate::account::fleet_note::FleetNote;
use crate::config::settings::FleetConfig;
use crate::config::{AccountConfig, AccountName, Settings};
use crate::daemon::requests::LoopRequest;
use crate::message::{Level, Message};
use crate::problem::{Class, Problem};
use crate::refresh::decide::Trigger;
use crate::refresh::fleet::LOOK;
use crate::store;
use crate::workers;

/// The first wait after a lost connection, and the longest: the others wait for what is only on this disk.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The tasks, by what they listen to.
#[derive(Default)]
pub struct Listeners(HashMap<FleetConfig, JoinHandle<()>>);

impl Listeners {
    /// Listens to the databases of these accounts, and to no others.
    pub fn set(
        &mut self,
        settings: &Arc<Settings>,
        only: Option<&str>,
        requests: &mpsc::UnboundedSender<LoopRequest>,
        context: &Rc<Context>,
    ) {
        let mut databases: HashMap<FleetConfig, Vec<Arc<AccountConfig>>> = HashMap::new();
        for account in settings.chosen(only) {
            if let Some(fleet) = &account.fleet {
                databases.entry(fleet.clone()).or_default().push(Arc::clone(account));
            }
        }
        let earlier = std::mem::take(&mut self.0);
        earlier.values().for_each(JoinHandle::abort);
        for (fleet, accounts) in databases {
            let listener = DatabaseListener {
                settings: Arc::clone(settings),
                accounts,
                requests: requests.clone(),
                context: Rc::clone(context),
                is_away: false,
            };
            self.0.insert(fleet, tokio::task::spawn_local(listener.run()));
        }
    }
}

struct DatabaseListener {
    settings: Arc<Settings>,
    accounts: Vec<Arc<AccountConfig>>,
    requests: mpsc::UnboundedSender<LoopRequest>,
    context: Rc<Context>,
    /// That was told.
    is_away: bool,
}

impl DatabaseListener {
    async fn run(mut self) {
        let mut wait = AGAIN.0;
        loop {
            match self.listen().await {
                Ok(()) => wait = AGAIN.0,
                Err(problem) => {
                    self.tell_away(&problem).await;
                    if problem.class == Class::Config {
                        sleep(REFUSED).await;
                    }
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }

    /// Listens until the connection is lost.
    async fn listen(&mut self) -> Result<(), Problem> {
        let Some(first) = self.accounts.first() else { return std::future::pending().await };
        let link = link(first).await?;
        let mut channel = mpsc::unbounded_channel();
        let own = link.listen(&mut channel).await?;
        let news = &mut channel.1;
        self.note(Some(own.is_some())).await;
        if std::mem::take(&mut self.is_away) {
            let text = format!("the database {} answers again", link.place());
            self.tell(&Message::new(Level::Info, "fleet_back", text));
        }
        if own.is_none() {
            let text = format!("no notification comes back from the database {}", link.place());
            let text = format!("{text}: reading it every {} s instead", LOOK.as_secs());
            let hint =
                "connect past the pooler, or let it pool sessions: others have a new token up to 30 s late";
            self.tell(&Message::new(Level::Warn, "fleet_polls", text).hint(hint));
        }
        // Whatever was missed meanwhile.
        self.look(None, true);
        loop {
            // Where nothing arrives, the row is read from time to time.
            let patience = if own.is_some() { Duration::MAX } else { LOOK };
            let Ok(next) = timeout(patience, news.recv()).await else {
                self.look(None, false);
                continue;
            };
            match next {
                // It tells of a write of this process.
                Some(News::Changed { by, .. }) if own == Some(by) => {}
                // Another machine tries whether notifications arrive.
                Some(News::Changed { payload, .. }) if payload.starts_with(ECHO_PREFIX) => {}
                Some(News::Changed { payload, .. }) => {
                    // Every user of the database may notify: what names no account is nothing.
                    let account = payload.rsplit_once(' ').and_then(|(account, _)| account.parse().ok());
                    if account.is_some() {
                        self.look(account.as_ref(), false);
                    }
                }
                Some(News::Closed) | None => return Ok(()),
            }
        }
    }

    /// Has the row read: of this account, or of all.
    fn look(&self, account: Option<&AccountName>, anew: bool) {
        let trigger = Trigger { row: true, anew, ..Trigger::default() };
        for configured in &self.accounts {
            if account.is_none_or(|account| *account == configured.name) {
                // The loop outlives its tasks.
                let _ = self.requests.send(LoopRequest::Row { account: configured.name.clone(), trigger });
            }
        }
    }

    async fn tell_away(&mut self, problem: &Problem) {
        if std::mem::replace(&mut self.is_away, true) {
            return;
        }
        self.note(None).await;
        let text = format!("{}; live tokens stay, and nothing is refreshed meanwhile", problem.message);
        let message = Message::new(Level::Warn, "fleet_away", text).cause(problem.cause.as_deref());
        self.tell(&Message { hint: problem.hint.clone(), ..message });
    }

    fn tell(&self, message: &Message) {
        self.context.notice(&Notice::Message { account: None, message });
    }

    /// For `status`.
    async fn note(&self, listens: Option<bool>) {
        let (settings, accounts) = (Arc::clone(&self.settings), self.accounts.clone());
        workers::run(move || {
            for account in accounts {
                let mut store = store::open(&settings, &account);
                store.update_note(|note: &mut FleetNote| note.listens = listens);
            }
        })
        .await;
    }
}
