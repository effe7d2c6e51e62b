//! `zg-tokend demo`: shows the program at work, without a config and without network access.

mod ending;
mod error;
mod outage;
mod server_only;
mod setup;
mod show;

use crate::cli::args::Demo;
use crate::cli::demo::ending::Ending;
pub(super) use crate::cli::demo::error::DemoError;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::runtime::event_loop;

pub(super) fn execute(flags: &Demo) -> Exit {
    let ended = event_loop().map_err(DemoError::Setup).and_then(|runtime| {
        runtime.block_on(async {
            // First, so that no signal leaves files behind.
            let ending = Ending::new(flags.for_).map_err(DemoError::Setup)?;
            if flags.server_only {
                server_only::serve(flags.port, ending).await
            } else {
                show::show(flags, ending).await
            }
        })
    });
    ended.unwrap_or_else(|error| {
        output::failure(&error, error.hint().as_deref());
        Exit::Failure
    })
}
