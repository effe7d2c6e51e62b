//! Asks the resource of an account now and then whether it takes the token, beside everything
//! else. A token that it refuses is reported as by anybody else.

pub mod rules;
#[cfg(test)]
mod tests;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::account::Account;
use crate::account::context::Context;
use crate::account::files::check_owner;
use crate::clock::Timestamp;
use crate::config;
use crate::http::{HttpEndpoint, HttpOptions, shown};
use crate::message::{Level, Message};
use crate::oauth::TransportFailure;
use crate::probe::rules::{ProbeMeaning, Probed, candidate, first_in};
use crate::refresh::Policy;
use crate::refresh::record::AccessToken;
use crate::secret::Fingerprint;
use crate::store::note::Note;
use crate::store::state::{Store, Stored};
use crate::workers;
use std::pin::Pin;

/// How long one probe may take: a resource that thinks for longer has no answer about the token.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The way out where each new token is refused.
pub const PROBE_REFUSED: &str = "see whether probe.url wants such tokens at all: their scope, their audience";

/// Probes at the same time: each holds certificates, and none is urgent.
const PLACES: usize = 8;

/// The places that the probes of all accounts share.
pub fn places() -> Rc<Semaphore> {
    Rc::new(Semaphore::new(PLACES))
}

/// Reports that the resource of an account refuses a token, and completes when that was dealt with.
pub type ReportRefusal = Rc<dyn Fn(&str, Fingerprint) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Nothing before the first probe.
impl Note for Option<Probed> {
    const FILE: &'static str = "probed";
}

/// The probes of one account.
#[derive(Debug)]
pub struct Probing {
    /// Until they begin.
    target: Option<Box<ProbeTarget>>,
    at_work: Option<JoinHandle<()>>,
}

impl Probing {
    /// Nothing is asked yet.
    pub fn new(account: &Account) -> Self {
        let (settings, policy, account) = (account.settings(), account.core().policy(), account.configured());
        let target = account.probe.as_ref().map(|probe| {
            Box::new(ProbeTarget {
                probe: probe.clone(),
                shown: shown(&probe.url),
                ca_file: account.ca_file.clone(),
                allow_http: account.allow_http,
                policy: policy.clone(),
                state_dir: settings.state_dir.clone(),
            })
        });
        Self { target, at_work: None }
    }

    /// Begins, if there is something to ask and it has not begun.
    pub fn begin(&mut self, places: &Rc<Semaphore>, report: &ReportRefusal, context: &Rc<Context>) {
        if let Some(target) = self.target.take() {
            let work = probe(Arc::from(target), Rc::clone(places), Rc::clone(report), Rc::clone(context));
            self.at_work = Some(tokio::task::spawn_local(work));
        }
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.at_work.iter().for_each(JoinHandle::abort);
    }
}

/// The resource that is probed, and the rules.
#[derive(Debug)]
struct ProbeTarget {
    probe: config::ProbeConfig,
    shown: String,
    ca_file: Option<PathBuf>,
    allow_http: bool,
    policy: Policy,
    state_dir: PathBuf,
}

/// A token, and what it takes to try it.
struct Trial {
    token: AccessToken,
    generation: u64,
    /// The note of the last probe.
    last: Option<Probed>,
    endpoint: HttpEndpoint,
    /// Without root certificates, for instance, nothing can be asked.
    prepared: Result<(), TransportFailure>,
}

async fn probe(target: Arc<ProbeTarget>, places: Rc<Semaphore>, report: ReportRefusal, context: Rc<Context>) {
    let mut wait = first_in(target.probe.every, getrandom::u64().unwrap_or_default());
    loop {
        tokio::time::sleep(wait).await;
        wait = target.probe.every;
        if let Some(token) = refused(&target, &places, &context).await {
            report(&target.policy.account, token).await;
        }
    }
}

/// Tries the token, if there is one to try; gives it if it is to be replaced.
async fn refused(target: &Arc<ProbeTarget>, places: &Semaphore, context: &Context) -> Option<Fingerprint> {
    // The semaphore is never closed.
    let _place = places.acquire().await.ok()?;
    let now = context.clock.now();
    let trial = elsewhere(target, move |target| target.trial(now)).await?;
    let answer = match trial.prepared {
        Ok(()) => trial.endpoint.probe(&target.probe.url, &trial.token.value).await,
        Err(failure) => Err(failure),
    };
    let answer = answer.map_err(|failure| failure.to_string());
    let at = context.clock.now().wall / 1000;
    let (probed, meaning) = Probed::after(trial.last.as_ref(), &target.shown, trial.generation, at, answer);
    context.message(&target.policy.account, &message(&probed, meaning));
    // Without the note status knows less.
    elsewhere(target, move |target| target.store().update_note(|last| *last = Some(probed))).await;
    (meaning == ProbeMeaning::Refused).then(|| trial.token.value.fingerprint())
}

fn message(probed: &Probed, meaning: ProbeMeaning) -> Message {
    let url = &probed.url;
    let (level, text, hint) = match (meaning, probed.status) {
        (ProbeMeaning::Refused, _) => (Level::Info, format!("{url} refuses the token; replacing it"), None),
        (ProbeMeaning::RefusedToo { first }, _) => {
            let level = if first { Level::Warn } else { Level::Debug };
            (level, format!("{url} refuses the new token as well; keeping it"), Some(PROBE_REFUSED.into()))
        }
        (ProbeMeaning::Nothing, Some(status)) => {
            (Level::Debug, format!("{url} answers the probe with HTTP {status}"), None)
        }
        (ProbeMeaning::Nothing, None) => {
            let why = probed.problem.as_deref().unwrap_or_default();
            (Level::Debug, format!("{url} does not answer the probe: {why}"), None)
        }
    };
    Message { hint, generation: Some(probed.generation), ..Message::new(level, "probed", text) }
}

/// File work, for which the loop must not wait.
async fn elsewhere<T: Send + 'static>(
    target: &Arc<ProbeTarget>,
    work: impl FnOnce(&ProbeTarget) -> T + Send + 'static,
) -> T {
    let target = Arc::clone(target);
    workers::run(move || work(&target)).await
}

impl ProbeTarget {
    fn store(&self) -> Store {
        Store::new(&self.state_dir, &self.policy.account)
    }

    /// The token to try now, if any. Another process may have refreshed: the state knows.
    fn trial(&self, now: Timestamp) -> Option<Trial> {
        let mut store = self.store();
        let Ok(Stored::Record(record)) = store.load() else { return None };
        check_owner(&record, &self.policy.account, &self.policy.config).ok()?;
        let (token, generation) = candidate(*record, &self.policy, now)?;
        let (timeout, ca_file, allow_http) = (TIMEOUT, self.ca_file.clone(), self.allow_http);
        let endpoint = HttpEndpoint::new(HttpOptions { timeout, ca_file, allow_http });
        let prepared = endpoint.prepare(&self.probe.url);
        Some(Trial { token, generation, last: store.note(), endpoint, prepared })
    }
}
