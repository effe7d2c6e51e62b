//! A proxy for one server: CONNECT of HTTP, or SOCKS 5. It notes where it was asked to connect, and
//! connects to the server of the test in any case.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// How a proxy behaves.
#[derive(Clone, Copy)]
pub enum Manner {
    /// The status line and headers of its answers to CONNECT; 200 connects.
    Http { answer: &'static str },
    /// With user name and password, if it wants them; the code of its answers.
    Socks { login: Option<(&'static str, &'static str)>, code: u8 },
}

pub struct Gateway {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Leads to this port of the machine, until the test's process ends.
    pub fn start(manner: Manner, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let notes = Arc::clone(&notes);
                // A client that has seen enough hangs up.
                thread::spawn(move || serve(stream, manner, port, &notes));
            }
        });
        Self { address, asked }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host and port of each connection it was asked for; what came before, as a login, after a space.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, manner: Manner, port: u16, asked: &Mutex<Vec<String>>) -> Result<()> {
    let (target, connects) = match manner {
        Manner::Http { answer } => {
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            let request = lines.next().unwrap()?;
            let mut target = request.split(' ').nth(1).unwrap_or_default().to_owned();
            for line in lines {
                let line = line?;
                if let Some(login) = line.strip_prefix("Proxy-Authorization: ") {
                    target = format!("{target} {login}");
                }
                if line.is_empty() {
                    break;
                }
            }
            stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes())?;
            (target, answer.starts_with("200"))
        }
        Manner::Socks { login, code } => socks(&mut stream, login, code)?,
    };
    asked.lock().unwrap().push(target);
    if !connects {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", port))?;
    let (mut from, mut to) = (stream.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let _ = std::io::copy(&mut &server, &mut stream);
    let _ = stream.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}

fn take<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(stream: &mut TcpStream) -> Result<String> {
    let [length] = take(stream)?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

/// RFC 1928 and RFC 1929, from the other side.
fn socks(stream: &mut TcpStream, login: Option<(&str, &str)>, code: u8) -> Result<(String, bool)> {
    let [_, count] = take(stream)?;
    let mut methods = vec![0; count.into()];
    stream.read_exact(&mut methods)?;
    let wanted = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&wanted) {
        stream.write_all(&[5, 0xff])?;
        return Ok(("refused".to_owned(), false));
    }
    stream.write_all(&[5, wanted])?;
    if let Some((user, password)) = login {
        let [_] = take(stream)?;
        let is_right = (text(stream)?, text(stream)?) == (user.to_owned(), password.to_owned());
        stream.write_all(&[1, u8::from(!is_right)])?;
        if !is_right {
            return Ok(("refused".to_owned(), false));
        }
    }
    let [_, _, _, kind] = take(stream)?;
    let host = match kind {
        1 => take::<4>(stream)?.map(|byte| byte.to_string()).join("."),
        3 => text(stream)?,
        _ => panic!("the kind of address {kind}"),
    };
    let port = u16::from_be_bytes(take(stream)?);
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])?;
    Ok((format!("{host}:{port}"), code == 0))
}
