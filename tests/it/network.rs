//! Which address the refresh token goes to, and which it never goes to.

use std::fs;

use serde_json::Value;
use zg_tokend::testing::demo::IssuerOptions;

use crate::common::documents::Documents;
use crate::common::world::World;
use crate::common::{Output, Sandbox, finish, tls};

const OAUTH: &str = "oauth-authorization-server";
const OPENID: &str = "openid-configuration";

/// A world whose token endpoint is found by discovery.
struct Discovered {
    world: World,
    documents: Documents,
    seed: String,
}

impl Discovered {
    fn new() -> Self {
        let world = World::new();
        let seed = world.seed().expose().to_owned();
        let discovered = Self { world, documents: Documents::start(), seed };
        discovered.configure("");
        discovered
    }

    fn configure(&self, extra: &str) {
        let (issuer, seed) = (self.documents.url(), &self.seed);
        self.world.sandbox.write_config(&format!(
            "issuer = \"{issuer}\"\nclient_id = \"demo\"\nrefresh_token = \"{seed}\"\n{extra}"
        ));
    }

    fn publish(&self, name: &str) {
        self.documents.discover(name, self.documents.url(), &self.world.server.token_endpoint());
    }

    /// The cache as it will be in a day.
    fn outdate(&self) {
        let path = self.world.state_path("default", "discovery");
        let mut cached: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for clock in ["wall_ms", "boot_ms"] {
            let at = &mut cached["fetched_at"][clock];
            *at = (at.as_i64().unwrap() - 24 * 3_600_000).into();
        }
        fs::write(path, cached.to_string()).unwrap();
    }

    fn fetches(&self) -> usize {
        self.documents.requests().len()
    }
}

#[test]
fn the_token_endpoint_is_discovered_at_either_place() {
    for (name, fetches) in [(OAUTH, 1), (OPENID, 2)] {
        let discovered = Discovered::new();
        discovered.publish(name);
        discovered.world.once_gives(0, []);
        discovered.world.assert_live();
        let requests = discovered.documents.requests();
        assert_eq!(
            (requests.len(), requests.last().unwrap()),
            (fetches, &format!("GET /.well-known/{name}"))
        );
    }
}

#[test]
fn a_discovery_document_is_kept_for_a_day() {
    let discovered = Discovered::new();
    discovered.publish(OAUTH);
    for _ in 0..3 {
        discovered.world.once_gives(0, ["--force"]);
    }
    assert_eq!(discovered.fetches(), 1);
    discovered.outdate();
    discovered.world.once_gives(0, []);
    assert_eq!(discovered.fetches(), 1, "nothing was due");
    discovered.world.once_gives(0, ["--force"]);
    assert_eq!(discovered.fetches(), 2);
}

#[test]
fn a_document_that_cannot_be_fetched_again_is_kept() {
    let discovered = Discovered::new();
    discovered.publish(OAUTH);
    discovered.world.once_gives(0, []);
    discovered.outdate();
    discovered.documents.remove(&format!("/.well-known/{OAUTH}"));
    discovered.world.once_gives(0, ["--force"]);
    assert_eq!((discovered.fetches(), discovered.world.posts()), (3, 2));
    discovered.world.assert_live();
}

#[test]
fn a_document_of_another_issuer_is_refused() {
    let discovered = Discovered::new();
    let endpoint = discovered.world.server.token_endpoint();
    // The same host, and a slash more.
    let other = format!("{}/", discovered.documents.url());
    discovered.documents.discover(OAUTH, &other, &endpoint);
    let output = discovered.world.once_gives(78, []);
    assert!(output.stderr.contains(&other), "{output:?}");
    assert_eq!(discovered.world.posts(), 0);
}

#[test]
fn an_endpoint_without_encryption_is_refused() {
    let discovered = Discovered::new();
    let documents = &discovered.documents;
    documents.discover(OAUTH, documents.url(), "http://192.0.2.1/token");
    let output = discovered.world.once_gives(78, []);
    assert!(output.stderr.contains("not https"), "{output:?}");
}

#[test]
fn an_issuer_that_is_down_is_only_unavailable() {
    let discovered = Discovered::new();
    for name in [OAUTH, OPENID] {
        discovered.documents.put(&format!("/.well-known/{name}"), 503, "", "");
    }
    discovered.world.once_gives(69, []);
    discovered.publish(OAUTH);
    discovered.world.once_gives(0, []);
}

#[test]
fn an_endpoint_that_moves_to_another_host_needs_confirmation() {
    let discovered = Discovered::new();
    discovered.publish(OAUTH);
    let world = &discovered.world;
    world.once_gives(0, []);
    let moved = world.server.token_endpoint().replace("127.0.0.1", "localhost");
    discovered.documents.discover(OAUTH, discovered.documents.url(), &moved);
    discovered.outdate();
    let output = world.once_gives(78, ["--force"]);
    assert!(output.stderr.contains("confirmed_endpoint_host = \"localhost\""), "{output:?}");
    assert_eq!(world.posts(), 1);
    world.assert_live();

    discovered.configure("confirmed_endpoint_host = \"localhost\"\n");
    world.pass_time(std::time::Duration::from_secs(10));
    world.once_gives(0, ["--force"]);
    world.once_gives(0, ["--force"]);
    assert_eq!(world.posts(), 3);
}

#[test]
fn an_explicit_endpoint_wins_over_the_issuer() {
    let discovered = Discovered::new();
    discovered.configure(&format!("token_endpoint = \"{}\"\n", discovered.world.server.token_endpoint()));
    discovered.world.once_gives(0, []);
    discovered.world.assert_live();
    assert_eq!(discovered.fetches(), 0);
}

#[test]
fn http_to_another_machine_is_refused() {
    let world = World::new();
    let config = "token_endpoint = \"http://192.0.2.1/token\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n";
    world.sandbox.write_config(config);
    for command in ["check", "once"] {
        let output = world.sandbox.run([command]);
        assert_eq!(output.code, Some(78), "{output:?}");
        assert!(output.stderr.contains("allow_http"), "{output:?}");
    }
    world.sandbox.write_config(&format!("{config}allow_http = true\n"));
    assert_eq!(world.sandbox.run(["check"]).code, Some(0));
}

#[test]
fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let world = World::new();
        let documents = Documents::start();
        let location = format!("location: {}\r\n", world.server.token_endpoint());
        documents.put("/token", status, &location, "");
        world.sandbox.write_config(&format!(
            "token_endpoint = \"{}/token\"\nclient_id = \"demo\"\nrefresh_token = \"{}\"\n",
            documents.url(),
            world.seed().expose()
        ));
        let output = world.once_gives(69, []);
        assert!(output.stderr.contains(&status.to_string()), "{output:?}");
        assert_eq!((documents.requests().len(), world.posts()), (1, 0));
    }
}

fn once_by_proxy(sandbox: &Sandbox, proxy: &Documents) -> Output {
    let mut once = sandbox.command(["once"]);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        once.env(name, proxy.url());
    }
    finish(&mut once)
}

#[test]
fn a_proxy_never_sees_loopback_nor_http() {
    let proxy = Documents::start();
    let world = World::new();
    world.configure("");
    assert_eq!(once_by_proxy(&world.sandbox, &proxy).code, Some(0));

    let sandbox = Sandbox::new();
    let ca_file = sandbox.path("ca.pem");
    let server = tls::serve(IssuerOptions::default(), &ca_file);
    sandbox.write_config(&format!(
        "token_endpoint = \"{}\"\nclient_id = \"demo\"\nrefresh_token = \"{}\"\nca_file = \"{}\"\n",
        server.token_endpoint(),
        server.seed("demo").unwrap().expose(),
        ca_file.display()
    ));
    let output = once_by_proxy(&sandbox, &proxy);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(proxy.requests(), [""; 0]);

    sandbox.write_config(
        "token_endpoint = \"http://nowhere.invalid/token\"\nallow_http = true\nclient_id = \"demo\"\n\
         refresh_token = \"x\"\n",
    );
    once_by_proxy(&sandbox, &proxy);
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn a_proxy_is_used_for_https_to_other_machines() {
    let proxy = Documents::start();
    let sandbox = Sandbox::new();
    sandbox.write_config(
        "token_endpoint = \"https://nowhere.invalid/token\"\nclient_id = \"demo\"\nrefresh_token = \"x\"\n",
    );
    let output = once_by_proxy(&sandbox, &proxy);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert_eq!(proxy.requests(), ["CONNECT nowhere.invalid:443"]);
    assert!(output.stderr.contains("PROXY"), "{output:?}");
}
