//! A TCP proxy before a server of plain HTTP that counts requests.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub struct Tally {
    address: SocketAddr,
    sent: Arc<Mutex<String>>,
}

impl Tally {
    /// Before the server with this URL, until the test's process ends.
    pub fn before(url: &str) -> Self {
        let server = url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(Mutex::new(String::new()));
        let notes = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (notes, server) = (Arc::clone(&notes), TcpStream::connect(&*server).unwrap());
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let mut bytes = [0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        notes.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
                let (mut from, mut to) = (server, client);
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, sent }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often these words were sent: the beginning of a request line.
    pub fn count(&self, words: &str) -> usize {
        self.sent.lock().unwrap().matches(words).count()
    }
}
