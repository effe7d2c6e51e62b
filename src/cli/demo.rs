//! `zg-tokend demo`

use super::args::Demo;
use crate::exit::Exit;

/// Shows a token's life.
pub(super) fn demo(_flags: &Demo) -> Exit {
    Exit::Failure
}
