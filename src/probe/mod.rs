//! Sends the access token to a resource from time to time, to see whether it accepts the token. A
//! token that it refuses is reported as by a user.

pub mod rules;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::account::Account;
use crate::account::context::Context;
use crate::account::files::load_state;
use crate::account::sources::proxy;
use crate::clock::Timestamp;
use crate::config::{AccountConfig, AccountName, ProbeConfig, Settings};
use crate::http::{HttpEndpoint, HttpOptions, shown};
use crate::message::{Level, Message};
use crate::oauth::{FailureKind, Sent, TransportFailure};
use crate::probe::rules::{ProbeMeaning, ProbeNote, candidate, first_wait};
use crate::problem::chain;
use crate::refresh::Policy;
use crate::refresh::record::AccessToken;
use crate::secret::{Fingerprint, Secret};
use crate::secrets::SecretError;
use crate::store;
use crate::store::note::Note;
use crate::workers;

/// A resource that needs longer than this has no answer about the token.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The hint where each new token is refused.
pub const PROBE_REFUSED: &str = "check whether probe.url accepts such tokens: their scope, their audience";

/// Probes at the same time: each holds certificates, and none is urgent.
const PLACES: usize = 8;

/// The places that the probes of all accounts share.
pub fn places() -> Rc<Semaphore> {
    Rc::new(Semaphore::new(PLACES))
}

/// Reports that the resource of an account refuses a token, and completes after the pass.
pub type ReportRefusal = Rc<dyn Fn(&AccountName, Fingerprint) -> Pin<Box<dyn Future<Output = ()>>>>;

impl Note for Option<ProbeNote> {
    const FILE: &'static str = "probed";
}

/// The probes of one account.
#[derive(Debug)]
pub struct Probes {
    /// Until they begin.
    target: Option<Box<ProbeTarget>>,
    task: Option<JoinHandle<()>>,
}

impl Probes {
    /// `None` without a resource to probe.
    pub fn new(account: &Account) -> Option<Self> {
        let target = ProbeTarget {
            probe: account.configured().probe.clone()?,
            settings: Arc::clone(account.settings()),
            account: Arc::clone(account.configured()),
            policy: account.core().policy().clone(),
        };
        Some(Self { target: Some(Box::new(target)), task: None })
    }

    /// Begins, unless it has begun.
    pub fn begin(&mut self, places: &Rc<Semaphore>, report: &ReportRefusal, context: &Rc<Context>) {
        if let Some(target) = self.target.take() {
            let probes = run(Arc::from(target), Rc::clone(places), Rc::clone(report), Rc::clone(context));
            self.task = Some(tokio::task::spawn_local(probes));
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// The resource, and the account whose token it should accept.
#[derive(Debug)]
struct ProbeTarget {
    probe: ProbeConfig,
    settings: Arc<Settings>,
    account: Arc<AccountConfig>,
    policy: Policy,
}

/// One probe that is about to be sent.
struct Trial {
    token: AccessToken,
    generation: u64,
    last: Option<ProbeNote>,
    endpoint: HttpEndpoint,
    /// A failure, without root certificates for instance, is a probe without an answer.
    prepared: Result<(), TransportFailure>,
}

async fn run(target: Arc<ProbeTarget>, places: Rc<Semaphore>, report: ReportRefusal, context: Rc<Context>) {
    let mut wait = first_wait(target.probe.every, getrandom::u64().unwrap_or_default());
    loop {
        tokio::time::sleep(wait).await;
        wait = target.probe.every;
        if let Some(token) = probe(&target, &places, &context).await {
            report(&target.account.name, token).await;
        }
    }
}

/// Probes once, if there is a token to send. Returns the token if it is to be replaced.
async fn probe(target: &Arc<ProbeTarget>, places: &Semaphore, context: &Context) -> Option<Fingerprint> {
    // The semaphore is never closed.
    let _place = places.acquire().await.ok()?;
    let now = context.clock.now();
    let proxy = proxy(&target.account, &target.probe.url).await;
    let on_worker = Arc::clone(target);
    let trial = workers::run(move || on_worker.trial(now, proxy)).await?;
    let answer = match trial.prepared {
        Ok(()) => trial.endpoint.probe(&target.probe.url, &trial.token.value).await,
        Err(failure) => Err(failure),
    };
    let answer = answer.map_err(|failure| failure.to_string());
    let (url, at) = (shown(&target.probe.url), context.clock.now().wall / 1000);
    let (note, meaning) = ProbeNote::after(trial.last.as_ref(), &url, trial.generation, at, answer);
    context.message(target.account.name.as_str(), &message(&note, meaning));
    let mut store = store::open(&target.settings, &target.account);
    // Without the note, `status` shows no result.
    workers::run(move || store.update_note(|last| *last = Some(note))).await;
    (meaning == ProbeMeaning::Refused).then(|| trial.token.value.fingerprint())
}

fn message(note: &ProbeNote, meaning: ProbeMeaning) -> Message {
    let url = &note.url;
    let (level, text, hint) = match (meaning, note.status) {
        (ProbeMeaning::Refused, _) => (Level::Info, format!("{url} refuses the token; replacing it"), None),
        (ProbeMeaning::RefusedAgain { first }, _) => {
            let level = if first { Level::Warn } else { Level::Debug };
            (level, format!("{url} refuses the new token as well; keeping it"), Some(PROBE_REFUSED.into()))
        }
        (ProbeMeaning::Nothing, Some(status)) => {
            (Level::Debug, format!("{url} answers the probe with HTTP {status}"), None)
        }
        (ProbeMeaning::Nothing, None) => {
            let why = note.problem.as_deref().unwrap_or_default();
            (Level::Debug, format!("{url} does not answer the probe: {why}"), None)
        }
    };
    Message { hint, generation: Some(note.generation), ..Message::new(level, "probed", text) }
}

impl ProbeTarget {
    /// Another process may have refreshed: the token comes from the state.
    fn trial(&self, now: Timestamp, proxy: Result<Option<Secret>, SecretError>) -> Option<Trial> {
        let mut store = store::open(&self.settings, &self.account);
        let stored = load_state(&mut store, &self.policy.account, &self.policy.config).ok()?;
        let (record, _) = stored.into_parts();
        let (token, generation) = candidate(record?, &self.policy, now)?;
        let (proxy, unread) = match proxy {
            Ok(proxy) => (proxy, None),
            Err(error) => (None, Some(chain(&error))),
        };
        let endpoint = HttpEndpoint::new(HttpOptions::new(&self.account, TIMEOUT, proxy));
        let prepared = match unread {
            Some(detail) => Err(TransportFailure { sent: Sent::NotSent, kind: FailureKind::Proxy, detail }),
            None => endpoint.prepare(&self.probe.url),
        };
        Some(Trial { token, generation, last: store.note(), endpoint, prepared })
    }
}
