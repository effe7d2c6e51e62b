//! Whether this machine can share its login: URL and key; with the database, the primary, its settings and
//! privileges.

use std::time::Duration;

use crate::account::fleet::{self, DatabaseFacts};
use crate::check::finding::Finding;
use crate::check::inputs::secret;
use crate::cipher::StateKey;
use crate::clock::{Clock as _, SystemClock};
use crate::config::AccountConfig;
use crate::message::duration;
use crate::refresh::replica::Role;

/// The clocks may differ by this much before that is told: lives of tokens count by the clock of the database.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Without the network.
pub(super) fn fleet(account: &AccountConfig) -> Vec<Finding> {
    let Some(configured) = &account.fleet else { return Vec::new() };
    let (url, found) = secret(account, "fleet.url", &configured.url, false);
    let mut findings = vec![found];
    if let Some(parsed) = url.map(|url| fleet::parse(account, &url)) {
        findings.push(match parsed {
            Ok(place) => Finding::ok("fleet.url", place),
            Err(problem) => Finding::of_problem("fleet.url", problem),
        });
    }
    if let Some(source) = &configured.key {
        let (key, found) = secret(account, "fleet.key", source, false);
        findings.push(found);
        if let Some(Err(error)) = key.map(StateKey::new) {
            let hint = "make one: zg-tokend fleet key";
            findings.push(Finding::problem("fleet.key", error.to_string(), Some(hint.into())));
        }
    }
    findings
}

/// Asks the database. Nothing in it is changed.
pub(super) async fn live(account: &AccountConfig) -> Vec<Finding> {
    let Some(configured) = &account.fleet else { return Vec::new() };
    let facts = match fleet::facts(account).await {
        Ok(facts) => facts,
        Err(problem) => return vec![Finding::of_problem("fleet", problem)],
    };
    let mut findings =
        vec![Finding::ok("fleet", format!("the database {} answers, and has the table", facts.place))];
    findings.extend(durability(&facts));
    findings.extend(privileges(&facts, configured.role));
    if !facts.echoes {
        let hint =
            "connect past the pooler, or let it pool sessions: `run` reads the rows every 30 s meanwhile";
        findings.push(Finding::warning(
            "fleet",
            "no notification comes back: a pooler may swallow LISTEN",
            hint,
        ));
    }
    let here = SystemClock::new().now().wall;
    let apart = Duration::from_millis(here.abs_diff(facts.server_time));
    if apart > CLOCK_TOLERANCE {
        let direction = if here > facts.server_time { "ahead of" } else { "behind" };
        let message = format!("the clock here is {} {direction} the database's", duration(apart));
        findings.push(Finding::warning("clock", message, "set the clock: date, timedatectl"));
    }
    findings
}

/// The losses that a crash or a failover of the database may cause.
fn durability(facts: &DatabaseFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.about.setting("fsync") == "off" {
        let hint = "set fsync = on in postgresql.conf";
        let message = "the database has fsync off: a power cut may destroy the row";
        findings.push(Finding::problem("fleet", message, Some(hint.into())));
    }
    if facts.about.setting("full_page_writes") == "off" {
        let message = "the database has full_page_writes off: a power cut may destroy the row";
        findings.push(Finding::warning("fleet", message, "set full_page_writes = on in postgresql.conf"));
    }
    findings.push(match facts.about.setting("synchronous_standby_names") {
        "" => Finding::ok(
            "fleet",
            "no synchronous standby: a failover may lose the last refreshes, and the machines repair the row from \
             their disks; while two primaries run, two machines may refresh at once",
        ),
        names => Finding::ok(
            "fleet",
            format!("each write waits for a synchronous standby ({names}): a failover loses nothing"),
        ),
    });
    findings
}

fn privileges(facts: &DatabaseFacts, role: Role) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.about.is_superuser {
        let message = format!("{} is a superuser of the database", facts.about.user);
        findings.push(Finding::warning("fleet", message, "use a role of its own: zg-tokend fleet sql"));
    } else if role == Role::Read && (facts.about.reads_secret || facts.about.writes) {
        let what = if facts.about.reads_secret {
            "can read the sealed refresh token"
        } else {
            "can change the rows"
        };
        let message = format!("{} {what}, and this machine only reads the access token", facts.about.user);
        findings.push(Finding::warning("fleet", message, "use the role zg_read: zg-tokend fleet sql"));
    }
    if role == Role::Refresh && !facts.about.writes {
        let message = format!("{} may not change the rows", facts.about.user);
        let hint = "grant what `zg-tokend fleet sql` prints";
        findings.push(Finding::problem("fleet", message, Some(hint.into())));
    }
    findings
}
