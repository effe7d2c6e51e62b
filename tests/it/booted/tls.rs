//! Both units over TLS, against a certified server by somebody else: looking up its name, reading
//! the file of its CA and the exchange itself are possible in their confinement.

use std::fs;
use std::sync::Arc;

use serde_json::Value;

use super::machine::{Machine, Person};
use crate::common::oidc::Oidc;
use crate::common::world::read;
use crate::common::{curl, wait_until};

/// The server, whose tokens live for an hour, and the box.
fn server_and_machine() -> Option<(Oidc, Arc<Machine>)> {
    let machine = Machine::shared()?;
    Some((Oidc::start([("ACCESS_TOKEN_TTL", "3600")])?, machine))
}

/// A config that trusts nobody but the server's own CA, with a new login.
fn config(oidc: &Oidc, ca_file: &str) -> String {
    let issuer = oidc.https();
    let seed = oidc.seed(issuer, "zg");
    format!(
        "issuer = \"{issuer}\"\nca_file = \"{ca_file}\"\nclient_id = \"zg\"\n\
         client_secret = \"s3cret+/%: &=\"\nrefresh_token = \"{}\"\n",
        seed.expose()
    )
}

/// Starts the unit and lets it refresh twice more; the server, which forgives no second use of a
/// refresh token, must take what is then in the token file.
fn assert_rotates(oidc: &Oidc, person: &Person, state_dir: &str, systemctl: &dyn Fn(&str) -> String) {
    let path = person.machine.path(format!("{state_dir}/default/state"));
    let state = || -> Value { serde_json::from_str(read(&path).expose()).unwrap() };
    systemctl("start");
    assert_eq!(state()["generation"], 1, "started means: there is a token");
    for generation in 2..=3 {
        systemctl("kill -s USR1");
        wait_until("one more refresh", || (state()["generation"] == generation).then_some(()));
    }
    let token = || read(&person.machine.path(person.home(".config/zerogravity/token")));
    wait_until("the new token in its file", || {
        (state()["access_token"]["value"] == token().expose()).then_some(())
    });
    let (form, url) =
        (format!("token={}", token().expose()), format!("{}/token/introspection", oidc.https()));
    let ca_file = oidc.ca_file().to_str().unwrap();
    let reply = curl(["--cacert", ca_file, "-u", "zg:s3cret%2B%2F%25%3A+%26%3D", "-d", &form, &url]);
    assert_eq!(reply.body["active"], true, "{reply:?}");
    systemctl("stop");
}

#[test]
fn the_system_unit_rotates_over_tls() {
    let Some((oidc, machine)) = server_and_machine() else { return };
    let person = machine.person("nell");
    person.make(&person.home(".config/zerogravity"));
    machine.put("/etc/zg-tokend/nell.pem", &fs::read(oidc.ca_file()).unwrap(), 0o644);
    person.put("/etc/zg-tokend/nell.toml", &config(&oidc, "nell.pem"));
    let systemctl = |verb: &str| machine.run(&format!("systemctl {verb} zg-tokend@nell"));
    assert_rotates(&oidc, &person, "/var/lib/zg-tokend/nell", &systemctl);
}

#[test]
fn the_user_unit_rotates_over_tls() {
    let Some((oidc, machine)) = server_and_machine() else { return };
    let person = machine.person("gerd");
    let place = person.home(".config/zg-tokend");
    person.make(&place);
    person.put(&format!("{place}/ca.pem"), &fs::read_to_string(oidc.ca_file()).unwrap());
    person.put(&format!("{place}/config.toml"), &config(&oidc, "ca.pem"));
    person.linger();
    let systemctl = |verb: &str| person.run(&format!("systemctl --user {verb} zg-tokend"));
    assert_rotates(&oidc, &person, &person.home(".local/state/zg-tokend"), &systemctl);
}
