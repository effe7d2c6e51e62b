//! One account's part in a fleet: reads the URL and the key, and puts the core's questions.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::account::sources::read;
use crate::cipher::StateKey;
use crate::config::AccountConfig;
use crate::http::client::tls_config;
use crate::http::failure::words;
use crate::problem::Problem;
use crate::refresh::fleet::{Ask, RowReply};
use crate::refresh::replica::Role;
use crate::secret::Fingerprint;
use crate::store::fleet::link::Link;
// The daemon takes these from here, so that it knows no database.
pub use crate::store::fleet::link::{ECHO_PREFIX, News, REFUSED};
use crate::store::fleet::{DatabaseRole, Table, target};
use crate::store::fleet_error::{DatabaseFault, FleetError};

/// The name of this program among the sessions of the database, before the name of the machine.
pub const APPLICATION: &str = "zg-tokend";

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
