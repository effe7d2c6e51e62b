//! Sends each new token to the push targets of an account. A failure concerns that target alone.

pub mod clients;
pub mod request;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, LocalSet};

use crate::account::context::{Context, Observer};
use crate::account::outputs::values;
use crate::account::sources::{proxy, read};
use crate::config::{AccountConfig, NoIdToken, Settings};
use crate::http::{HttpOptions, shown};
use crate::message::{Level, Message};
use crate::oauth::TransportFailure;
use crate::problem::chain;
use crate::push::clients::Clients;
use crate::push::request::PushRequest;
use crate::refresh::record::{AccessToken, Record};
use crate::runtime::event_loop;
use crate::secret::Fingerprint;
use crate::secrets::SecretError;
use crate::store;
use crate::store::lock::Supervision;
use crate::store::note::Note;
use crate::workers;

/// The target is near and only stores the token: an answer takes no longer than this.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The first wait between two tries, which then doubles ...
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// ... up to this: a target that comes back gets the token within a minute.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Why a target did not take the token.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    NoIdToken(#[from] NoIdToken),
    #[error("{0}")]
    Transport(TransportFailure),
    #[error("it answered HTTP {0}")]
    Status(u16),
}

impl PushError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Secret(error) => error.hint(),
            Self::NoIdToken(_) => Some(NoIdToken::HINT.into()),
            Self::Transport(_) => Some("check that the target is running there".into()),
            Self::Status(401 | 403) => Some("check that push.api_key is the key of the target".into()),
            Self::Status(300..=399) => {
                Some("redirects are not followed: set push.url to the new address".into())
            }
            Self::Status(_) => {
                Some("check push.url and push.body against the documentation of the target".into())
            }
        }
    }
}

/// The result of the last try, by target. For `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PushNote(pub BTreeMap<String, PushResult>);

impl Note for PushNote {
    const FILE: &'static str = "pushed";
}

impl PushNote {
    /// A result that comes late does not replace that of a newer token: the thread that notes it goes on
    /// when its task is stopped. After the loss of a state the numbers begin anew, and only the time counts.
    fn note(&mut self, target: String, result: PushResult) {
        match self.0.get(&target) {
            Some(last) if last.generation > result.generation && last.at >= result.at => {}
            _ => drop(self.0.insert(target, result)),
        }
    }
}

/// The last try for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResult {
    /// The number of the token.
    pub generation: u64,
    /// When, Unix seconds.
    pub at: i64,
    /// Why it failed; absent after a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl PushResult {
    /// Whether the target got the token of this number.
    pub fn has(&self, generation: u64) -> bool {
        self.problem.is_none() && self.generation == generation
    }
}

/// The push targets of one account.
#[derive(Debug)]
pub struct Pushes {
    account: Arc<AccountConfig>,
    settings: Arc<Settings>,
    /// The last token that was sent, or is being sent.
    newest: Option<Fingerprint>,
    /// The targets that failed last: only the first failure is a warning.
    failing: Rc<RefCell<HashSet<String>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Pushes {
    /// `None` without targets.
    pub fn new(settings: &Arc<Settings>, account: &Arc<AccountConfig>) -> Option<Box<Self>> {
        let (account, settings) = (Arc::clone(account), Arc::clone(settings));
        let has_targets = !account.push.is_empty();
        has_targets.then(|| {
            Box::new(Self { account, settings, newest: None, failing: Rc::default(), tasks: Vec::new() })
        })
    }

    /// Sends the token of the record, if it is a new one, and stops sending an older one.
    pub fn send(&mut self, record: Option<&Record>, clients: &Rc<Clients>, context: &Rc<Context>) {
        let Some(record) = record else { return };
        let Some(token) = &record.access_token else { return };
        let newest = Some(token.value.fingerprint());
        if self.newest == newest {
            return;
        }
        self.newest = newest;
        self.stop();
        for target in 0..self.account.push.len() {
            let push = PushTask {
                account: Arc::clone(&self.account),
                target,
                settings: Arc::clone(&self.settings),
                token: token.clone(),
                generation: record.generation,
                failing: Rc::clone(&self.failing),
                clients: Rc::clone(clients),
                once: false,
            };
            self.tasks.push(tokio::task::spawn_local(push.run(Rc::clone(context))));
        }
    }

    fn stop(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends each target the stored token that it lacks, one time: for a command that ends. Where `run`
/// supervises the account, that sends it.
pub fn send_lacking(
    settings: &Arc<Settings>,
    accounts: &[&Arc<AccountConfig>],
    observer: Rc<dyn Observer>,
) -> io::Result<()> {
    let context = Rc::new(Context::new(observer));
    let clients = Rc::new(Clients::default());
    let mut tasks = Vec::new();
    for account in accounts.iter().filter(|account| !account.push.is_empty()) {
        let mut store = store::open(settings, account);
        let is_supervised = matches!(store.supervision(), Ok(Supervision::Alive(_)));
        // The pass has reported a state that cannot be read.
        let record = store.load().ok().and_then(|stored| stored.into_parts().0);
        let Some(Record { generation, access_token: Some(token), .. }) = record.filter(|_| !is_supervised)
        else {
            continue;
        };
        let sent: PushNote = store.note();
        for (target, push) in account.push.iter().enumerate() {
            if sent.0.get(&shown(&push.url)).is_some_and(|last| last.has(generation)) {
                continue;
            }
            tasks.push(PushTask {
                account: Arc::clone(account),
                target,
                settings: Arc::clone(settings),
                token: token.clone(),
                generation,
                failing: Rc::default(),
                clients: Rc::clone(&clients),
                once: true,
            });
        }
    }
    if tasks.is_empty() {
        return Ok(());
    }
    let runtime = event_loop()?;
    LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> =
            tasks.into_iter().map(|task| tokio::task::spawn_local(task.run(Rc::clone(&context)))).collect();
        for task in tasks {
            // A panic aborts the process, and nothing cancels a task.
            let _ = task.await;
        }
    });
    // Do not wait for a DNS lookup that is still running.
    runtime.shutdown_background();
    Ok(())
}

/// One token on its way to one target.
struct PushTask {
    account: Arc<AccountConfig>,
    /// The index of the target.
    target: usize,
    settings: Arc<Settings>,
    token: AccessToken,
    generation: u64,
    failing: Rc<RefCell<HashSet<String>>>,
    clients: Rc<Clients>,
    /// Give up after one failure.
    once: bool,
}

impl PushTask {
    /// Ends when the target has the token or the token has expired.
    async fn run(self, context: Rc<Context>) {
        let mut wait = BACKOFF_FIRST;
        let target = shown(&self.account.push[self.target].url);
        while self.token.is_live(context.clock.now()) {
            let result = self.send(context.clock.now().wall / 1000).await;
            let problem = result.as_ref().err().map(|error| chain(error));
            let at = context.clock.now().wall / 1000;
            let note = PushResult { generation: self.generation, at, problem };
            let (mut store, noted) = (store::open(&self.settings, &self.account), target.clone());
            // Without the note, `status` shows no result.
            workers::run(move || store.update_note(|last: &mut PushNote| last.note(noted, note))).await;
            context.message(self.account.name.as_str(), &self.message(&target, result.as_ref().err()));
            if result.is_ok() || self.once {
                return;
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(BACKOFF_MAX);
        }
    }

    fn message(&self, target: &str, error: Option<&PushError>) -> Message {
        let mut failing = self.failing.borrow_mut();
        let Some(error) = error else {
            failing.remove(target);
            return Message::new(Level::Info, "pushed", format!("sent the token to {target}"));
        };
        let level = if failing.insert(target.to_owned()) { Level::Warn } else { Level::Debug };
        let text = format!("cannot send the token to {target}");
        let message = Message::new(level, "push_failed", text).cause(Some(&chain(error)));
        Message { hint: error.hint(), ..message }
    }

    /// `now` in Unix seconds.
    async fn send(&self, now: i64) -> Result<(), PushError> {
        let push = &self.account.push[self.target];
        let api_key = match &push.api_key {
            Some(source) => Some(read(&self.account, "push.api_key", source).await?),
            None => None,
        };
        let proxy = proxy(&self.account, &push.url).await?;
        let mut headers = Vec::new();
        for (name, source) in &push.headers {
            headers.push((name.clone(), read(&self.account, "push.headers", source).await?));
        }
        let values = values(&self.account, &self.token, now);
        let request = PushRequest::new(push, headers, api_key.as_ref(), &values)?;
        let sending = self.clients.begin();
        let endpoint = sending.endpoint(HttpOptions::new(&self.account, TIMEOUT, proxy));
        let (preparing, url) = (Arc::clone(&endpoint), request.url.clone());
        // It reads the root certificates.
        let prepared = workers::run(move || preparing.prepare(&url)).await;
        prepared.map_err(PushError::Transport)?;
        let _place = sending.place(&request.url).await;
        let reply = endpoint.send(request.method, &request.url, &request.headers, &request.body).await;
        match reply.map_err(PushError::Transport)?.status {
            200..=299 => Ok(()),
            status => Err(PushError::Status(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PushNote, PushResult};

    #[test]
    fn a_late_result_does_not_replace_that_of_a_newer_token() {
        let mut note = PushNote::default();
        let result = |generation, at| PushResult { generation, at, problem: None };
        let mut noted = |result: PushResult| {
            note.note("target".to_owned(), result);
            note.0["target"].clone()
        };
        assert_eq!(noted(result(2, 10)), result(2, 10));
        assert_eq!(noted(result(1, 10)), result(2, 10), "it was stopped, and comes late");
        assert_eq!(noted(result(2, 11)), result(2, 11), "another try");
        assert_eq!(noted(result(1, 12)), result(1, 12), "the state was lost, and the numbers begin anew");
    }
}
