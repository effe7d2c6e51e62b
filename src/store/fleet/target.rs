//! The meaning of `fleet.url`: hosts, and how their connection is protected.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::refresh::replica::Role;
use crate::secret::Secret;
use crate::store::fleet_error::FleetError;

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long all hosts together may take.
const ALL_HOSTS: Duration = Duration::from_secs(8);

/// A database that several machines share.
#[derive(Debug, Clone)]
pub struct Database {
    pub config: Config,
    /// A standby will do, and only the primary notifies.
    pub prefers_primary: bool,
    /// TLS, with every certificate checked.
    pub tls: bool,
    /// A file of certificate authorities.
    pub sslrootcert: Option<PathBuf>,
    /// The hosts, for messages.
    pub place: String,
}

/// The certificate is checked in full in all three: rustls knows nothing less.
const CHECKED: [&str; 3] = ["verify-full", "verify-ca", "require"];

/// Parses the URL. It holds a password, so that no error shows it.
pub fn parse(url: &Secret, role: Role) -> Result<Database, FleetError> {
    let bad = |what: &str, hint: &str| FleetError::Url { what: what.to_owned(), hint: hint.to_owned() };
    let text = url.expose();
    if !text.starts_with("postgresql://") && !text.starts_with("postgres://") {
        return Err(bad(
            "is not a URL of PostgreSQL",
            "write it as postgresql://USER:PASSWORD@HOST/DATABASE",
        ));
    }
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let (mut sslmode, mut sslrootcert, mut kept) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = || {
            let mut pairs = form_urlencoded::parse(pair.as_bytes());
            pairs.next().map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        match pair.split('=').next() {
            Some("sslmode") => sslmode = Some(value()),
            Some("sslrootcert") => sslrootcert = Some(PathBuf::from(value())),
            _ => kept.push(pair),
        }
    }
    let text = zeroize::Zeroizing::new(if kept.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", kept.join("&"))
    });
    let mut config: Config = text.parse().map_err(|error: tokio_postgres::Error| {
        let mut why: &dyn std::error::Error = &error;
        while let Some(next) = why.source() {
            why = next;
        }
        bad(
            &format!("cannot be used: {why}"),
            "write it as postgresql://USER:PASSWORD@HOST/DATABASE; docs/FLEET.md lists its options",
        )
    })?;
    let authority = base.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    let is_odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', '/', '?', '#']));
    if authority.matches('@').count() > 1
        || config.get_hosts().iter().any(is_odd)
        || config.get_dbname().is_some_and(|name| name.contains('@'))
    {
        return Err(bad(
            "has a character in user or password that must be percent-encoded",
            "write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25",
        ));
    }
    if config.get_hosts().is_empty() {
        return Err(bad("names no host", "write it as postgresql://USER:PASSWORD@HOST/DATABASE"));
    }
    let is_unix = |host: &&Host| matches!(host, Host::Unix(_));
    let unix = config.get_hosts().iter().filter(is_unix).count();
    let is_local = config.get_hosts().iter().all(is_here)
        && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    let tls = match sslmode.as_deref() {
        None => !is_local,
        Some("disable") if is_local => false,
        Some("disable") => {
            return Err(bad(
                "has sslmode=disable for a host that is not this machine",
                "remove it: the refresh token must not cross a network in plain",
            ));
        }
        Some(mode) if CHECKED.contains(&mode) => unix < config.get_hosts().len(),
        Some("prefer" | "allow") => {
            return Err(bad(
                "has an sslmode that may fall back to an unprotected connection",
                "write sslmode=verify-full, or leave it out",
            ));
        }
        Some(_) => return Err(bad("has an unknown sslmode", "write sslmode=verify-full, or leave it out")),
    };
    if tls && unix > 0 {
        return Err(bad("mixes Unix sockets with other hosts", "name hosts of one kind"));
    }
    config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
    if role == Role::Refresh {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_connect_timeout().is_none() {
        // The last host has its turn as well.
        let hosts = config.get_hosts().len() as u32;
        config.connect_timeout(CONNECT.min(ALL_HOSTS / hosts.max(1)));
    }
    // The kernel finds out that a silent connection is dead; this process sleeps meanwhile.
    config.keepalives(true);
    config.keepalives_idle(Duration::from_secs(30));
    config.keepalives_interval(Duration::from_secs(10));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(30));
    let ports = config.get_ports();
    let place = |(number, host): (usize, &Host)| {
        let port = ports.get(number).or(ports.first()).copied().unwrap_or(PORT);
        if port == PORT { name(host) } else { format!("{}:{port}", name(host)) }
    };
    let place = config.get_hosts().iter().enumerate().map(place).collect::<Vec<_>>().join(", ");
    let prefers_primary = role == Role::Read
        && config.get_hosts().len() > 1
        && config.get_target_session_attrs() == TargetSessionAttrs::Any;
    Ok(Database { config, prefers_primary, tls, sslrootcert, place })
}

fn name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Whether a connection to it stays on this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::fleet::target::*;

    fn target(url: &str) -> Result<Database, String> {
        parse(&Secret::new(url), Role::Refresh).map_err(|error| error.to_string())
    }

    #[test]
    fn connections_that_leave_the_machine_are_protected() {
        let tls = |url: &str| target(url).map(|target| target.tls);
        assert_eq!(tls("postgresql://u@db1,db2:5433/zg"), Ok(true));
        assert_eq!(tls("postgresql://u@localhost/zg"), Ok(false));
        assert_eq!(tls("postgresql://u@127.0.0.1,[::1]/zg?sslmode=disable"), Ok(false));
        assert_eq!(tls("postgresql://u@localhost/zg?sslmode=verify-full&sslrootcert=%2Fca.pem"), Ok(true));
        assert_eq!(tls("postgresql://u@/zg?host=/run/postgresql&sslmode=verify-full"), Ok(false));
        for bad in ["prefer", "allow", "disable", "none"] {
            assert!(tls(&format!("postgresql://u:secret@db1/zg?sslmode={bad}")).is_err(), "{bad}");
        }
        assert!(tls("postgresql://u@localhost/zg?hostaddr=10.0.0.1&sslmode=disable").is_err());
        assert!(tls("postgresql://u@db1/zg?host=/run").is_err());
    }

    #[test]
    fn errors_do_not_show_the_password() {
        for url in [
            "host=db1 password=secret",
            "postgresql://u:secret@db1/zg?x=1",
            "postgresql://u:secret@/zg",
            "postgresql://u:hun@secret@db1/zg",
        ] {
            let error = target(url).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn hosts_and_certificates_are_kept() {
        let target =
            target("postgresql://u@db1,db2/zg?sslrootcert=/etc/ca.pem&target_session_attrs=any").unwrap();
        assert_eq!((target.place.as_str(), target.sslrootcert), ("db1, db2", Some("/etc/ca.pem".into())));
        assert_eq!(target.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn the_last_host_has_its_turn_before_the_patience_ends() {
        for (hosts, patience) in [("db1", 5), ("db1,db2:5433,db3", 8)] {
            let config = target(&format!("postgresql://u@{hosts}/zg")).unwrap().config;
            let each = config.get_connect_timeout().copied().unwrap();
            assert!(each * config.get_hosts().len() as u32 <= Duration::from_secs(patience), "{each:?}");
        }
        assert_eq!(target("postgresql://u@db1,db2:5433/zg").unwrap().place, "db1, db2:5433");
    }
}
