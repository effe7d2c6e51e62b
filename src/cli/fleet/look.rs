//! The row of an account, and the copy of this machine.

use std::time::Duration;

use crate::account::files::load_state;
use crate::account::fleet::{APPLICATION, open};
use crate::clock::utc;
use crate::config::{AccountConfig, Settings};
use crate::message::{duration, local};
use crate::problem::{Problem, told};
use crate::refresh::fleet::{Ask, LoginRow, RowReply, RowView};
use crate::refresh::replica::Replica;
use crate::store;

/// The row of an account beside what this machine has, for `fleet status`.
pub(super) struct FleetLook {
    pub(super) headline: String,
    pub(super) facts: Vec<(&'static str, String)>,
}

pub(super) async fn look(settings: &Settings, account: &AccountConfig) -> Result<FleetLook, Problem> {
    let table = open(account).await?;
    let RowReply::Row(view) = table.ask(&Ask::Read).await? else {
        return Err(Problem::bug("the database gave no row"));
    };
    let hosts = table.hosts(APPLICATION).await?;
    let mut store = store::open(settings, account);
    let (account_name, config) = (account.name.as_str(), settings.path.to_string_lossy());
    let (record, _) = load_state(&mut store, account_name, &config)?.into_parts();
    let replica = record.as_ref().and_then(|record| record.replica.as_deref());
    let mut facts = Vec::new();
    let headline = match view.row.as_deref() {
        None => "the database has no row: the next refresh or login of a machine makes it".into(),
        Some(row) => {
            if row.content.secret.is_some() {
                facts.push(("claim", claim(row, &view)));
            }
            if let Some(verdict) = &row.result.verdict {
                facts.push(("refused", told(&verdict.message, verdict.cause.as_deref())));
            }
            if let Some(failure) = &row.result.failure {
                facts.push((
                    "failed",
                    format!(
                        "{}: {}",
                        local(failure.last_at.wall / 1000),
                        told(&failure.message, failure.cause.as_deref())
                    ),
                ));
            }
            headline(row, &view)
        }
    };
    facts.push((
        "this machine",
        replica.map_or_else(|| "has no copy yet".into(), |it| own(it, view.row.as_deref())),
    ));
    facts.push(("machines", if hosts.is_empty() { "none is connected".into() } else { hosts.join(", ") }));
    let timeline = if view.timeline == 0 { String::new() } else { format!(", timeline {}", view.timeline) };
    facts.push(("database", format!("{}{timeline}", table.place())));
    Ok(FleetLook { headline, facts })
}

fn headline(row: &LoginRow, view: &RowView) -> String {
    let there = &row.content;
    let (epoch, login) = (there.epoch, there.secret.as_ref().map(|secret| secret.login_at / 1000));
    let login = login.map(|at| format!(", login of {}", local(at))).unwrap_or_default();
    let Some(shared) = &there.token else {
        return format!("refresh {epoch}{login}: no access token");
    };
    let ends_at = there.issued_at.saturating_add_unsigned(shared.token.lifetime_ms);
    let left = ends_at.saturating_sub(view.server_time);
    let span = duration(Duration::from_millis(left.unsigned_abs()));
    let life = if left > 0 { format!("lives {span}") } else { format!("expired {span} ago") };
    format!("refresh {epoch}{login}: the token {life}")
}

fn claim(row: &LoginRow, view: &RowView) -> String {
    let Some(attempt) = &row.attempt else { return "none".into() };
    let at = utc(attempt.claimed_at / 1000);
    if attempt.claim_until > view.server_time {
        return format!("{} is refreshing since {at}", attempt.host);
    }
    format!("{} began to refresh at {at} and has not finished: its reply may be on its disk", attempt.host)
}

fn own(replica: &Replica, row: Option<&LoginRow>) -> String {
    let beside = match row {
        _ if replica.undelivered.is_some() => {
            ", which is on this disk alone: the database does not have it yet"
        }
        Some(row) if row.content.login != replica.login => ", of another login than the row",
        Some(row) if row.content.epoch > replica.epoch => ", which is older than the row",
        Some(row) if row.content.epoch < replica.epoch => {
            ", which is newer than the row: the next pass repairs it"
        }
        _ => "",
    };
    format!("{} has refresh {}{beside}", replica.host, replica.epoch)
}
