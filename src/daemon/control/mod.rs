//! The control socket of `run`: HTTP/1.1 over a Unix socket, for programs of the same user.
//!
//! A connection is one request. It is answered beside the loop, in the same thread, and has no
//! means to hold that up: whatever blocks is done by a few other threads, and whoever is slow, or
//! sends without end, is cut off. Over the limit nobody is accepted, so that a crowd costs nothing.

pub mod answer;
pub mod counts;
pub mod metrics;
pub mod reply;
pub mod routes;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fs4::{FileExt, TryLockError};
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::account::context::Context;
use crate::daemon::control::answer::Answering;
use crate::daemon::control::counts::Counts;
use crate::daemon::control::reply::ControlReply;
use crate::daemon::requests::LoopRequest;
use crate::files::owner::user_name;
use crate::files::{Directory, Missing, PlaceError, Rules};

/// The socket's name in its directory.
const NAME: &str = "control.sock";

/// Connections at the same time. The rest waits in the kernel, where it costs us nothing.
const CONNECTIONS: usize = 64;

/// The longest head, and the longest body: tokens have up to 16 KiB.
const SIZE_MAX: usize = 64 * 1024;

/// How long a client may take to send its request, and again to take the reply: both are a few
/// hundred bytes over a local socket.
const CLIENT_TIME: Duration = Duration::from_secs(10);

/// How long a stranger may take to read that he is one: he has a place meanwhile.
const STRANGER_TIME: Duration = Duration::from_secs(1);

/// How long a request may wait for what it asked: for the lock (45 s) and for two exchanges of
/// 30 s, in a queue of other accounts.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// How long to wait when accept(2) fails. It does for want of descriptors, and would fail again
/// at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Threads that read and write files for requests.
const THREADS: usize = 4;

/// The directory that the socket is to be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPlace {
    /// It was made for us, as by systemd's RuntimeDirectory=.
    Given(PathBuf),
    /// It is ours to make, 0700.
    Own(PathBuf),
}

impl SocketPlace {
    /// The directory that the environment tells: systemd.exec(5), XDG Base Directory.
    pub fn of_process() -> Option<Self> {
        let directory = |name| std::env::var_os(name).map(PathBuf::from);
        // Several are separated by colons; the first will do.
        let given = std::env::var("RUNTIME_DIRECTORY").ok();
        let given = given.and_then(|list| list.split(':').next().map(PathBuf::from));
        let own = || directory("XDG_RUNTIME_DIR").filter(|path| path.is_absolute());
        given
            .filter(|path| path.is_absolute())
            .map(Self::Given)
            .or_else(|| own().map(|path| Self::Own(path.join("zg-tokend"))))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Own(path) => path,
        }
    }
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process has its socket there, or at least the directory's lock.
    #[error("{} is the control socket of another run", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{} is in the way of the control socket", path.display())]
    InTheWay {
        /// What is no socket.
        path: PathBuf,
    },
    /// Its directory will not do.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Its directory belongs to another user, who could put his own socket there.
    #[error("directory {} belongs to {}, not to the user this runs as", path.display(), user_name(*owner))]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// The other user's id.
        owner: u32,
    },
    /// Others could put their own socket there.
    #[error("directory {} can be written by others (mode {mode:04o})", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The directory or the socket cannot be made.
    #[error("cannot make the control socket {}", path.display())]
    Make {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ControlError {
    /// A way out.
    pub fn hint(&self) -> String {
        match self {
            Self::Taken { .. } => "give each run a $RUNTIME_DIRECTORY of its own".into(),
            Self::InTheWay { .. } => "move it away, and restart".into(),
            Self::Place(PlaceError::Stranger { .. }) | Self::NotOurs { .. } => {
                "set XDG_RUNTIME_DIR to a directory of your own, as /run/user/UID is".into()
            }
            Self::Place(error) => error.hint().unwrap_or_else(|| "choose another directory".into()),
            Self::Open { path, .. } => format!("chmod go-w {}, and restart", path.display()),
            Self::Make { .. } => "see that the directory exists, and that it is yours".into(),
        }
    }
}

/// The socket, open until this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    accepting: JoinHandle<()>,
    /// Its lock says that the socket is alive; the kernel lets go of it when we die.
    _directory: File,
}

impl Socket {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.accepting.abort();
        // One that stays is dead, and will be replaced.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket and accepts connections on the present LocalSet.
pub fn open(
    place: &SocketPlace,
    asks: mpsc::UnboundedSender<LoopRequest>,
    context: Rc<Context>,
    counts: Rc<RefCell<Counts>>,
) -> Result<Socket, ControlError> {
    let path = place.path().join(NAME);
    let (directory, listener) = bind(place, &path)?;
    let shared = Rc::new(Answering::new(asks, context, counts, Arc::new(Semaphore::new(THREADS))));
    let accepting = tokio::task::spawn_local(accept(listener, shared));
    Ok(Socket { path, accepting, _directory: directory })
}

fn bind(place: &SocketPlace, path: &Path) -> Result<(File, UnixListener), ControlError> {
    let make = |source| ControlError::Make { path: path.to_owned(), source };
    let directory = directory(place)?.as_fd().try_clone_to_owned().map(File::from).map_err(make)?;
    match FileExt::try_lock(&directory) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ControlError::Taken { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(make(source)),
    }
    // With the lock, whatever socket is there is dead.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(make)?,
        Ok(_) => return Err(ControlError::InTheWay { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(make(error)),
    }
    let listener = UnixListener::bind(path).map_err(make)?;
    // Until here the umask has decided; who came earlier has still to show who he is.
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(make)?;
    Ok((directory, listener))
}

/// The socket's directory, open: whoever can write there could put his own socket in its place, and
/// be given what is meant for this one.
fn directory(place: &SocketPlace) -> Result<Directory, ControlError> {
    let missing = match place {
        SocketPlace::Given(_) => Missing::Refuse,
        SocketPlace::Own(_) => Missing::CreateAll,
    };
    let directory = Directory::open(place.path(), &Rules { owner: None, missing, in_place: false })?;
    let (path, owner, mode) =
        (directory.path().to_owned(), directory.stat().st_uid, directory.stat().st_mode & 0o7777);
    if owner != geteuid().as_raw() {
        return Err(ControlError::NotOurs { path, owner });
    }
    if mode & 0o022 != 0 {
        return Err(ControlError::Open { path, mode });
    }
    Ok(directory)
}

async fn accept(listener: UnixListener, shared: Rc<Answering>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Rc::clone(&shared);
                tokio::task::spawn_local(async move {
                    serve(stream, shared).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, from its peer's user to the end of the reply.
async fn serve(stream: UnixStream, shared: Rc<Answering>) {
    let allowed = |uid| uid == 0 || uid == geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| allowed(peer.uid())) {
        refuse(stream).await;
        return;
    }
    let (arrived, has_arrived) = oneshot::channel();
    let (answered, is_answered) = oneshot::channel::<()>();
    let once = Cell::new(Some((arrived, answered)));
    let service = hyper::service::service_fn(|request| {
        let (shared, once) = (Rc::clone(&shared), once.take());
        async move {
            let Some((arrived, _answered)) = once else {
                return Ok::<_, Infallible>(ControlReply::unexpected().response());
            };
            let answer = shared.answer(request, arrived);
            let reply = timeout(ANSWER_TIME, answer).await.unwrap_or_else(|_| ControlReply::too_late());
            Ok(reply.response())
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_header_size(SIZE_MAX)
        .max_buf_size(SIZE_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let patience = async {
        if timeout(CLIENT_TIME, has_arrived).await.is_ok() {
            // Dropped, it says the same: the reply is on its way.
            let _ = is_answered.await;
            sleep(CLIENT_TIME).await;
        }
    };
    // An error is a client that left, or that speaks something else.
    tokio::select! { _ = connection => {}, () = patience => {} }
}

/// Tells a stranger so, and throws away what he says until he hangs up: who finds the connection
/// closed before he has spoken takes it for one that failed.
async fn refuse(mut stream: UnixStream) {
    let body = ControlReply::forbidden().body;
    let reply = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let farewell = async {
        stream.write_all(reply.as_bytes()).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = timeout(STRANGER_TIME, farewell).await;
}

#[cfg(test)]
mod tests;
