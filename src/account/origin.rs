//! The note on a token file: the login that its token comes from. It shows that a state went missing, or
//! back in time, before an old refresh token is sent: that could end the login.

use serde::{Deserialize, Serialize};

use crate::account::token_file::Observation;
use crate::config::TokenFile;
use crate::files::mark;
use crate::refresh::decide::Origin;
use crate::refresh::record::Record;
use crate::secret::{Fingerprint, Secret};

#[derive(Debug, Serialize, Deserialize)]
struct OriginNote {
    account: String,
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
pub fn note(account: &str, origin: Origin, content: &Secret) -> String {
    let Origin { generation, seed, refresh_token } = origin;
    let sha256 = content.fingerprint();
    let note = OriginNote { account: account.to_owned(), generation, seed, refresh_token, sha256 };
    // Strings and numbers always encode.
    serde_json::to_string(&note).unwrap_or_default()
}

/// The origin of the token in the file, if that is newer than all that the state knows: `None` where
/// another program wrote the file, or where an answer could not be stored.
pub fn ahead(account: &str, file: &TokenFile, seen: &Observation, record: Option<&Record>) -> Option<Origin> {
    let Observation::Holds { fingerprint, .. } = seen else { return None };
    let note: OriginNote = serde_json::from_str(&mark::of_path(&file.path)?).ok()?;
    let is_ahead =
        record.is_none_or(|record| record.generation < note.generation && record.in_flight.is_none());
    let OriginNote { generation, seed, refresh_token, sha256, .. } = note;
    (note.account == account && sha256 == *fingerprint && is_ahead).then_some(Origin {
        generation,
        seed,
        refresh_token,
    })
}
