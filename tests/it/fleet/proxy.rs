//! A TCP proxy before PostgreSQL that reads the messages of its protocol (version 3), and cuts the connection
//! at a statement of the test's choice.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::common::wait_until;

/// The fate of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They reach the server.
    Pass,
    /// They are closed at once.
    Closed,
    /// They are accepted, and nothing ever comes.
    Silent,
}

/// Where the connection is cut: at the COMMIT of the transaction with a certain statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The COMMIT does not reach the server, which rolls back.
    BeforeCommit,
    /// The same, and from then on the server cannot be reached.
    BeforeCommitAndAll,
    /// The server has committed; its answer does not reach the client.
    AfterCommit,
}

struct Fault {
    /// Words of the statement.
    statement: String,
    cut: Cut,
}

struct State {
    mode: Mode,
    server: PathBuf,
    /// Replies of the server wait here.
    held: bool,
    fault: Option<Fault>,
    faults_done: usize,
    /// The SQL of all connections, in the order of its arrival.
    statements: Vec<String>,
    streams: Vec<(TcpStream, Option<UnixStream>)>,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicUsize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The proxy, until this is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, before the server with this Unix socket.
    pub fn new(server: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            mode: Mode::Pass,
            server: server.to_owned(),
            held: false,
            fault: None,
            faults_done: 0,
            statements: Vec::new(),
            streams: Vec::new(),
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on; connections that are open are cut.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.state().mode = mode;
        self.cut();
    }

    /// Leads to another server; connections that are open are cut.
    pub fn lead_to(&self, server: &Path) {
        server.clone_into(&mut self.shared.state().server);
        self.cut();
    }

    /// Cuts the connections that are open.
    pub fn cut(&self) {
        for (client, server) in self.shared.state().streams.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            if let Some(server) = server {
                let _ = server.shutdown(Shutdown::Both);
            }
        }
    }

    /// Holds back the server's replies, from now on or no longer.
    pub fn hold(&self, held: bool) {
        self.shared.state().held = held;
        self.shared.changed.notify_all();
    }

    /// Cuts the connection of the next transaction with a statement that contains these words. Only once.
    pub fn cut_next(&self, statement: &str, cut: Cut) {
        self.shared.state().fault = Some(Fault { statement: statement.to_owned(), cut });
    }

    /// How many connections were cut at their COMMIT.
    pub fn cuts(&self) -> usize {
        self.shared.state().faults_done
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The SQL that was sent so far.
    pub fn statements(&self) -> Vec<String> {
        self.shared.state().statements.clone()
    }

    /// How many statements with these words were sent so far.
    pub fn count(&self, words: &str) -> usize {
        self.shared.state().statements.iter().filter(|statement| statement.contains(words)).count()
    }

    /// Waits until statements with these words were sent, `count` in all.
    #[track_caller]
    pub fn wait_for_statement(&self, words: &str, count: usize) {
        wait_until(&format!("{count} statements with {words:?}"), || {
            (self.count(words) >= count).then_some(())
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.hold(false);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let (mode, path) = {
            let state = shared.state();
            if state.closed {
                return;
            }
            (state.mode, state.server.clone())
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        match mode {
            Mode::Closed => {}
            Mode::Silent => shared.state().streams.push((client, None)),
            Mode::Pass => {
                // A server that does not run: the client sees the end of its connection.
                let Ok(server) = UnixStream::connect(path) else { continue };
                let _ = client.set_nodelay(true);
                let pair = (client.try_clone().unwrap(), Some(server.try_clone().unwrap()));
                shared.state().streams.push(pair);
                connect(client, server, shared);
            }
        }
    }
}

/// The knowledge that both directions of a connection share.
#[derive(Default)]
struct Transaction {
    /// The fault's statement has been sent in it.
    marked: bool,
    /// The answer to the COMMIT that is under way must not arrive.
    swallow: bool,
}

fn connect(client: TcpStream, server: UnixStream, shared: &Arc<Shared>) {
    let transaction = Arc::new(Mutex::new(Transaction::default()));
    let forth = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (shared_forth, transaction_forth) = (Arc::clone(shared), Arc::clone(&transaction));
    thread::spawn(move || {
        let (mut client, mut server) = forth;
        requests(&mut client, &mut server, &shared_forth, &transaction_forth);
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let (mut client, mut server) = (client, server);
        replies(&mut server, &mut client, &shared, &transaction);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// The codes of a first message that is followed by another first message, after an answer of one byte.
const NEGOTIATIONS: [u32; 2] = [80_877_103, 80_877_104];

/// From the client to the server, message by message.
fn requests(
    client: &mut TcpStream,
    server: &mut UnixStream,
    shared: &Shared,
    transaction: &Mutex<Transaction>,
) {
    loop {
        let mut head = [0; 4];
        if client.read_exact(&mut head).is_err() {
            return;
        }
        // A TLS record after the negotiation: not for us to read.
        if head[0] != 0 {
            let _ = server.write_all(&head);
            let _ = std::io::copy(client, server);
            return;
        }
        let Some(body) = body(client, head) else { return };
        if server.write_all(&[&head[..], &body].concat()).is_err() {
            return;
        }
        let code = body.get(..4).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        if !code.is_some_and(|code| NEGOTIATIONS.contains(&code)) {
            break;
        }
    }
    loop {
        let mut head = [0; 5];
        if client.read_exact(&mut head).is_err() {
            return;
        }
        let Some(body) = body(client, head[1..].try_into().unwrap()) else { return };
        if let Some(sql) = sql(head[0], &body) {
            let is_commit = sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("commit"));
            let mut state = shared.state();
            let mut transaction = transaction.lock().unwrap();
            if state.fault.as_ref().is_some_and(|fault| sql.contains(&fault.statement)) {
                transaction.marked = true;
            }
            state.statements.push(sql);
            if is_commit && std::mem::take(&mut transaction.marked) {
                let cut = state.fault.take().map(|fault| fault.cut);
                match cut {
                    Some(cut @ (Cut::BeforeCommit | Cut::BeforeCommitAndAll)) => {
                        state.faults_done += 1;
                        if cut == Cut::BeforeCommitAndAll {
                            state.mode = Mode::Closed;
                        }
                        return;
                    }
                    Some(Cut::AfterCommit) => transaction.swallow = true,
                    None => {}
                }
            }
        }
        if server.write_all(&[&head[..], &body].concat()).is_err() {
            return;
        }
    }
}

/// From the server to the client, message by message.
fn replies(
    server: &mut UnixStream,
    client: &mut TcpStream,
    shared: &Shared,
    transaction: &Mutex<Transaction>,
) {
    let mut first = true;
    loop {
        let mut kind = [0; 1];
        if server.read_exact(&mut kind).is_err() {
            return;
        }
        // The answer to a negotiation: S would begin TLS, N and G do not.
        if std::mem::take(&mut first) && matches!(kind[0], b'S' | b'N' | b'G') {
            first = kind[0] == b'N';
            if client.write_all(&kind).is_err() {
                return;
            }
            if !first {
                let _ = std::io::copy(server, client);
                return;
            }
            continue;
        }
        let mut length = [0; 4];
        if server.read_exact(&mut length).is_err() {
            return;
        }
        let Some(body) = body(server, length) else { return };
        let mut state = shared.state();
        while state.held && !state.closed {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // CommandComplete with its tag.
        if kind[0] == b'C' && body.starts_with(b"COMMIT") && transaction.lock().unwrap().swallow {
            state.faults_done += 1;
            return;
        }
        drop(state);
        if client.write_all(&[&kind[..], &length, &body].concat()).is_err() {
            return;
        }
    }
}

/// The rest of a message: its length counts itself.
fn body(stream: &mut impl Read, length: [u8; 4]) -> Option<Vec<u8>> {
    let mut body = vec![0; (u32::from_be_bytes(length) as usize).checked_sub(4)?];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// The SQL of a Query or Parse message.
fn sql(kind: u8, body: &[u8]) -> Option<String> {
    let mut texts = body.split(|byte| *byte == 0);
    let text = match kind {
        b'Q' => texts.next(),
        // The name of the statement comes first.
        b'P' => texts.nth(1),
        _ => None,
    };
    text.map(|text| String::from_utf8_lossy(text).into_owned())
}
