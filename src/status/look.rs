//! One look at an account: its files, its lock and its notes.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::account::HangNote;
use crate::account::certificates::read_certificate;
use crate::account::files::{load_state, with_mates};
use crate::account::fleet_note::FleetNote;
use crate::account::origin::observe_mates;
use crate::account::outputs::{matches, other};
use crate::account::token_file::{Observation, PublishError};
use crate::config::{self, AccountConfig, Settings};
use crate::probe::rules::ProbeNote;
use crate::problem::Problem;
use crate::push::PushNote;
use crate::refresh::Policy;
use crate::refresh::decide::{FileView, Loaded};
use crate::refresh::record::Record;
use crate::signing::certificate::Certificate;
use crate::store::lock::Supervision;
use crate::store::state::Store;

/// The result of one look. Files that hang and notes of features that are not configured are not read.
pub struct Look {
    pub loaded: Result<Loaded, Problem>,
    pub file: Observation,
    /// Why the file cannot be replaced, if that shows.
    pub obstacle: Option<PublishError>,
    /// The outputs; none if the files hang.
    pub outputs: Vec<Observation>,
    pub supervision: Supervision,
    /// When the config was changed last, Unix milliseconds; looked at only after a refusal.
    pub config_changed_at: Option<i64>,
    /// Since when the supervisor waits for the files, Unix seconds.
    pub hangs: Option<i64>,
    /// Another process holds the refresh lock; looked at only if a request is under way.
    pub is_locked: bool,
    /// The certificates, each with its key in the config.
    pub certificates: Vec<(&'static str, PathBuf, Result<Certificate, Problem>)>,
    pub pushed: PushNote,
    pub probed: Option<ProbeNote>,
    pub fleet: FleetNote,
}

/// How often an account is looked at that seems to be amid a refresh, and the pause in between: a second
/// in all, and a refresh needs milliseconds for what follows its answer.
const LOOKS: u32 = 50;
/// See [`LOOKS`].
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Looks until what it sees is of one moment. A refresh stores its answer and then publishes it: between
/// the two, or between two reads here, a file that is in order looks stale, and a request that was
/// answered looks lost.
pub fn look(settings: &Settings, policy: &Policy, mut store: Store, account: &AccountConfig) -> Look {
    let mut seen = look_once(settings, policy, &mut store, account);
    for _ in 0..LOOKS {
        let loaded = match &seen.loaded {
            Ok(loaded) if seen.hangs.is_none() => loaded,
            _ => break,
        };
        let is_in_flight = loaded.record.as_ref().is_some_and(|record| record.in_flight.is_some());
        let outputs = account.outputs.iter().zip(&seen.outputs);
        let token = loaded.record.as_ref().and_then(|record| record.access_token.as_ref());
        let are_current = token.is_none_or(|token| {
            matches!(loaded.file, FileView::Current)
                && outputs.into_iter().all(|(output, seen)| matches(account, &output.format, token, seen))
        });
        let is_of_one_moment = if is_in_flight { seen.is_locked } else { are_current };
        if is_of_one_moment {
            break;
        }
        // A refresh that is at this point ends within the time of some writes.
        let is_locked = store.is_locked().unwrap_or(false);
        if is_locked {
            thread::sleep(LOOK_PAUSE);
        }
        let next = look_once(settings, policy, &mut store, account);
        let record = |look: &Look| look.loaded.as_ref().ok().and_then(|loaded| loaded.record.clone());
        let is_same = !is_locked && record(&next) == record(&seen) && next.file.is_same(&seen.file);
        seen = next;
        if is_same {
            break;
        }
    }
    seen
}

fn look_once(settings: &Settings, policy: &Policy, store: &mut Store, account: &AccountConfig) -> Look {
    let supervision = store.supervision().unwrap_or(Supervision::None);
    let hangs = match &supervision {
        Supervision::Alive(Some(supervisor)) => {
            let note: HangNote = store.note();
            note.since.filter(|_| note.pid == Some(supervisor.pid))
        }
        _ => None,
    };
    // A file that hangs would hang `status` as well.
    let (file, obstacle, outputs) = match hangs {
        Some(_) => (Observation::Missing, None, Vec::new()),
        None => (
            account.token_file.observe(),
            account.token_file.obstacle(),
            account.outputs.iter().map(|output| output.file.observe()).collect(),
        ),
    };
    let mates = if hangs.is_some() { Vec::new() } else { observe_mates(settings, account) };
    let loaded = load_state(store, &policy.account, &policy.config).map(|stored| {
        let (record, garbage) = stored.into_parts();
        let own = view(&file, account, record.as_ref(), garbage.is_some());
        let file = with_mates(&mates, record.as_ref(), garbage.is_some(), own);
        Loaded { record, garbage, file }
    });
    let record = loaded.as_ref().ok().and_then(|loaded| loaded.record.as_ref());
    let is_in_flight = record.is_some_and(|record| record.in_flight.is_some());
    let is_refused = record.is_some_and(|record| record.verdict.is_some());
    Look {
        config_changed_at: is_refused.then(|| config::changed_at(settings)).flatten(),
        is_locked: is_in_flight && store.is_locked().unwrap_or(false),
        certificates: account
            .grant
            .certificates()
            .filter(|_| hangs.is_none())
            .map(|(key, path)| (key, path.clone(), read_certificate(key, path).map(|(_, found)| found)))
            .collect(),
        pushed: if account.push.is_empty() { PushNote::default() } else { store.note() },
        probed: account.probe.as_ref().and_then(|_| store.note()),
        fleet: account.fleet.as_ref().map(|_| store.note()).unwrap_or_default(),
        loaded,
        file,
        obstacle,
        outputs,
        supervision,
        hangs,
    }
}

/// The token file beside the token of the record. Without the info file, which `status` does not judge.
fn view(file: &Observation, account: &AccountConfig, record: Option<&Record>, garbage: bool) -> FileView {
    let token = record.and_then(|record| record.access_token.as_ref());
    let is_current = token.is_some_and(|token| matches(account, &account.token_format, token, file));
    if is_current { FileView::Current } else { other(account, file, record, garbage) }
}
