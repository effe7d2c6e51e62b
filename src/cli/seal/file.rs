//! Files that `seal` writes: whole or not at all.

use std::path::Path;

use crate::files::{Attributes, FileError, Missing, PlaceError, Rules, Target, Temporary};
use crate::problem::Problem;

/// Replaces a file durably.
pub(super) fn replace(path: &Path, attributes: Attributes, bytes: &[u8]) -> Result<(), Problem> {
    let target = Target::resolve(path, &Rules::private(Missing::Refuse)).map_err(|error| of_place(&error))?;
    let mut temporary = Temporary::create(&target, attributes).map_err(|error| of_file(&error))?;
    temporary.write_all(bytes).and_then(|()| temporary.commit()).map_err(|error| of_file(&error))
}

pub(super) fn of_file(error: &FileError) -> Problem {
    Problem::new(error, error.class(), "file", error.hint())
}

fn of_place(error: &PlaceError) -> Problem {
    Problem::new(error, error.class(), "file", error.hint())
}
