//! PostgreSQL as the store that several machines share: puts the questions of `refresh::fleet` to it.
//!
//! One connection per database and process serves all accounts, one question at a time, and listens for
//! changes while `run` supervises. The program creates nothing in the database; packaging/fleet.sql is for the
//! administrator.

pub mod link;
pub mod sql;
pub mod target;

use std::error::Error;
use std::rc::Rc;

use tokio_postgres::types::{ToSql, Type, WrongType};

use crate::cipher::{NoRandom, StateKey};
use crate::oauth::fault_of;
use crate::refresh::fleet::{
    Ask, CLAIM_LIFE, Fence, LoginPart, LoginRow, RowAttempt, RowContent, RowReply, RowResult, RowView,
    SharedToken,
};
use crate::refresh::replica::Role;
use crate::secret::Fingerprint;
use crate::store::fleet::link::{Link, Write};
use crate::store::fleet_error::FleetError;

/// The format, for the binding of a seal.
const FORMAT: &str = "zg-tokend fleet 1";

/// The row of one account in a database.
pub struct Table {
    link: Rc<Link>,
    account: String,
    role: Role,
    key: Option<StateKey>,
}

/// The role in the database, and the settings of the server.
pub struct DatabaseRole {
    pub user: String,
    pub is_superuser: bool,
    pub reads_secret: bool,
    pub writes: bool,
    settings: Vec<(String, String)>,
}

impl DatabaseRole {
    /// A setting of the server; empty if it is not known.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

type Param<'a> = (&'a (dyn ToSql + Sync), Type);

impl Table {
    pub fn new(link: Rc<Link>, account: &str, role: Role, key: Option<StateKey>) -> Self {
        Self { link, account: account.to_owned(), role, key }
    }

    /// Puts a question. An error means that nothing was changed.
    pub async fn ask(&self, ask: &Ask) -> Result<RowReply, FleetError> {
        let account = &self.account;
        let claim_life = CLAIM_LIFE.as_secs() as i64;
        match ask {
            Ask::Read => self.read().await,
            Ask::Claim { fence, seen, nonce, host } => {
                let held = bytes(fence.held);
                let epoch = fence.epoch as i64;
                self.write(
                    sql::CLAIM,
                    &[
                        (account, Type::TEXT),
                        (&fence.login, Type::TEXT),
                        (&epoch, Type::INT8),
                        (&held, Type::BYTEA),
                        (seen, Type::TEXT),
                        (nonce, Type::TEXT),
                        (host, Type::TEXT),
                        (&claim_life, Type::INT8),
                    ],
                )
                .await
            }
            Ask::Conclude { fence, nonce, result } => {
                let held = bytes(fence.held);
                let epoch = fence.epoch as i64;
                let empty = **result == RowResult::default();
                let result = (!empty).then(|| serde_json::to_string(result).unwrap_or_default());
                self.write(
                    sql::CONCLUDE,
                    &[
                        (account, Type::TEXT),
                        (&fence.login, Type::TEXT),
                        (&epoch, Type::INT8),
                        (&held, Type::BYTEA),
                        (nonce, Type::TEXT),
                        (&result, Type::TEXT),
                    ],
                )
                .await
            }
            Ask::Store { fence, content } => self.put(sql::STORE, Some(fence), content).await,
            Ask::Repair { content } => {
                let fence = Fence { login: content.login.clone(), epoch: content.epoch, held: None };
                self.put(sql::REPAIR, Some(&fence), content).await
            }
            Ask::Found { over, content } => {
                let over = over.clone().map(|(login, epoch)| Fence { login, epoch, held: None });
                self.put(sql::FOUND, over.as_ref(), content).await
            }
        }
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The role in the database, and the settings of the server.
    pub async fn about(&self) -> Result<DatabaseRole, FleetError> {
        let rows = self.link.query(sql::ABOUT, &[]).await?;
        let row = rows.first().ok_or(FleetError::Unreadable { what: "the answer" })?;
        let broken = |_| FleetError::Unreadable { what: "the answer" };
        let names = ["fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names"];
        let setting = |name: &&str| Some(((*name).to_owned(), row.try_get(*name).ok()?));
        Ok(DatabaseRole {
            user: row.try_get("name").map_err(broken)?,
            is_superuser: row.try_get("is_superuser").map_err(broken)?,
            reads_secret: row.try_get("reads_secret").map_err(broken)?,
            writes: row.try_get("writes").map_err(broken)?,
            settings: names.iter().filter_map(setting).collect(),
        })
    }

    pub fn place(&self) -> &str {
        self.link.place()
    }

    /// The machines with the same role in the database that are connected. `application` comes before their
    /// names.
    pub async fn hosts(&self, application: &str) -> Result<Vec<String>, FleetError> {
        let rows = self.link.query(sql::HOSTS, &[(&format!("{application} "), Type::TEXT)]).await?;
        Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).collect())
    }

    async fn put(
        &self,
        sql: &str,
        fence: Option<&Fence>,
        content: &RowContent,
    ) -> Result<RowReply, FleetError> {
        let epoch = content.epoch as i64;
        let (held, secret, token) = (bytes(content.held), self.seal(content)?, token_text(content));
        let fence_login = fence.map(|fence| fence.login.clone());
        let fence_epoch = fence.map(|fence| fence.epoch as i64);
        let fence_held = if content.is_copy { vec![1] } else { bytes(fence.and_then(|fence| fence.held)) };
        self.write(
            sql,
            &[
                (&self.account, Type::TEXT),
                (&content.login, Type::TEXT),
                (&epoch, Type::INT8),
                (&held, Type::BYTEA),
                (&secret, Type::BYTEA),
                (&token, Type::BYTEA),
                (&content.issued_at, Type::INT8),
                (&fence_login, Type::TEXT),
                (&fence_epoch, Type::INT8),
                (&fence_held, Type::BYTEA),
            ],
        )
        .await
    }

    async fn write(&self, sql: &str, params: &[Param<'_>]) -> Result<RowReply, FleetError> {
        Ok(match self.link.write(sql, params).await? {
            Write::Done(at) => RowReply::Done { at },
            Write::Missed => RowReply::Missed,
            Write::Unknown(why) => RowReply::Unknown { why },
        })
    }

    async fn read(&self) -> Result<RowReply, FleetError> {
        let sql = if self.role == Role::Read { sql::READ_TOKEN } else { sql::READ };
        let rows = self.link.query(sql, &[(&self.account, Type::TEXT)]).await?;
        let row = rows.first().ok_or(FleetError::Unreadable { what: "the answer" })?;
        self.view(row).map(RowReply::Row)
    }

    fn view(&self, row: &tokio_postgres::Row) -> Result<RowView, FleetError> {
        let broken = |what| {
            move |error: tokio_postgres::Error| {
                let is_of_type = error.source().is_some_and(<dyn Error>::is::<WrongType>);
                if is_of_type { FleetError::Column { what } } else { FleetError::Unreadable { what } }
            }
        };
        let now_timeline: Option<String> = row.try_get("timeline_now").map_err(broken("timeline"))?;
        let login: Option<String> = row.try_get("login").map_err(broken("login"))?;
        let stored: Option<String> = row.try_get("timeline").map_err(broken("timeline"))?;
        let timeline = parse_timeline(stored.as_deref());
        let mut view = RowView {
            row: None,
            server_time: row.try_get("server_time").map_err(broken("clock"))?,
            // A reader may ask a standby, which has none.
            timeline: now_timeline.map_or(timeline, |text| parse_timeline(Some(&text))),
        };
        let Some(login) = login else { return Ok(view) };
        let epoch: i64 = row.try_get("epoch").map_err(broken("epoch"))?;
        let token: Vec<u8> = row.try_get("token").map_err(broken("token"))?;
        let mut content = RowContent {
            login,
            epoch: epoch.unsigned_abs(),
            held: None,
            secret: None,
            token: read_token(&token)?,
            issued_at: row.try_get("issued_at").map_err(broken("issued_at"))?,
            is_copy: false,
        };
        let mut attempt = None;
        let mut result = RowResult::default();
        if self.role == Role::Refresh {
            let held: Vec<u8> = row.try_get("held").map_err(broken("held"))?;
            content.held = if held.is_empty() {
                None
            } else {
                Some(Fingerprint::of_bytes(&held).ok_or(FleetError::Unreadable { what: "held" })?)
            };
            let secret: Vec<u8> = row.try_get("secret").map_err(broken("secret"))?;
            content.secret = Some(Box::new(self.open(&content, &secret)?));
            let nonce: Option<String> = row.try_get("attempt").map_err(broken("attempt"))?;
            if let Some(nonce) = nonce {
                let host: Option<String> = row.try_get("host").map_err(broken("host"))?;
                let claimed_at: Option<i64> = row.try_get("claimed_at").map_err(broken("claimed_at"))?;
                let claim_until: Option<i64> = row.try_get("claim_until").map_err(broken("claim_until"))?;
                let (host, claimed_at) = (host.unwrap_or_default(), claimed_at.unwrap_or_default());
                attempt = Some(RowAttempt {
                    nonce,
                    host,
                    claimed_at,
                    claim_until: claim_until.unwrap_or_default(),
                });
            }
            let verdict: Option<String> = row.try_get("verdict").map_err(broken("verdict"))?;
            // A newer program may write another one: without it, the answer of the server tells.
            result = verdict.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        }
        view.row = Some(Box::new(LoginRow { content, timeline, attempt, result }));
        Ok(view)
    }

    fn binding(&self, login: &str, epoch: u64, held: Option<Fingerprint>) -> String {
        let held = held.map(|held| held.to_string()).unwrap_or_default();
        format!("{FORMAT}\0{}\0{login}\0{epoch}\0{held}", self.account)
    }

    fn seal(&self, content: &RowContent) -> Result<Vec<u8>, FleetError> {
        let key = self.key.as_ref().ok_or(FleetError::NoKey)?;
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&content.secret).unwrap_or_default());
        let binding = self.binding(&content.login, content.epoch, content.held);
        key.seal(FORMAT, &binding, &plain).map(String::into_bytes).map_err(|NoRandom| FleetError::Random)
    }

    fn open(&self, content: &RowContent, sealed: &[u8]) -> Result<LoginPart, FleetError> {
        let key = self.key.as_ref().ok_or(FleetError::NoKey)?;
        let binding = self.binding(&content.login, content.epoch, content.held);
        let sealed = std::str::from_utf8(sealed).map_err(|_| FleetError::Unreadable { what: "secret" })?;
        let plain = key.open(FORMAT, &binding, sealed).ok_or(FleetError::WrongKey)?;
        serde_json::from_slice(&plain).map_err(|_| FleetError::Unreadable { what: "secret" })
    }
}

fn bytes(held: Option<Fingerprint>) -> Vec<u8> {
    held.map(|held| held.bytes().to_vec()).unwrap_or_default()
}

fn token_text(content: &RowContent) -> Vec<u8> {
    content.token.as_ref().map(|token| serde_json::to_vec(token).unwrap_or_default()).unwrap_or_default()
}

fn read_token(bytes: &[u8]) -> Result<Option<SharedToken>, FleetError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let unreadable = FleetError::Unreadable { what: "token" };
    let Ok(shared) = serde_json::from_slice::<SharedToken>(bytes) else { return Err(unreadable) };
    // As of a reply of a token endpoint.
    if fault_of(&shared.token.value).is_some() { Err(unreadable) } else { Ok(Some(shared)) }
}

/// The first eight digits of the name of a WAL file.
fn parse_timeline(text: Option<&str>) -> u32 {
    text.and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::clock::{BootId, Timestamp};
    use crate::store::fleet::*;

    #[test]
    fn a_token_that_no_server_could_have_given_is_not_taken_from_the_row() {
        let text = |value: &str| {
            let at = Timestamp { wall: 1, boot: 1, boot_id: BootId::of([b"boot"]) };
            format!(
                r#"{{"generation":1,"token":{{"value":{},"token_type":"Bearer","issued_at":{},"lifetime_ms":1000,"jitter_ms":0}}}}"#,
                serde_json::to_string(value).unwrap(),
                serde_json::to_string(&at).unwrap()
            )
        };
        assert!(
            matches!(read_token(text("at_1").as_bytes()), Ok(Some(_))),
            "{:?}",
            read_token(text("at_1").as_bytes())
        );
        for bad in ["", "evil\nX-Admin: 1", "\u{e9}"] {
            assert!(read_token(text(bad).as_bytes()).is_err(), "{bad:?}");
        }
        assert!(matches!(read_token(b""), Ok(None)));
        assert!(read_token(b"{}").is_err());
    }
}
