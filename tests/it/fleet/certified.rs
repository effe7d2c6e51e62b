//! Two hosts before the certified server, which revokes the login when a refresh token is sent again.

use super::hosts::{DUE, Fleet, Host};
use crate::common::oidc::Oidc;
use crate::common::tally::Tally;

#[test]
fn two_hosts_share_a_login_of_the_certified_server() {
    let Some(oidc) = Oidc::start([("ACCESS_TOKEN_TTL", "3600")]) else { return };
    let Some(fleet) = Fleet::new(2) else { return };
    let tally = Tally::before(oidc.http());
    let seed = oidc.seed(oidc.http(), "zgpub");
    for (place, host) in fleet.hosts.iter().enumerate() {
        let login = if place == 0 { format!("refresh_token = \"{}\"", seed.expose()) } else { String::new() };
        fleet.configure(host, &login);
        let config = std::fs::read_to_string(host.sandbox.config_path()).unwrap();
        let endpoint = format!("token_endpoint = \"http://{}/token\"", tally.address());
        let lines = config.lines().map(|line| match line.split(' ').next() {
            Some("token_endpoint") => endpoint.clone(),
            Some("client_id") => "client_id = \"zgpub\"".to_owned(),
            _ => line.to_owned(),
        });
        host.sandbox.write_config(&format!("{}\n", lines.collect::<Vec<_>>().join("\n")));
        host.once_gives(0, []);
    }
    assert_eq!(tally.count("POST /token"), 1);
    for epoch in 2..6 {
        fleet.pass_time(DUE);
        // Both at once, and then both again.
        let start = |host: &Host| {
            crate::common::Background::start(&mut host.command(["once"]), host.sandbox.path("once.log"))
        };
        let passes: Vec<_> = fleet.hosts.iter().map(start).collect();
        for mut pass in passes {
            assert_eq!(pass.wait().code(), Some(0), "{}", pass.log());
        }
        assert_eq!(tally.count("POST /token"), epoch, "one request for each epoch");
        assert_eq!(fleet.hosts[0].token(), fleet.hosts[1].token());
    }
}
