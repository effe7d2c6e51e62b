//! Asks the `run` that supervises an account to make an exchange, over its control socket: it has the
//! account in hand, sends the hooks and pushes, and survives whatever kills this reader. Whoever gets no
//! answer from it makes the exchange otherwise.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use serde::Deserialize;

use crate::account::obtain::Replacement;
use crate::config::{AccountConfig, Settings};
use crate::daemon::control::SocketPlace;
use crate::secret::Fingerprint;
use crate::store;
use crate::store::lock::{Supervision, is_stopped};

/// The shortest time that `run` gets for its answer.
const LEAST: Duration = Duration::from_secs(1);

/// A pass may make an exchange, for which nobody here has to wait.
const REREAD: Duration = Duration::from_secs(2);

/// The longest answer: it has a line.
const ANSWER_MAX: u64 = 64 * 1024;

/// The body of a success.
#[derive(Deserialize)]
struct Done {
    result: String,
}

/// Has the token replaced; true if `run` says that it was.
pub(super) fn refresh(settings: &Settings, account: &Arc<AccountConfig>, wait: Duration) -> bool {
    ask(settings, account, "refresh", "", wait).is_some()
}

/// Has the state looked at after its login has changed, so that the log of `run` and its next refresh are
/// right at once. Without an answer `run` sees it at its next pass.
pub(super) fn reread(settings: &Settings, account: &Arc<AccountConfig>) {
    _ = ask(settings, account, "reread", "", REREAD);
}

/// Reports a refused token. `None` without an answer, and where the token stays.
pub(super) fn replace(
    settings: &Settings,
    account: &Arc<AccountConfig>,
    refused: Fingerprint,
    wait: Duration,
) -> Option<Replacement> {
    let body = format!("{{\"sha256\": \"{refused}\"}}");
    match ask(settings, account, "rejected", &body, wait)?.as_str() {
        "replaced" => Some(Replacement::Replaced),
        "already_replaced" => Some(Replacement::AlreadyReplaced),
        _ => None,
    }
}

/// The result of a request that succeeds.
fn ask(
    settings: &Settings,
    account: &AccountConfig,
    what: &str,
    body: &str,
    wait: Duration,
) -> Option<String> {
    let Ok(Supervision::Alive(Some(supervisor))) = store::open(settings, account).supervision() else {
        return None;
    };
    // Nobody is to wait twice: for it, and then without it.
    if is_stopped(supervisor.pid) {
        return None;
    }
    let stream = UnixStream::connect(SocketPlace::of_process()?.socket()).ok()?;
    // Another `run`, with another config, may have the same directory.
    let peer = socket_peercred(&stream).ok()?;
    if u32::try_from(peer.pid.as_raw_nonzero().get()) != Ok(supervisor.pid) {
        return None;
    }
    let head = format!(
        "POST /v1/token/{what}?account={} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        account.name,
        body.len()
    );
    let answer = exchange(stream, &(head + body), wait.max(LEAST)).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let done: Done = serde_json::from_str(body).ok()?;
    head.starts_with("HTTP/1.1 200 ").then_some(done.result)
}

fn exchange(mut stream: UnixStream, request: &str, wait: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
