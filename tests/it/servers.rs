//! The embedded server and the certified one tell the same story, so that what the binary
//! learns from the one holds with the other.

use serde_json::Value;
use zg_tokend::testing::demo::DemoClient;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{AuditEvent, RevocationReason};
use zg_tokend::testing::secret::Secret;

use crate::common::oidc::Oidc;
use crate::common::{Reply, Sandbox, audit, curl, tls};

/// Each client, and how it authenticates in curl's words.
const CLIENTS: [(&str, &[&str]); 3] = [
    ("zg", &["-u", "zg:s3cret%2B%2F%25%3A+%26%3D"]),
    ("zgpost", &["-d", "client_id=zgpost", "-d", "client_secret=p0st"]),
    ("zgpub", &["-d", "client_id=zgpub"]),
];

struct Peer<'a> {
    issuer: &'a str,
    ca_file: &'a str,
    metadata: Value,
}

impl<'a> Peer<'a> {
    fn discover(issuer: &'a str, ca_file: &'a str, document: &str) -> Self {
        let metadata = curl(["--cacert", ca_file, &format!("{issuer}/.well-known/{document}")]).body;
        assert_eq!(metadata["issuer"], issuer);
        Self { issuer, ca_file, metadata }
    }

    fn post(&self, endpoint: &str, auth: &[&str], fields: &[&str]) -> Reply {
        let url = self.metadata[endpoint].as_str().unwrap();
        assert!(url.starts_with(self.issuer));
        let mut args = vec!["--cacert", self.ca_file];
        args.extend(auth);
        args.extend(fields.iter().flat_map(|field| ["-d", field]));
        args.push(url);
        curl(args)
    }

    fn refresh(&self, auth: &[&str], token: &Secret) -> Reply {
        let token = format!("refresh_token={}", token.expose());
        self.post("token_endpoint", auth, &["grant_type=refresh_token", &token])
    }

    fn is_active(&self, auth: &[&str], token: &Secret) -> bool {
        let reply = self.post("introspection_endpoint", auth, &[&format!("token={}", token.expose())]);
        reply.body["active"].as_bool().unwrap()
    }
}

fn secret(reply: &Reply, name: &str) -> Secret {
    assert_eq!(reply.status, 200, "{reply:?}");
    Secret::new(reply.body[name].as_str().unwrap())
}

#[track_caller]
fn assert_invalid_grant(reply: &Reply) {
    assert_eq!((reply.status, reply.body["error"].as_str()), (400, Some("invalid_grant")));
}

/// Refreshes, rotates, presents a replaced refresh token and loses the login.
fn assert_rotation(peer: &Peer<'_>, auth: &[&str], seed: &Secret) {
    let first = peer.refresh(auth, seed);
    assert!(peer.is_active(auth, &secret(&first, "access_token")));
    let second = peer.refresh(auth, &secret(&first, "refresh_token"));
    let newest = secret(&second, "refresh_token");
    assert!(newest != *seed && newest != secret(&first, "refresh_token"));
    assert_eq!(second.body["token_type"], "Bearer");
    assert_eq!(second.body["expires_in"], 600);

    assert_invalid_grant(&peer.refresh(auth, seed));
    assert_invalid_grant(&peer.refresh(auth, &newest));
    assert!(!peer.is_active(auth, &secret(&second, "access_token")));
}

/// Revokes a refresh token, which takes the access token along; then gets the secret wrong.
fn assert_refusals(peer: &Peer<'_>, auth: &[&str], seed: &Secret) {
    let grant = peer.refresh(auth, seed);
    let token = secret(&grant, "refresh_token");
    let revoked = peer.post("revocation_endpoint", auth, &[&format!("token={}", token.expose())]);
    assert_eq!(revoked.status, 200);
    assert_invalid_grant(&peer.refresh(auth, &token));
    assert!(!peer.is_active(auth, &secret(&grant, "access_token")));

    let reply = peer.refresh(&["-u", "zg:wrong"], &token);
    assert_eq!((reply.status, reply.body["error"].as_str()), (401, Some("invalid_client")));
}

#[test]
fn the_certified_server_rotates_and_revokes() {
    let Some(oidc) = Oidc::start([("ACCESS_TOKEN_TTL", "600")]) else { return };
    let ca_file = oidc.ca_file().to_str().unwrap();
    for issuer in [oidc.http(), oidc.https()] {
        let peer = Peer::discover(issuer, ca_file, "openid-configuration");
        for (client_id, auth) in CLIENTS {
            assert_rotation(&peer, auth, &oidc.seed(issuer, client_id));
            assert_refusals(&peer, auth, &oidc.seed(issuer, client_id));
        }
    }
}

#[test]
fn the_embedded_server_does_the_same_over_https() {
    let sandbox = Sandbox::new();
    let ca_file = sandbox.path("ca.pem");
    let options = IssuerOptions {
        clients: vec![
            DemoClient::basic("zg", "s3cret+/%: &="),
            DemoClient::post("zgpost", "p0st"),
            DemoClient::public("zgpub"),
        ],
        access_token_lifetime: std::time::Duration::from_secs(600),
        ..IssuerOptions::default()
    };
    let server = tls::serve(options, &ca_file);
    for document in ["openid-configuration", "oauth-authorization-server"] {
        let peer = Peer::discover(server.url(), ca_file.to_str().unwrap(), document);
        for (client_id, auth) in CLIENTS {
            assert_rotation(&peer, auth, &server.seed(client_id).unwrap());
            assert_refusals(&peer, auth, &server.seed(client_id).unwrap());
        }
    }
    let log = server.audit();
    let reuses =
        log.iter().filter(|entry| entry.event == AuditEvent::Revocation { reason: RevocationReason::Reuse });
    assert_eq!((audit::posts(&log), audit::grants(&log), reuses.count()), (6 * 7, 6 * 3, 6));
}
