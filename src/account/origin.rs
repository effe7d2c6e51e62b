//! The note on a token file: the login that its token comes from. It shows that a state went missing, or
//! back in time, before an old refresh token is sent: that could end the login.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::token_file::Observation;
use crate::config::{AccountConfig, Settings};
use crate::files::mark;
use crate::refresh::decide::Origin;
use crate::refresh::record::Record;
use crate::secret::{Fingerprint, Secret};

/// The kernel stamps files by a clock that is up to a tick late, in milliseconds.
const COARSE: i64 = 20;

#[derive(Debug, Serialize, Deserialize)]
struct OriginNote {
    account: String,
    /// The account that has the login, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<String>,
    generation: u64,
    /// The last seed that the state lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<Fingerprint>,
    /// The refresh token to send next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Fingerprint>,
    /// The SHA-256 of the file: another program may have written into it since.
    sha256: Fingerprint,
}

/// The origin of the tokens of a record.
pub fn of_record(record: &Record) -> Origin {
    Origin {
        generation: record.generation,
        seed: record.seeds.last().copied(),
        refresh_token: record.refresh_token.as_ref().map(|token| token.value.fingerprint()),
    }
}

/// The note for a token file with this content.
pub fn note(account: &AccountConfig, origin: Origin, content: &Secret) -> String {
    let Origin { generation, seed, refresh_token } = origin;
    let note = OriginNote {
        account: account.name.to_string(),
        login: account.from.as_ref().map(ToString::to_string),
        generation,
        seed,
        refresh_token,
        sha256: content.fingerprint(),
    };
    // Strings and numbers always encode.
    serde_json::to_string(&note).unwrap_or_default()
}

/// The origin of the token in the file, if that is newer than all that the state knows: `None` where
/// another program wrote the file, where an answer could not be stored, or where the login began later.
/// `generation` is that of this account's token in the state.
pub fn ahead(
    account: &AccountConfig,
    seen: &Observation,
    record: Option<&Record>,
    generation: u64,
) -> Option<Origin> {
    let Observation::Holds { fingerprint, modified_at } = seen else { return None };
    let note: OriginNote = serde_json::from_str(&mark::of_path(&account.token_file.path)?).ok()?;
    let is_of_account = note.account == account.name.as_str()
        && note.login.as_deref().unwrap_or(&note.account) == account.login_account().as_str();
    let is_ahead = record.is_none_or(|record| {
        let began = record.refresh_token.as_ref().map_or(i64::MIN, |token| token.seeded_at.wall);
        generation < note.generation && record.in_flight.is_none() && began <= *modified_at + COARSE
    });
    let OriginNote { generation, seed, refresh_token, sha256, .. } = note;
    (is_of_account && sha256 == *fingerprint && is_ahead).then_some(Origin {
        generation,
        seed,
        refresh_token,
    })
}

/// The token files of the other accounts of the login. To be looked at before the state is read: a token is
/// stored before it is published.
pub fn observe_mates<'a>(
    settings: &'a Settings,
    account: &AccountConfig,
) -> Vec<(&'a Arc<AccountConfig>, Observation)> {
    settings.login_mates(account).map(|mate| (mate, mate.token_file.observe())).collect()
}

/// As [`ahead`], of the other accounts of the login: with a token of any of them the refresh token was
/// replaced.
pub fn ahead_of_mates(
    mates: &[(&Arc<AccountConfig>, Observation)],
    record: Option<&Record>,
) -> Option<Origin> {
    mates.iter().find_map(|(mate, seen)| {
        let user = mate.from.is_some().then(|| mate.name.as_str());
        let generation = record.map_or(0, |record| record.generation_of(user));
        ahead(mate, seen, record, generation)
    })
}
