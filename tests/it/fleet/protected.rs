//! A database across a network: TLS with a certificate that is checked, and a password (SCRAM).

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

use super::hosts::{DUE, Fleet, Host};
use super::postgres::DATABASE;
use crate::common::Output;
use crate::common::tls::authority;

/// The name in the certificate of the database.
const NAME: &str = "db.test";

/// Special in a URL, so that it is percent-encoded there.
const PASSWORD: &str = "p@ss:w/rd";
const ENCODED: &str = "p%40ss%3Aw%2Frd";

/// A certificate for [`NAME`] and its key, in PEM, of an authority that is written to `ca_file`.
fn certificate(ca_file: &Path) -> (String, String) {
    let ca = authority("test CA");
    fs::write(ca_file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// A fleet whose database takes TLS and passwords alone.
struct Protected {
    fleet: Fleet,
    /// The authority that the certificate of the database comes from.
    ca: PathBuf,
    /// The address that the database listens on: of the whole loopback network, only this test's.
    address: String,
}

impl Protected {
    fn new() -> Option<Self> {
        let mut fleet = Fleet::new(1)?;
        fleet.log_in();
        let random = getrandom::u64().unwrap().to_be_bytes();
        let address = format!("127.{}.{}.{}", random[0], random[1], random[2].clamp(1, 254));
        let ca = fleet.hosts[0].sandbox.path("ca.pem");
        let (chain, key) = certificate(&ca);
        let cluster = &mut fleet.cluster;
        cluster.sql(&format!("ALTER ROLE zg_refresh PASSWORD '{PASSWORD}'"));
        let (chain, key) = (cluster.write_file("db.crt", &chain), cluster.write_file("db.key", &key));
        cluster.set_client_rules("local all postgres trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n");
        cluster.set(&format!("listen_addresses={address}"));
        cluster.set("ssl=on");
        cluster.set(&format!("ssl_cert_file={}", chain.display()));
        cluster.set(&format!("ssl_key_file={}", key.display()));
        cluster.stop();
        cluster.start();
        fleet.pass_time(DUE);
        Some(Self { fleet, ca, address })
    }

    fn host(&self) -> &Host {
        &self.fleet.hosts[0]
    }

    /// `once` with this URL. No message shows the password.
    fn once(&self, name: &str, password: &str, options: &str) -> Output {
        let user =
            if password.is_empty() { "zg_refresh".to_owned() } else { format!("zg_refresh:{password}") };
        let url = format!("postgresql://{user}@{name}/{DATABASE}?hostaddr={}{options}", self.address);
        self.fleet.configure_url(self.host(), "", &url);
        let output = self.host().run(["once", "--force"]);
        for secret in [PASSWORD, ENCODED, "ss:w", "wrong-password"] {
            assert!(!format!("{output:?}").contains(secret), "{output:?}");
        }
        output
    }

    fn ca_option(&self) -> String {
        format!("&sslrootcert={}", self.ca.display())
    }

    /// `once` fails with this exit code, and says all of that.
    #[track_caller]
    fn refused(&self, output: &Output, code: i32, words: &[&str]) {
        assert_eq!(output.code, Some(code), "{output:?}");
        for words in words {
            assert!(output.stderr.contains(words), "{words:?} in {output:?}");
        }
        assert_eq!(self.fleet.posts(), 1, "nothing is sent: {output:?}");
    }
}

#[test]
fn tls_and_a_password_are_checked() {
    let Some(database) = Protected::new() else { return };
    let ca = database.ca_option();
    let certificate_hint = "set sslrootcert in fleet.url to the authority of the database";

    // Nobody vouches for the certificate, with any of the modes that check it.
    let other = database.host().sandbox.path("other.pem");
    certificate(&other);
    for options in ["", "&sslmode=require", "&sslmode=verify-ca", "&sslmode=verify-full"] {
        let output = database.once(NAME, ENCODED, options);
        database.refused(&output, 69, &["certificate", certificate_hint]);
        let output = database.once(NAME, ENCODED, &format!("{options}&sslrootcert={}", other.display()));
        database.refused(&output, 69, &["certificate", certificate_hint]);
        // The certificate of another machine.
        let output = database.once("elsewhere.test", ENCODED, &format!("{options}{ca}"));
        database.refused(
            &output,
            69,
            &["certificate", "elsewhere.test", "name the host as its certificate does"],
        );
    }
    let missing = database.host().sandbox.path("missing.pem");
    let output = database.once(NAME, ENCODED, &format!("&sslrootcert={}", missing.display()));
    database.refused(&output, 69, &["missing.pem", "to a file of certificates in PEM"]);

    // Modes that may leave the connection unprotected.
    let output = database.once(NAME, ENCODED, &format!("&sslmode=disable{ca}"));
    database.refused(&output, 78, &["sslmode=disable for a host that is not this machine"]);
    let output = database.once(NAME, ENCODED, &format!("&sslmode=prefer{ca}"));
    database.refused(&output, 78, &["may fall back to an unprotected connection"]);
    // On this machine it is permitted; the server takes nothing without TLS.
    let output = database.once("127.0.0.1", ENCODED, "&sslmode=disable");
    database.refused(&output, 78, &["no pg_hba.conf entry"]);

    // Passwords.
    let password_hint = "correct user and password in fleet.url";
    let output = database.once(NAME, "wrong-password", &ca);
    database.refused(&output, 78, &["password authentication failed", password_hint]);
    let output = database.once(NAME, "", &ca);
    database.refused(&output, 78, &["password", password_hint]);

    // All is right: with the authority in the URL, and with that of the account.
    let output = database.once(NAME, ENCODED, &ca);
    assert_eq!((output.code, database.fleet.posts()), (Some(0), 2), "{output:?}");
    let url = format!(
        "postgresql://zg_refresh:{ENCODED}@{NAME}/{DATABASE}?hostaddr={}&sslmode=require",
        database.address
    );
    let ca_file = format!("ca_file = \"{}\"", database.ca.display());
    database.fleet.configure_url(database.host(), &ca_file, &url);
    database.fleet.pass_time(DUE);
    database.host().once_gives(0, []);
    assert_eq!(database.fleet.posts(), 3);
    let tls = "SELECT count(*) FROM pg_stat_activity AS a JOIN pg_stat_ssl AS s USING (pid) WHERE a.usename = 'zg_refresh'";
    assert_eq!(database.fleet.cluster.sql(tls), "0", "no connection stays behind");
}

#[test]
fn a_server_without_tls_is_refused() {
    let Some(database) = Protected::new() else { return };
    let Protected { mut fleet, address, ca } = database;
    fleet.cluster.set("ssl=off");
    fleet.cluster.stop();
    fleet.cluster.start();
    let url = format!(
        "postgresql://zg_refresh:{ENCODED}@{NAME}/{DATABASE}?hostaddr={address}&sslrootcert={}",
        ca.display()
    );
    fleet.configure_url(&fleet.hosts[0], "", &url);
    let output = fleet.hosts[0].once_gives(69, []);
    assert!(output.stderr.contains("TLS"), "{output:?}");
    assert_eq!(fleet.posts(), 1);
}
