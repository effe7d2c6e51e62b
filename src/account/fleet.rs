//! One account's part in a fleet: reads the URL and the key, and puts the core's questions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::account::files::load_state;
use crate::account::sources::read;
use crate::cipher::StateKey;
use crate::clock::utc;
use crate::config::{AccountConfig, Settings};
use crate::http::client::tls_config;
use crate::http::failure::words;
use crate::message::{duration, local};
use crate::problem::{Problem, told};
use crate::refresh::fleet::{Ask, LoginRow, RowReply, RowView};
use crate::refresh::replica::{Replica, Role};
use crate::secret::Fingerprint;
use crate::store;
use crate::store::fleet::link::Link;
use crate::store::fleet::target;
use crate::store::fleet::{DatabaseRole, Table};
use crate::store::fleet_error::{DatabaseFault, FleetError};

/// The name of this program among the sessions of the database, before the name of the machine.
const APPLICATION: &str = "zg-tokend";

/// The table, while a pass needs it.
#[derive(Default)]
pub struct FleetAccess(Option<Table>);

impl std::fmt::Debug for FleetAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetAccess")
    }
}

impl FleetAccess {
    /// Reads what leads to the database, before anything is locked.
    pub async fn open(&mut self, account: &AccountConfig) -> Result<(), Problem> {
        self.0 = Some(open(account).await?);
        Ok(())
    }

    pub async fn ask(&mut self, account: &AccountConfig, ask: &Ask) -> Result<RowReply, Problem> {
        if self.0.is_none() {
            self.open(account).await?;
        }
        let table = self.0.as_ref().ok_or_else(|| Problem::bug("there is no database"))?;
        Ok(table.ask(ask).await?)
    }

    /// Wipes the key.
    pub fn close(&mut self) {
        self.0 = None;
    }
}

/// The table of this account.
pub async fn open(account: &AccountConfig) -> Result<Table, Problem> {
    let Some(fleet) = &account.fleet else { return Err(Problem::bug("there is no fleet")) };
    let key = match &fleet.key {
        Some(source) => {
            let key = read(account, "fleet.key", source).await?;
            Some(StateKey::new(key).map_err(FleetError::NotAKey)?)
        }
        None => None,
    };
    let link = link(account).await?;
    Ok(Table::new(link, account.name.as_str(), fleet.role, key))
}

/// The connection, which accounts with the same URL share.
pub async fn link(account: &AccountConfig) -> Result<Rc<Link>, Problem> {
    let Some(fleet) = &account.fleet else { return Err(Problem::bug("there is no fleet")) };
    let url = read(account, "fleet.url", &fleet.url).await?;
    let ca_file = account.ca_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let role = format!("{:?}", fleet.role);
    let id = Fingerprint::of([url.expose().as_bytes(), role.as_bytes(), ca_file.as_bytes()]);
    Ok(Link::open(id, words, || {
        let mut target = target::parse(&url, fleet.role)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        target.config.application_name(format!("{APPLICATION} {host}"));
        let ca_file = target.sslrootcert.clone().or_else(|| account.ca_file.clone());
        let tls = target.tls.then(|| tls_config(ca_file.as_deref())).transpose();
        let tls = tls.map_err(|failure| FleetError::Roots {
            path: ca_file.unwrap_or_default(),
            source: DatabaseFault { code: String::new(), message: failure.detail },
        })?;
        Ok((target, tls.map(Arc::new)))
    })?)
}

/// The row of an account beside what this machine has, for `fleet status`.
pub struct FleetLook {
    pub headline: String,
    pub facts: Vec<(&'static str, String)>,
}

pub async fn look(settings: &Settings, account: &AccountConfig) -> Result<FleetLook, Problem> {
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

/// The database that a URL names, for `check`.
pub fn parse(account: &AccountConfig, url: &crate::secret::Secret) -> Result<String, Problem> {
    let role = account.fleet.as_ref().map_or(Role::Refresh, |fleet| fleet.role);
    let target = target::parse(url, role)?;
    let tls = if target.tls { "TLS, certificate checked" } else { "this machine, without TLS" };
    Ok(format!("{} ({tls})", target.place))
}

/// The facts of a database that `check --live` judges.
pub struct DatabaseFacts {
    pub place: String,
    pub server_time: i64,
    pub about: DatabaseRole,
    /// A notification comes back to whoever sent it.
    pub echoes: bool,
}

/// Looks at the database. The row is read as a pass reads it.
pub async fn facts(account: &AccountConfig) -> Result<DatabaseFacts, Problem> {
    let table = open(account).await?;
    let RowReply::Row(view) = table.ask(&Ask::Read).await? else {
        return Err(Problem::bug("the database gave no row"));
    };
    let about = table.about().await?;
    let echoes = table.link().listen(&mut mpsc::unbounded_channel()).await?.is_some();
    Ok(DatabaseFacts { place: table.place().to_owned(), server_time: view.server_time, about, echoes })
}
