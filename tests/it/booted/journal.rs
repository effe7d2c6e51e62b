//! The journal of a login: no field holds any of its secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zg_tokend::testing::demo::DemoClient;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;

use super::system::Instance;
use crate::common::{figure, wait_until};
use crate::secrets::encodings;

/// No digit in it, so that nothing but knowing it recognises it.
const CLIENT_SECRET: &str = "plainwordzgmarkjournal";

#[test]
fn no_field_has_a_secret() {
    let clients = vec![DemoClient::basic("zg", CLIENT_SECRET)];
    let Some(it) = Instance::new("otto", IssuerOptions { clients, ..IssuerOptions::default() }) else {
        return;
    };
    let seed = it.world.seed().expose().to_owned();
    let config = |surplus: &str| {
        let endpoint = it.world.server.token_endpoint();
        format!(
            "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nclient_secret = \"{CLIENT_SECRET}\"\n\
             refresh_token = \"{seed}\"{surplus}\n"
        )
    };
    let mut secrets = vec![CLIENT_SECRET.to_owned(), seed.clone()];
    let tokens = |secrets: &mut Vec<String>| {
        let state = it.state();
        let values = ["refresh_token", "access_token"].map(|token| state[token]["value"].as_str());
        secrets.extend(values.into_iter().flatten().map(str::to_owned));
    };
    it.person.put(&it.config(), &config(""));
    it.edit("[Service]\nEnvironment=RUST_LOG=trace RUST_BACKTRACE=1\n");
    it.do_systemctl("start");
    tokens(&mut secrets);
    it.refresh();
    tokens(&mut secrets);
    // Two failures with long messages: a config that shows its line, and a server that repeats what it
    // was sent.
    it.person.put(&it.config(), &config(&format!(" \"{seed}\"")));
    wait_until("that it is noticed", || {
        it.property("StatusText").starts_with("the new config is wrong").then_some(())
    });
    it.person.put(&it.config(), &config(""));
    wait_until("that it is mended", || {
        it.property("StatusText").starts_with("the token is fresh").then_some(())
    });
    let told = secrets.join(" ");
    let refusal = serde_json::json!({ "error": "invalid_grant", "error_description": told });
    it.world.fault(Fault::reply(400, refusal.to_string()));
    it.do_systemctl("kill -s USR1");
    wait_until("the refusal", || it.property("StatusText").contains("invalid_grant").then_some(()));
    it.do_systemctl("stop");

    // All native fields, in their binary form, which must come out of the box whole.
    let export = format!("journalctl --sync; journalctl -o export -u {} | base64 -w 0", it.unit);
    let journal = STANDARD.decode(it.person.machine.run(&export).trim()).unwrap();
    let has = |text: &str| journal.windows(text.len()).any(|part| part == text.as_bytes());
    for field in ["ACCOUNT=default", "EVENT=refreshed", "EVENT=needs_login", "_SYSTEMD_UNIT=", "PRIORITY=7"] {
        assert!(has(field), "{field} in {}", String::from_utf8_lossy(&journal));
    }
    let leaks: Vec<&String> =
        secrets.iter().filter(|secret| encodings(secret).iter().any(|needle| has(needle))).collect();
    figure(format!(
        "secrets: the journal: {} planted, {} bytes in all fields searched, {} leaks",
        secrets.len(),
        journal.len(),
        leaks.len()
    ));
    assert!(leaks.is_empty(), "{leaks:?} in {}", String::from_utf8_lossy(&journal));
}
