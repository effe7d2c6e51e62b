//! One account's part in a fleet: reads the URL and the key, and puts the core's questions.

use std::sync::Arc;

use crate::account::sources::read;
use crate::cipher::StateKey;
use crate::config::AccountConfig;
use crate::http::client::tls_config;
use crate::problem::Problem;
use crate::refresh::fleet::{Ask, Reply};
use crate::secret::Fingerprint;
use crate::store::fleet::Table;
use crate::store::fleet::error::FleetError;
use crate::store::fleet::link::Link;
use crate::store::fleet::target;
use std::rc::Rc;

/// The table, while a pass needs it.
#[derive(Default)]
pub struct Fleet(Option<Table>);

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fleet")
    }
}

impl Fleet {
    /// Reads what leads to the database, before anything is locked.
    pub async fn open(&mut self, account: &AccountConfig) -> Result<(), Problem> {
        self.0 = Some(open(account).await?);
        Ok(())
    }

    pub async fn ask(&mut self, account: &AccountConfig, ask: &Ask) -> Result<Reply, Problem> {
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
    Ok(Link::open(id, || {
        let target = target::parse(&url, fleet.role)?;
        let ca_file = target.sslrootcert.clone().or_else(|| account.ca_file.clone());
        let tls = target.tls.then(|| tls_config(ca_file.as_deref())).transpose();
        let tls = tls.map_err(|failure| FleetError::Roots {
            path: ca_file.unwrap_or_default(),
            why: failure.detail,
        })?;
        Ok((target, tls.map(Arc::new)))
    })?)
}
