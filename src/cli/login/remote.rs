//! `login --remote`: the login on another host, with the browser of this one. The tokens never leave that
//! host; a port of this machine leads to its listener.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use url::Url;

use crate::cli::args::{Args, Login};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::login::browser::open;

pub(super) fn execute(args: &Args, flags: &Login, host: &str) -> Result<Exit, Exit> {
    if host.starts_with('-') || host.is_empty() {
        let message = format!("{host:?} is not a host");
        return Err(output::fail(Exit::Usage, message, "write it as ssh knows it: user@host"));
    }
    let port = free_port(flags.port).map_err(|error| {
        let hint = "choose a port with --port";
        output::error_for("cannot listen on this machine", Some(&error.to_string()), Some(hint));
        Exit::Unavailable
    })?;
    let mut ssh = Command::new("ssh");
    ssh.args(["-t", "-o", "ExitOnForwardFailure=yes", "-L"])
        .arg(format!("{port}:127.0.0.1:{port}"))
        .arg("--");
    ssh.arg(host).arg(remote_command(args, flags, port)).stdout(Stdio::piped());
    let mut child = ssh.spawn().map_err(|error| {
        output::error_for("cannot run ssh", Some(&error.to_string()), Some("install the OpenSSH client"));
        Exit::Failure
    })?;
    let mut opened = flags.no_browser;
    // All that the other host shows, byte for byte.
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(|output| output.split(b'\n')) {
        let Ok(mut line) = line else { break };
        opened = opened || page(&line).is_some_and(|url| open(&url, &[]));
        line.push(b'\n');
        let mut stdout = std::io::stdout();
        if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
            break;
        }
    }
    // ssh ends with the code of the command, and with 255 if it fails itself.
    let code = child.wait().ok().and_then(|status| status.code());
    Ok(code.and_then(Exit::of_code).unwrap_or(Exit::Failure))
}

/// A port that is free here; the listener over there takes the same one.
fn free_port(wanted: u16) -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))?.local_addr()?.port())
}

/// The command for the shell of the other host.
fn remote_command(args: &Args, flags: &Login, port: u16) -> String {
    let mut words = vec!["zg-tokend".to_owned(), "login".into(), "--no-browser".into()];
    words.push(format!("--port={port}"));
    words.push(format!("--timeout={}s", flags.timeout.as_secs()));
    words.extend(args.common.account.as_ref().map(|name| format!("--account={name}")));
    words.extend(args.common.config.as_ref().map(|path| format!("--config={}", path.display())));
    words.extend(flags.scope.as_ref().map(|scope| format!("--scope={scope}")));
    words.extend(flags.other_identity.then(|| "--other-identity".to_owned()));
    words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
}

/// The address of the login page, which is alone on its line.
fn page(line: &[u8]) -> Option<Url> {
    let url: Url = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    let is_page = url.query_pairs().any(|(name, _)| name == "code_challenge");
    (is_page && matches!(url.scheme(), "https" | "http")).then_some(url)
}

#[cfg(test)]
mod tests {
    use crate::cli::args::Command as Subcommand;
    use crate::cli::args::Common;
    use crate::cli::login::remote::*;

    #[test]
    fn the_shell_over_there_gets_each_word_whole() {
        let common = Common { config: Some("/etc/it's here".into()), account: Some("work".into()) };
        let args = Args { common, command: Subcommand::Login(Box::default()) };
        let flags = Login { scope: Some("a $(b)".into()), ..Login::default() };
        assert_eq!(
            remote_command(&args, &flags, 9),
            r"'zg-tokend' 'login' '--no-browser' '--port=9' '--timeout=0s' '--account=work' '--config=/etc/it'\''s here' '--scope=a $(b)'"
        );
    }

    #[test]
    fn the_page_is_found_among_the_lines() {
        let line = b"https://as.example/authorize?client_id=x&code_challenge=y\r";
        assert_eq!(page(line).unwrap().host_str(), Some("as.example"));
        for other in
            [&b"Waiting for 5 min."[..], b"https://as.example/", b"file:///x?code_challenge=y", b"\xff"]
        {
            assert_eq!(page(other), None);
        }
    }
}
