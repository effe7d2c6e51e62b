//! Whether the programs of hooks exist, without running them.

use std::collections::HashSet;
use std::path::Path;

use crate::check::finding::Finding;
use crate::config::{AccountConfig, HooksConfig};
use crate::process;

/// Where systemd looks for a program (systemd.exec(5)); cron looks in less.
const SERVICES_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Each program once for all accounts.
pub(super) fn hooks(account: &AccountConfig, known: &mut HashSet<(&'static str, String)>) -> Vec<Finding> {
    let HooksConfig { on_refresh, on_failure, on_recovery, on_needs_login } = &account.hooks;
    let hooks = [
        ("on_refresh", on_refresh),
        ("on_failure", on_failure),
        ("on_recovery", on_recovery),
        ("on_needs_login", on_needs_login),
    ];
    let programs = hooks.into_iter().filter_map(|(key, argv)| Some((key, argv.first()?)));
    let new = programs.filter(|(key, program)| known.insert((key, (*program).clone())));
    new.map(|(key, program)| hook(key, program)).collect()
}

fn hook(key: &'static str, program: &str) -> Finding {
    let found = match process::find(program) {
        Ok(found) => found,
        Err(error) => return Finding::error(key, &error, Some(error.hint())),
    };
    let directory = found.parent().unwrap_or(Path::new(""));
    let everywhere = program.contains('/') || SERVICES_PATH.iter().any(|known| directory == Path::new(known));
    if everywhere {
        return Finding::ok(key, format!("runs {}", found.display()));
    }
    let message = format!("runs {}, which a service or cron job may not find", found.display());
    Finding::warning(key, message, format!("write the full path: {}", found.display()))
}
