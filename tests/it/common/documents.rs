//! A bare HTTP server with scripted answers, which counts what it was asked: discovery
//! documents, redirects, a proxy that must not be used.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Shared {
    answers: HashMap<String, String>,
    requests: Vec<String>,
}

/// Listens until the test's process ends.
pub struct Documents {
    url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Documents {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let answers = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Whoever hangs up is done.
                _ = serve(&connection, &answers);
            }
        });
        Self { url, shared }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets the answer of a path from now on; all others answer 404.
    pub fn put(&self, path: &str, status: u16, headers: &str, body: &str) {
        let answer = format!(
            "HTTP/1.1 {status} Scripted\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.shared.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub fn remove(&self, path: &str) {
        self.shared.lock().unwrap().answers.remove(path);
    }

    /// A discovery document at its place, RFC 8414's or OpenID Connect's.
    pub fn discover(&self, name: &str, issuer: &str, token_endpoint: &str) {
        let body = serde_json::json!({ "issuer": issuer, "token_endpoint": token_endpoint });
        let headers = "content-type: application/json\r\n";
        self.put(&format!("/.well-known/{name}"), 200, headers, &body.to_string());
    }

    /// Method and target of every request, oldest first.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().unwrap().requests.clone()
    }
}

fn serve(connection: &TcpStream, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if header.trim().is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let request = first.rsplit_once(' ').map_or(first.as_str(), |(request, _)| request).to_owned();
    let answer = {
        let mut shared = shared.lock().unwrap();
        let path = request.split_once(' ').map_or("", |(_, path)| path);
        let answer = shared.answers.get(path).cloned();
        shared.requests.push(request);
        answer.unwrap_or_else(|| {
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
        })
    };
    let mut connection = connection;
    connection.write_all(answer.as_bytes())
}
