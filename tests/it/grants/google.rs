//! Files of Google. Its two endpoints are played by the test server, which verifies with jose.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Machines;
use super::files::Projected;
use crate::common::{Background, wait_until, write_private};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

fn configure(machines: &Machines, document: &Value) -> PathBuf {
    let file = machines.sandbox.path("key.json");
    write_private(&file, document.to_string().as_bytes());
    machines.sandbox.write_config(&format!(
        "google_credentials = \"{}\"\nconfirmed_endpoint_host = \"localhost\"\nscope = \"{SCOPE}\"\nca_file = \"{}\"\n",
        file.display(),
        machines.oidc.ca_file().display()
    ));
    file
}

fn service_account(machines: &Machines) -> Value {
    json!({
        "type": "service_account",
        "client_email": "robot@project.iam.gserviceaccount.com",
        "private_key": std::fs::read_to_string(machines.key("rsa.pem")).unwrap(),
        "private_key_id": "abc",
        "token_uri": format!("{}/google/token", machines.oidc.https()),
    })
}

fn seen(machines: &Machines) -> Value {
    serde_json::from_str(&machines.get("/_seen")).unwrap()
}

#[test]
fn a_service_account_signs_its_own_assertion() {
    let Some(machines) = Machines::start() else { return };
    configure(&machines, &service_account(&machines));
    machines.once_gives(0, &[]);
    assert_eq!(machines.token().expose(), "service");
    let seen = seen(&machines);
    assert_eq!(seen[0]["payload"]["scope"], SCOPE);
    assert_eq!(seen[0]["payload"].get("sub"), None);
    assert_eq!(seen[0]["header"], json!({ "alg": "RS256", "kid": "abc", "typ": "JWT" }));
}

#[test]
fn a_user_of_gcloud_is_refreshed_without_a_state_of_the_login() {
    let Some(machines) = Machines::start() else { return };
    // gcloud's own file has no token_uri: Google's is meant, which this test must not ask.
    let user = json!({
        "type": "authorized_user", "client_id": "user", "client_secret": "user-secret",
        "refresh_token": "user-token", "token_uri": format!("{}/google/token", machines.oidc.https()),
    });
    configure(&machines, &user);
    machines.once_gives(0, &[]);
    assert_eq!(machines.token().expose(), "user");
    assert_eq!(machines.state().get("refresh_token"), None);
}

#[test]
fn an_external_account_is_exchanged_and_impersonated() {
    let Some(machines) = Machines::start() else { return };
    let token = machines.sandbox.path("platform.json");
    write_private(&token, json!({ "value": machines.get("/_mint") }).to_string().as_bytes());
    let document = json!({
        "type": "external_account", "audience": "//iam.googleapis.com/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/google/token", machines.oidc.https()),
        "service_account_impersonation_url": format!("{}/google/impersonate", machines.oidc.https()),
        "credential_source": { "file": token, "format": { "type": "json", "subject_token_field_name": "value" } },
    });
    configure(&machines, &document);
    machines.once_gives(0, &[]);
    assert_eq!(machines.token().expose(), "impersonated");
    let seen = seen(&machines);
    assert_eq!(seen[0]["form"]["audience"], "//iam.googleapis.com/pool");
    assert_eq!(seen[0]["form"]["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(seen[1], json!({ "scope": [SCOPE], "lifetime": "3600s" }));
    let lifetime = machines.state()["access_token"]["lifetime_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_600_000).contains(&lifetime), "{lifetime}");
}

#[test]
fn run_sees_the_platform_s_token_that_google_s_file_names() {
    let Some(machines) = Machines::start() else { return };
    let mut volume = Projected::new(&machines.sandbox.path("volume"));
    volume.write(&machines.get("/_mint?life=-60"));
    let document = json!({
        "type": "external_account", "audience": "//iam.googleapis.com/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/google/token", machines.oidc.https()),
        "credential_source": { "file": volume.token() },
    });
    configure(&machines, &document);
    let before = machines.fail_for_hours();
    let mut run = Background::start(&mut machines.sandbox.command(["run"]), machines.sandbox.path("log"));
    wait_until("the expired token is named", || (machines.failures() > before).then_some(()));
    run.wait_for("whatever writes it has stopped");
    volume.write(&machines.get("/_mint"));
    run.wait_for("token 1 lives");
    assert_eq!(machines.token().expose(), "federated");
    assert_eq!(run.stop().code(), Some(0));
}

#[test]
fn a_file_that_leads_elsewhere_or_wants_more_is_refused_by_name() {
    let Some(machines) = Machines::start() else { return };
    let mut elsewhere = service_account(&machines);
    elsewhere["token_uri"] = "https://attacker.example/token".into();
    let source = |source: Value| {
        json!({
            "type": "external_account", "audience": "a", "subject_token_type": "t",
            "token_url": "https://sts.googleapis.com/v1/token", "credential_source": source,
        })
    };
    for (document, words) in [
        (elsewhere, "leads to attacker.example, which is not Google's"),
        (source(json!({ "executable": { "command": "x" } })), "takes its token from an executable"),
        (source(json!({ "environment_id": "aws1" })), "takes its token from AWS"),
        (source(json!({ "url": "http://169.254.169.254/" })), "takes its token from a URL"),
        (json!({ "type": "gdch_service_account" }), "is of the type gdch_service_account"),
    ] {
        configure(&machines, &document);
        let output = machines.once_gives(78, &["--force"]);
        assert!(output.stderr.contains(words), "{words}: {output:?}");
        std::fs::remove_dir_all(machines.sandbox.path("state/zg-tokend")).unwrap();
    }
}
