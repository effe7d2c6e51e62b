//! The control socket of `run`: HTTP/1.1 over a Unix socket, for programs of the same user.
//!
//! A connection is one request. Tasks in the thread of the loop answer requests, and cannot block
//! it: file work runs in a few other threads, and a client that is slow or sends too much is cut
//! off. Connections over the limit are not accepted, so that they cost nothing.

pub mod answer;
pub mod counts;
pub mod metrics;
pub mod reply;
pub mod routes;

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use fs4::{FileExt, TryLockError};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, OFlags, fchmod, openat};
use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::clock::monotonic;
use crate::daemon::control::answer::{SIZE_MAX, Service};
use crate::daemon::control::reply::ControlReply;
use crate::files::owner::user_name;
use crate::files::{Directory, Missing, PlaceError, Rules};

const NAME: &str = "control.sock";

/// Connections at the same time. The rest waits in the kernel, at no cost.
const CONNECTIONS: usize = 64;

/// How long a client may take to send its request, and again to read the reply: both are a few
/// hundred bytes over a local socket.
const CLIENT_TIME: Duration = Duration::from_secs(10);

/// How long another user may take to read the refusal: the connection counts meanwhile.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// How long a request may wait for its reply: for the lock (45 s) and for two exchanges of
/// 30 s, in a queue of other accounts.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// How long to wait when accept(2) fails: without free file descriptors it would fail again at
/// once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client that takes longer than this, in milliseconds, is slow: others need microseconds.
const SLOW_AFTER: i64 = 1000;

/// How long to wait where all places are taken by clients that are not slow.
const CROWD_PAUSE: Duration = Duration::from_millis(5);

/// Only the user can open it, so that nobody else can keep the lock from us: the directory itself
/// may be readable by all.
const LOCK: &str = "control.lock";

/// The directory of the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPlace {
    /// It was created for this process, for example by systemd's RuntimeDirectory=.
    Existing(PathBuf),
    /// This process creates it with mode 0700.
    Own(PathBuf),
}

impl SocketPlace {
    /// From the environment: systemd.exec(5), XDG Base Directory.
    pub fn of_process() -> Option<Self> {
        let given = std::env::var("RUNTIME_DIRECTORY").unwrap_or_default();
        // systemd separates several directories by colons.
        let first = Path::new(given.split(':').next().unwrap_or_default());
        if first.is_absolute() {
            return Some(Self::Existing(first.to_owned()));
        }
        let own = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
        own.is_absolute().then(|| Self::Own(own.join("zg-tokend")))
    }

    /// The path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.path().join(NAME)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Existing(path) | Self::Own(path) => path,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process has locked the directory.
    #[error("another `zg-tokend run` uses the control socket {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} exists and is not a socket", path.display())]
    NotASocket { path: PathBuf },
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The owner could replace the socket.
    #[error("directory {} belongs to {}, not to the user that runs zg-tokend", path.display(), user_name(*owner))]
    OtherOwner { path: PathBuf, owner: u32 },
    /// Others could replace the socket.
    #[error("directory {} can be written by others (mode {mode:04o})", path.display())]
    WritableByOthers { path: PathBuf, mode: u32 },
    #[error("cannot create the control socket {}", path.display())]
    Create { path: PathBuf, source: io::Error },
}

impl ControlError {
    pub fn hint(&self) -> String {
        match self {
            Self::InUse { .. } => "set a different RUNTIME_DIRECTORY for each `zg-tokend run`".into(),
            Self::NotASocket { .. } => "move it away and restart".into(),
            Self::Place(PlaceError::Stranger { .. }) | Self::OtherOwner { .. } => {
                "set XDG_RUNTIME_DIR to a directory that you own, such as /run/user/UID".into()
            }
            Self::Place(error) => error.hint().unwrap_or_else(|| "choose another directory".into()),
            Self::WritableByOthers { path, .. } => {
                format!("run `chmod go-w {}` and restart", path.display())
            }
            Self::Create { .. } => "check that the directory exists and that you own it".into(),
        }
    }
}

/// Closes the socket when it is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    accepting: JoinHandle<()>,
    /// Its lock shows that the socket is in use; the kernel releases it when the process dies.
    _lock: File,
}

impl Socket {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.accepting.abort();
        // The next `run` replaces a file that stays behind.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket, and accepts connections in a task of the current LocalSet.
pub fn open(place: &SocketPlace, service: Service) -> Result<Socket, ControlError> {
    let path = place.socket();
    let (lock, listener) = bind(place, &path)?;
    let accepting = tokio::task::spawn_local(accept(AnyListener::Unix(listener), Rc::new(service)));
    Ok(Socket { path, accepting, _lock: lock })
}

/// Serves probes and metrics to everybody who can connect, in a task of the current LocalSet. Never a
/// token, and nothing that changes one.
pub fn listen(listener: TcpListener, mut service: Service) {
    service.probes_only = true;
    tokio::task::spawn_local(accept(AnyListener::Tcp(listener), Rc::new(service)));
}

enum AnyListener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

fn bind(place: &SocketPlace, path: &Path) -> Result<(File, UnixListener), ControlError> {
    let failed = |source| ControlError::Create { path: path.to_owned(), source };
    let directory = directory(place)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = openat(&directory, LOCK, flags, Mode::RUSR | Mode::WUSR);
    let lock = File::from(lock.map_err(|error| failed(error.into()))?);
    // Whatever the umask is, and whoever made it before: it must be ours alone.
    fchmod(&lock, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
    match FileExt::try_lock(&lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ControlError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The lock is ours, so a socket that is there belongs to no process.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(ControlError::NotASocket { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Until here the umask decides; the user of each connection is checked anyway.
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((lock, listener))
}

/// Opens the socket's directory. A user who can write there could replace the socket, and receive
/// the tokens that clients send.
fn directory(place: &SocketPlace) -> Result<Directory, ControlError> {
    let missing = match place {
        SocketPlace::Existing(_) => Missing::Refuse,
        SocketPlace::Own(_) => Missing::CreateAll,
    };
    let directory = Directory::open(place.path(), &Rules::private(missing))?;
    let (path, stat) = (directory.path().to_owned(), directory.stat());
    let (owner, mode) = (stat.st_uid, stat.st_mode & 0o7777);
    if owner != geteuid().as_raw() {
        return Err(ControlError::OtherOwner { path, owner });
    }
    if mode & 0o022 != 0 {
        return Err(ControlError::WritableByOthers { path, mode });
    }
    Ok(directory)
}

/// A connection, as [`accept`] sees it.
struct Connection {
    /// Set while its request waits for an answer: it costs little, and is limited elsewhere.
    waits: Rc<Cell<bool>>,
    /// By [`monotonic`].
    since: i64,
    task: JoinHandle<()>,
}

impl Connection {
    /// Whether it has been slow for so long that it may give way.
    fn is_slow(&self) -> bool {
        !self.waits.get() && monotonic() - self.since > SLOW_AFTER
    }
}

/// Accepts connections. Where there are too many, a slow one gives way: it has not sent its request, or
/// does not take its reply. While none is slow the rest waits in the kernel, at no cost.
async fn accept(listener: AnyListener, service: Rc<Service>) {
    let mut open: Vec<Connection> = Vec::new();
    loop {
        open.retain(|connection| !connection.task.is_finished());
        if open.iter().filter(|connection| !connection.waits.get()).count() >= CONNECTIONS {
            match open.iter().position(Connection::is_slow) {
                Some(slow) => {
                    let Connection { task, .. } = open.remove(slow);
                    task.abort();
                    // Its descriptor is closed when it has ended.
                    let _ = task.await;
                }
                None => sleep(CROWD_PAUSE).await,
            }
            continue;
        }
        let waits = Rc::new(Cell::new(false));
        let (service, waiting) = (Rc::clone(&service), Rc::clone(&waits));
        let accepted = match &listener {
            AnyListener::Unix(listener) => {
                let accepted = listener.accept().await;
                accepted.map(|(stream, _)| tokio::task::spawn_local(serve(stream, service, waiting)))
            }
            AnyListener::Tcp(listener) => {
                let accepted = listener.accept().await;
                accepted.map(|(stream, _)| tokio::task::spawn_local(exchange(stream, service, waiting)))
            }
        };
        let Ok(task) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.push(Connection { waits, since: monotonic(), task });
    }
}

async fn serve(stream: UnixStream, service: Rc<Service>, waits: Rc<Cell<bool>>) {
    let allowed = |uid| uid == 0 || uid == geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| allowed(peer.uid())) {
        refuse(stream).await;
        return;
    }
    exchange(stream, service, waits).await;
}

/// Reads one request and sends the reply.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, service: Rc<Service>, waits: Rc<Cell<bool>>) {
    let (arrived, answered) = (Notify::new(), Notify::new());
    let respond = hyper::service::service_fn(async |request| {
        let answer = service.answer(request, &arrived, &waits);
        let reply = timeout(ANSWER_TIME, answer).await.unwrap_or_else(|_| ControlReply::too_late());
        waits.set(false);
        // An error may be the reply to a request that has not arrived as a whole.
        arrived.notify_one();
        answered.notify_one();
        Ok::<_, Infallible>(reply.response())
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_header_size(SIZE_MAX)
        .max_buf_size(SIZE_MAX)
        .serve_connection(TokioIo::new(stream), respond);
    let deadline = async {
        if timeout(CLIENT_TIME, arrived.notified()).await.is_ok() {
            answered.notified().await;
            sleep(CLIENT_TIME).await;
        }
    };
    // An error means that the client disconnected or does not speak HTTP.
    tokio::select! { _ = connection => {}, () = deadline => {} }
}

/// Sends 403 to another user, then reads and discards until the client disconnects: a client whose
/// connection closes before it has sent its request reports a failed connection instead.
async fn refuse(mut stream: UnixStream) {
    let body = ControlReply::forbidden().body;
    let reply = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        stream.write_all(reply.as_bytes()).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = timeout(REFUSAL_TIME, exchange).await;
}

#[cfg(test)]
mod tests;
