//! The bytes of the state file.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::refresh::record::{Record, VERSION};
use crate::store::seal;

/// The content of the state file.
#[derive(Debug)]
pub enum Stored {
    /// No file: the first run.
    Nothing,
    /// The state.
    Record(Box<Record>),
    /// Something that is not a state, and why.
    Garbage(String),
}

impl Stored {
    /// The record; or why the state is damaged.
    pub fn into_parts(self) -> (Option<Record>, Option<String>) {
        match self {
            Self::Nothing => (None, None),
            Self::Record(record) => (Some(*record), None),
            Self::Garbage(why) => (None, Some(why)),
        }
    }
}

/// Reads a state's bytes; the error is the version of a state that is too new.
pub fn parse(bytes: &[u8]) -> Result<Stored, u64> {
    #[derive(Deserialize)]
    struct Head {
        version: u64,
    }
    // An error of serde about a wrong value shows the value, which may be a token: only the place.
    let garbage = |error: serde_json::Error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Stored::Garbage(match error.classify() {
            _ if bytes.trim_ascii().is_empty() => "is empty".into(),
            Category::Eof => format!("breaks off in {place}"),
            Category::Data => format!("is not a state of zg-tokend ({place})"),
            _ => format!("is not valid JSON ({place})"),
        })
    };
    match serde_json::from_slice::<Box<Record>>(bytes) {
        Ok(mut record) if record.version <= VERSION => {
            seal::note_places(&mut record);
            Ok(Stored::Record(record))
        }
        Ok(record) => Err(record.version.into()),
        // It may be no state at all, or one with members that this program does not know.
        Err(error) => match serde_json::from_slice::<Head>(bytes) {
            Ok(head) if head.version > u64::from(VERSION) => Err(head.version),
            _ => Ok(garbage(error)),
        },
    }
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of a state.
pub(super) fn encode(record: &Record) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a vector that grows leaves unwiped copies behind. Counted before, since
    // more room is more to wipe.
    let mut length = Length(1);
    serde_json::to_writer_pretty(&mut length, record)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer_pretty(&mut *bytes, record)?;
    bytes.push(b'\n');
    Ok(bytes)
}
