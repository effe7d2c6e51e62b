//! The row that several machines share, as it was last seen: for `status`.

use serde::{Deserialize, Serialize};

#[cfg(feature = "fleet")]
use crate::refresh::fleet::{LoginRow, RowReply};
use crate::store::note::Note;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetNote {
    /// When the row was last seen, in Unix seconds.
    #[serde(default)]
    pub seen_at: Option<i64>,
    /// Its epoch; `None` if there was no row.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// The machine that had claimed it.
    #[serde(default)]
    pub claimed_by: Option<String>,
    /// Why it could not be seen the last time.
    #[serde(default)]
    pub problem: Option<String>,
    /// The next step then.
    #[serde(default)]
    pub hint: Option<String>,
    /// The reason why a refresh that is due waits, with the next step.
    #[serde(default)]
    pub waits: Option<(String, String)>,
    /// Whether notifications reach this machine; `None` where no `run` listens.
    #[serde(default)]
    pub listens: Option<bool>,
}

impl Note for FleetNote {
    const FILE: &'static str = "fleet";
}

#[cfg(feature = "fleet")]
impl FleetNote {
    /// Notes an answer of the database, at this time in Unix seconds.
    pub fn see(&mut self, reply: &RowReply, at: i64) {
        (self.problem, self.hint) = (None, None);
        self.seen_at = Some(at);
        if let RowReply::Row(view) = reply {
            let row: Option<&LoginRow> = view.row.as_deref();
            self.epoch = row.map(|row| row.content.epoch);
            self.claimed_by = row.and_then(|row| row.attempt.as_ref()).map(|attempt| attempt.host.clone());
        }
    }
}
