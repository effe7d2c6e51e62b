//! The bare client: the same work as zg-tokend's, without anything that makes it trustworthy.
//!
//! A blocking socket and rustls; no retries, no deadlines, no checks. The lock and the durable
//! writes are the same: the marker, the next state and the token file, each fsynced, renamed
//! into place, and the directory fsynced.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use fs4::FileExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use url::Url;

/// As many at a time as zg-tokend has threads for files.
const THREADS: usize = 8;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["once", endpoint, directory] => Client::new(endpoint)?.refresh(directory.as_ref()),
        ["wave", endpoint, directory] => wave(&Client::new(endpoint)?, directory.as_ref()),
        ["read", directory] => read(directory.as_ref()),
        _ => Err("usage: bare once|wave TOKEN_ENDPOINT DIRECTORY, bare read DIRECTORY".into()),
    }
}

/// Refreshes every account under a directory.
fn wave(client: &Client, directory: &Path) -> Result<()> {
    let accounts: Vec<_> = fs::read_dir(directory)?.collect::<std::io::Result<_>>()?;
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(account) = accounts.get(next.fetch_add(1, Ordering::Relaxed)) {
            client.refresh(&account.path())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

/// Reads the state of every account under a directory, and prints a line about each.
fn read(directory: &Path) -> Result<()> {
    let mut lines = BufWriter::new(std::io::stdout());
    for account in fs::read_dir(directory)? {
        let state: Value = serde_json::from_slice(&fs::read(account?.path().join("state"))?)?;
        writeln!(lines, "{}: {}", state["account"], state["generation"])?;
    }
    Ok(lines.flush()?)
}

struct Client {
    endpoint: Url,
    /// Absent for plain http.
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    fn new(endpoint: &str) -> Result<Self> {
        let endpoint = Url::parse(endpoint)?;
        let tls = if endpoint.scheme() == "https" { Some(Arc::new(tls()?)) } else { None };
        Ok(Self { endpoint, tls })
    }

    fn refresh(&self, directory: &Path) -> Result<()> {
        let handle = File::open(directory)?;
        FileExt::lock(&handle)?;
        let write = |name: &str, contents: &str| -> Result<()> {
            let (temporary, target) = (directory.join(format!("{name}.tmp")), directory.join(name));
            let mut file = File::create(&temporary)?;
            file.write_all(contents.as_bytes())?;
            file.sync_all()?;
            fs::rename(temporary, target)?;
            Ok(handle.sync_all()?)
        };
        let mut state: Value = serde_json::from_slice(&fs::read(directory.join("state"))?)?;
        state["in_flight"] = true.into();
        write("state", &state.to_string())?;
        let refresh_token = state["refresh_token"].as_str().ok_or("no refresh token")?;
        let reply: Value = serde_json::from_str(
            &self.post(&format!("grant_type=refresh_token&client_id=demo&refresh_token={refresh_token}"))?,
        )?;
        let access_token = reply["access_token"].as_str().ok_or("no access token")?;
        let state = json!({ "refresh_token": reply["refresh_token"], "access_token": access_token });
        write("state", &state.to_string())?;
        write("token", access_token)
    }

    /// One POST; the reply's body.
    fn post(&self, body: &str) -> Result<String> {
        let host = self.endpoint.host_str().ok_or("no host")?;
        let port = self.endpoint.port_or_known_default().ok_or("no port")?;
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.endpoint.path(),
            body.len(),
        );
        let mut connection = TcpStream::connect((host, port))?;
        connection.set_nodelay(true)?;
        let mut reply = String::new();
        if let Some(tls) = &self.tls {
            let session = ClientConnection::new(Arc::clone(tls), ServerName::try_from(host.to_owned())?)?;
            let mut connection = StreamOwned::new(session, connection);
            connection.write_all(request.as_bytes())?;
            connection.read_to_string(&mut reply)?;
        } else {
            connection.write_all(request.as_bytes())?;
            connection.read_to_string(&mut reply)?;
        }
        let (head, body) = reply.split_once("\r\n\r\n").ok_or("no reply")?;
        if head.split(' ').nth(1) != Some("200") {
            return Err(reply.into());
        }
        Ok(body.to_owned())
    }
}

/// With the roots in the file that SSL_CERT_FILE names.
fn tls() -> Result<ClientConfig> {
    let pem = fs::read(env::var_os("SSL_CERT_FILE").ok_or("SSL_CERT_FILE is not set")?)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
