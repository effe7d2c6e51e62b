//! The connection of this process to a database.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::Severity;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Socket};
use tokio_rustls::TlsConnector;

use crate::clock::{millis, monotonic};
use crate::problem::Class;
use crate::secret::Fingerprint;
use crate::store::fleet::sql;
use crate::store::fleet::target::Database;
use crate::store::fleet_error::{DatabaseFault, FleetError};

/// How long a question may take: more than a lock_timeout of 5 s, less than whoever waits for the account's
/// lock has patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// The text of a notification that only tries whether it arrives begins so.
pub const ECHO_PREFIX: &str = "echo-";

/// How long a notification from the other connection may take.
const ECHO: Duration = Duration::from_secs(5);

/// After a refusal of role, password or database, this process connects again no sooner: only a person mends it,
/// and servers lock out who tries again and again.
pub const REFUSED: Duration = Duration::from_secs(5 * 60);

/// A notification, or the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A notification: its text, and the process of the database that it came from.
    Changed {
        payload: String,
        by: i32,
    },
    Closed,
}

/// Where [`Link::listen`] sends the news, and where it is read.
pub type NewsChannel = (mpsc::UnboundedSender<News>, mpsc::UnboundedReceiver<News>);

/// Words for an error of a connection.
pub type Explain = fn(&(dyn Error + 'static)) -> String;

/// The outcome of a write.
#[derive(Debug)]
pub enum Write {
    /// Durable, at this time by the clock of the database.
    Done(i64),
    /// No row was as it had to be.
    Missed,
    /// Perhaps durable, and why nobody knows.
    Unknown(String),
}

pub struct Link {
    target: Database,
    tls: Option<Arc<ClientConfig>>,
    explain: Explain,
    /// One question at a time: a transaction is several.
    client: tokio::sync::Mutex<Option<Client>>,
    /// When the database last refused this process, in milliseconds of the monotonic clock, and why.
    refusal: RefCell<Option<(i64, DatabaseFault)>>,
    /// The database has warned since this was last reset.
    warned: Arc<Mutex<Option<String>>>,
    /// Where notifications go, if anybody listens.
    news: Arc<Mutex<Vec<mpsc::UnboundedSender<News>>>>,
}

thread_local! {
    /// The links of this process, by the SHA-256 of their URL: the event loop has one thread.
    static LINKS: RefCell<HashMap<Fingerprint, Rc<Link>>> = RefCell::default();
}

impl Link {
    /// The link to this database, which all accounts share.
    pub fn open(
        id: Fingerprint,
        explain: Explain,
        target: impl FnOnce() -> Result<(Database, Option<Arc<ClientConfig>>), FleetError>,
    ) -> Result<Rc<Self>, FleetError> {
        if let Some(link) = LINKS.with_borrow(|links| links.get(&id).cloned()) {
            return Ok(link);
        }
        let (target, tls) = target()?;
        let link = Rc::new(Self {
            target,
            tls,
            explain,
            client: tokio::sync::Mutex::new(None),
            refusal: RefCell::default(),
            warned: Arc::default(),
            news: Arc::default(),
        });
        LINKS.with_borrow_mut(|links| links.insert(id, Rc::clone(&link)));
        Ok(link)
    }

    pub fn place(&self) -> &str {
        &self.target.place
    }

    /// Listens: from now on notifications of this connection go to that channel. A notification from another
    /// connection shows whether they arrive: a pooler that shares connections swallows them without a word.
    /// The process of this connection in the database; `None` if nothing arrives.
    pub async fn listen(&self, channel: &mut NewsChannel) -> Result<Option<i32>, FleetError> {
        timeout(PATIENCE + ECHO, self.try_to_listen(channel)).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    fn send_news_to(&self, listener: &mpsc::UnboundedSender<News>) {
        let mut listeners = lock(&self.news);
        listeners.retain(|known| !known.is_closed() && !known.same_channel(listener));
        listeners.push(listener.clone());
    }

    async fn try_to_listen(&self, (sender, news): &mut NewsChannel) -> Result<Option<i32>, FleetError> {
        self.send_news_to(sender);
        let echo = format!("{ECHO_PREFIX}{:x}", getrandom::u64().unwrap_or_default());
        // No other question meanwhile, whose answer could bring along what arrives late.
        let mut place = self.client.lock().await;
        let client = self.connected(&mut place).await?;
        let refused = |error| self.refused(&error);
        if let Err(error) = client.batch_execute(&format!("LISTEN {}", sql::CHANNEL)).await {
            let error = refused(error);
            // Notifications come from the primary alone.
            return if error.is_standby() { Ok(None) } else { Err(error) };
        }
        let own = client.query_typed("SELECT pg_backend_pid()", &[]).await.map_err(refused)?;
        let own = own.first().and_then(|row| row.try_get(0).ok());
        let apart = Self {
            target: self.target.clone(),
            tls: self.tls.clone(),
            explain: self.explain,
            client: tokio::sync::Mutex::new(None),
            refusal: RefCell::default(),
            warned: Arc::default(),
            news: Arc::default(),
        };
        apart.query(&format!("SELECT pg_notify('{}', '{echo}')::text", sql::CHANNEL), &[]).await?;
        let arrives = async {
            loop {
                match news.recv().await {
                    Some(News::Changed { payload, .. }) if payload == echo => return true,
                    Some(News::Changed { .. }) => {}
                    Some(News::Closed) | None => return false,
                }
            }
        };
        let arrives = timeout(ECHO, arrives).await.unwrap_or(false);
        Ok(own.filter(|_| arrives))
    }

    /// Questions that change nothing.
    pub async fn query(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, FleetError> {
        let mut place = self.client.lock().await;
        let work = async {
            let client = self.connected(&mut place).await?;
            client.query_typed(sql, params).await.map_err(|error| self.refused(&error))
        };
        let result = timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(self.too_late()));
        drop_if_broken(&mut place, &result);
        result
    }

    /// One statement in a transaction of its own. Its first column is the time.
    pub async fn write(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Write, FleetError> {
        let mut place = self.client.lock().await;
        let work = async {
            let client = self.connected(&mut place).await?;
            client.batch_execute(sql::BEGIN).await.map_err(|error| self.refused(&error))?;
            let rows = client.query_typed(sql, params).await.map_err(|error| self.refused(&error))?;
            let at = rows.first().map(|row| row.try_get::<_, i64>(0));
            at.transpose().map_err(|_| FleetError::Unreadable { what: "claimed_at" })
        };
        let changed = timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(self.too_late()));
        drop_if_broken(&mut place, &changed);
        let Ok(Some(at)) = changed else {
            if let Some(client) = place.as_ref()
                && !matches!(timeout(PATIENCE, client.batch_execute("ROLLBACK")).await, Ok(Ok(())))
            {
                *place = None;
            }
            return changed.map(|_| Write::Missed);
        };
        let Some(client) = place.as_ref() else { return Err(self.too_late()) };
        lock(&self.warned).take();
        let committed = timeout(PATIENCE, client.batch_execute("COMMIT")).await;
        // A cancelled wait for a standby is a success with a warning, and may be lost by a failover.
        let why = match committed {
            Ok(Ok(())) => lock(&self.warned).take(),
            Ok(Err(source)) => Some(source.to_string()),
            Err(_) => Some(self.too_late().to_string()),
        };
        let Some(why) = why else { return Ok(Write::Done(at)) };
        *place = None;
        Ok(Write::Unknown(why))
    }

    async fn connected<'a>(&self, place: &'a mut Option<Client>) -> Result<&'a Client, FleetError> {
        if place.as_ref().is_none_or(Client::is_closed) {
            *place = Some(self.connect().await?);
        }
        place.as_ref().ok_or_else(|| self.too_late())
    }

    async fn connect(&self) -> Result<Client, FleetError> {
        let refusal = self.refusal.borrow().clone();
        if let Some((_, source)) = refusal.filter(|(at, _)| monotonic() - at < millis(REFUSED)) {
            return Err(FleetError::Connect { place: self.target.place.clone(), source });
        }
        let connected = self.connect_to_any().await;
        *self.refusal.borrow_mut() = match &connected {
            Err(error @ FleetError::Connect { source, .. }) if error.class() == Class::Config => {
                Some((monotonic(), source.clone()))
            }
            _ => None,
        };
        connected
    }

    async fn connect_to_any(&self) -> Result<Client, FleetError> {
        if self.target.prefers_primary {
            let mut config = self.target.config.clone();
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            if let Ok(client) = self.connect_by(&config).await {
                return Ok(client);
            }
        }
        self.connect_by(&self.target.config).await
    }

    async fn connect_by(&self, config: &Config) -> Result<Client, FleetError> {
        let failed =
            |error| FleetError::Connect { place: self.target.place.clone(), source: self.fault(&error) };
        if let Some(tls) = &self.tls {
            let tls = Tls(TlsConnector::from(Arc::clone(tls)));
            let (client, connection) = config.connect(tls).await.map_err(failed)?;
            self.drive(connection);
            return Ok(client);
        }
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        self.drive(connection);
        Ok(client)
    }

    /// Reads what the server sends, also while nothing was asked.
    fn drive<T: TlsStream + Unpin + Send + 'static>(
        &self,
        mut connection: tokio_postgres::Connection<Socket, T>,
    ) {
        let (warned, news) = (Arc::clone(&self.warned), Arc::clone(&self.news));
        let tell = move |told: News| {
            // A listener may be gone.
            lock(&news).retain(|listener| listener.send(told.clone()).is_ok());
        };
        tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if notice.parsed_severity() == Some(Severity::Warning) {
                            *lock(&warned) = Some(notice.message().to_owned());
                        }
                    }
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        let (payload, by) = (notification.payload().to_owned(), notification.process_id());
                        tell(News::Changed { payload, by });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                }
            }
            tell(News::Closed);
        });
    }

    fn refused(&self, error: &tokio_postgres::Error) -> FleetError {
        FleetError::Query { place: self.target.place.clone(), source: self.fault(error) }
    }

    /// In the words of the database, else of the connection.
    fn fault(&self, error: &tokio_postgres::Error) -> DatabaseFault {
        match error.as_db_error() {
            Some(error) => {
                DatabaseFault { code: error.code().code().to_owned(), message: error.message().to_owned() }
            }
            None => DatabaseFault { code: String::new(), message: (self.explain)(error) },
        }
    }

    fn too_late(&self) -> FleetError {
        FleetError::Timeout { place: self.target.place.clone(), seconds: PATIENCE.as_secs() }
    }
}

/// A connection that is of no use any more is not asked again.
fn drop_if_broken<T>(place: &mut Option<Client>, result: &Result<T, FleetError>) {
    if result.as_ref().err().is_some_and(FleetError::ends_connection) {
        *place = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// rustls for tokio-postgres. Without channel binding: the certificate is checked.
#[derive(Clone)]
struct Tls(TlsConnector);

struct TlsTo {
    connector: TlsConnector,
    name: ServerName<'static>,
}

struct DatabaseStream(tokio_rustls::client::TlsStream<Socket>);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = DatabaseStream;
    type TlsConnect = TlsTo;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<TlsTo, Self::Error> {
        Ok(TlsTo { connector: self.0.clone(), name: ServerName::try_from(domain.to_owned())? })
    }
}

impl TlsConnect<Socket> for TlsTo {
    type Stream = DatabaseStream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<DatabaseStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, socket).await.map(DatabaseStream) })
    }
}

impl TlsStream for DatabaseStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl tokio::io::AsyncRead for DatabaseStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for DatabaseStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
