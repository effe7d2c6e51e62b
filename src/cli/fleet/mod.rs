//! `zg-tokend fleet`

#[cfg(feature = "fleet")]
mod look;

use crate::cipher::StateKey;
use crate::cli::args::{Args, Fleet, FleetCommand};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::problem::Problem;

/// The table and the privileges. The program itself creates nothing in a database.
const SQL: &str = include_str!("../../../packaging/fleet.sql");

pub(super) fn execute(args: &Args, flags: &Fleet) -> Exit {
    match flags.command {
        FleetCommand::Sql => print(SQL),
        FleetCommand::Key => {
            if let Ok(key) = StateKey::random() {
                return print(key.expose());
            }
            let problem = Problem::no_random();
            output::error(&problem.message, problem.hint.as_deref());
            Exit::Failure
        }
        FleetCommand::Status => status(args),
    }
}

fn print(text: &str) -> Exit {
    if output::print(text.trim_end()) { Exit::Success } else { Exit::Io }
}

#[cfg(not(feature = "fleet"))]
fn status(_: &Args) -> Exit {
    output::error(
        "this zg-tokend was built without the fleet",
        Some("install the package of zg-tokend, or build it with `cargo build --release --features fleet`"),
    );
    Exit::Config
}

#[cfg(feature = "fleet")]
fn status(args: &Args) -> Exit {
    use crate::cli::fleet::look::look;
    use crate::cli::settings::{report, settings};
    use crate::runtime::event_loop;

    let Some(settings) = settings(args) else { return Exit::Config };
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => return output::no_event_loop(&error),
    };
    let chosen: Vec<_> = settings.chosen(args.common.account.as_deref()).collect();
    let shared: Vec<_> = chosen.iter().filter(|account| account.fleet.is_some()).collect();
    if shared.is_empty() {
        let hint = "add [fleet] to the config: `zg-tokend man config` describes it";
        output::error("no account shares its login with other machines", Some(hint));
        return Exit::Config;
    }
    let mut exit = Exit::Success;
    for account in shared {
        match runtime.block_on(look(&settings, account)) {
            Ok(lines) => {
                output::print_line(format!("{}: {}", account.name, lines.headline));
                for (name, value) in lines.facts {
                    output::print_line(format!("  {name:<14}{value}"));
                }
            }
            Err(problem) => exit = report(account, &problem),
        }
    }
    runtime.shutdown_background();
    exit
}
