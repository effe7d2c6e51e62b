//! packaging/openapi.json agrees with the code: paths, status codes, and the members of bodies.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::daemon::control::answer::{Condition, PassBody, RejectedBody, TokenBody};
use crate::daemon::control::reply::ErrorBody;
use crate::daemon::control::routes::{Handler, ROUTES};
use crate::status::account::{AttemptStatus, CertificateStatus, RefreshTokenStatus, SupervisorStatus};
use crate::status::{AccountStatus, FleetStatus, ProbeStatus, PushStatus, Severity, State, TokenFileStatus};

fn document() -> Value {
    serde_json::from_str(include_str!("../../../packaging/openapi.json")).unwrap()
}

fn schemas() -> Value {
    document()["components"]["schemas"].take()
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn its_version_and_paths_are_those_that_are_served() {
    let document = document();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(names(&document["paths"]), ROUTES.iter().map(|route| route.0).collect());
    for (path, method, handler) in ROUTES {
        let operations = &document["paths"][path];
        assert_eq!(names(operations), BTreeSet::from([&*method.to_ascii_lowercase()]), "{path}");
        let operation = &operations[method.to_ascii_lowercase()];
        assert_eq!(operation["requestBody"].is_object(), handler.takes_json(), "{path}");
        let mut statuses = BTreeSet::from(["200", "405", "503"]);
        if !matches!(handler, Handler::Metrics | Handler::Health | Handler::Ready) {
            assert!(operation["parameters"].is_array(), "{path}");
            statuses.extend(["400", "404"]);
            // It does not say how the pass has ended.
            statuses.insert(if handler == Handler::Reread { "413" } else { "500" });
        }
        statuses.extend(match handler {
            Handler::Set => &["409", "413", "415"][..],
            Handler::Rejected => &["409", "413", "415", "429"],
            Handler::Refresh => &["409", "413", "429"],
            _ => &[],
        });
        assert_eq!(names(&operation["responses"]), statuses, "{path}");
    }
}

/// 403 is for other users, and the info says so.
#[test]
fn it_has_every_status_code_of_the_code() {
    let source = [include_str!("answer.rs"), include_str!("reply.rs")].concat();
    let words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let sent: BTreeSet<&str> =
        words.filter(|word| word.len() == 3 && matches!(word.parse(), Ok(400..600))).collect();
    let document = document();
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let mut described: BTreeSet<&str> =
        operations.flat_map(|operation| names(&operation["responses"])).collect();
    described.remove("200");
    assert!(document["info"]["description"].as_str().unwrap().contains("403"));
    described.insert("403");
    assert_eq!(sent, described);
}

/// An account is what it is in `status --json`.
#[test]
fn its_account_is_that_of_the_status_schema() {
    let status = include_str!("../../../packaging/status.schema.json")
        .replace("#/$defs/account", "#/components/schemas/Status")
        .replace("#/$defs/instant", "#/components/schemas/Instant")
        .replace("#/$defs/severity", "#/components/schemas/Severity");
    let status: Value = serde_json::from_str(&status).unwrap();
    let schemas = schemas();
    for (name, definition) in [("Status", "account"), ("Instant", "instant"), ("Severity", "severity")] {
        assert_eq!(schemas[name], status["$defs"][definition], "copy {definition} to {name}");
    }
    assert_eq!(names(&status["$defs"]).len(), 3);
}

/// Everything that can be said of an account at once: a new member does not compile without.
fn everything() -> AccountStatus {
    AccountStatus {
        plain_copy: Some(String::new()),
        account: "a".into(),
        from: Some("b".into()),
        state: State::Fresh,
        severity: Severity::Ok,
        problem: Some(String::new()),
        cause: Some(String::new()),
        hint: Some(String::new()),
        source: "login",
        token_file: TokenFileStatus {
            path: "/t".into(),
            exists: true,
            current: Some(true),
            modified_at: Some(1),
            masked_by: Some("V"),
        },
        outputs: vec![TokenFileStatus {
            path: "/o".into(),
            exists: true,
            current: Some(true),
            modified_at: Some(1),
            masked_by: None,
        }],
        grant_type: Some("client_credentials"),
        waits_for: Some("key".into()),
        certificates: vec![CertificateStatus { key: "certificate", path: "/c".into(), ends_at: Some(1) }],
        generation: Some(1),
        expires_at: Some(1),
        expires_in: Some(1),
        lifetime: Some(1),
        refresh_at: Some(1),
        next_refresh_at: Some(1),
        refresh_token: RefreshTokenStatus {
            available: true,
            source: Some("state"),
            at_rest: Some("plain"),
            seeded_at: Some(1),
            rotated_at: Some(1),
            ends_at: Some(1),
            identity: Some(String::new()),
            email: Some(String::new()),
        },
        last_attempt: Some(AttemptStatus {
            at: 1,
            result: "refreshed".into(),
            message: Some(String::new()),
            cause: Some(String::new()),
            failures: Some(1),
            failing_since: Some(1),
        }),
        push: vec![PushStatus {
            url: "u".into(),
            current: Some(true),
            at: Some(1),
            problem: Some(String::new()),
        }],
        probe: Some(ProbeStatus {
            url: "u".into(),
            at: Some(1),
            result: Some("other"),
            http_status: Some(200),
            problem: Some(String::new()),
            answered_at: Some(1),
        }),
        fleet: Some(FleetStatus {
            role: "read",
            epoch: Some(1),
            undelivered: true,
            seen_at: Some(1),
            claimed_by: Some(String::new()),
            listens: Some(true),
            waits: None,
            hint: None,
            problem: Some(String::new()),
        }),
        supervisor: Some(SupervisorStatus { pid: Some(1), stopped: true }),
    }
}

fn sent(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn its_members_are_those_of_the_replies() {
    let schemas = schemas();
    for (name, value) in [
        ("Status", sent(&everything())),
        ("Result", sent(&PassBody { account: "a", result: "stored" })),
        ("Condition", sent(&Condition { status: "ok" })),
        ("Error", sent(&ErrorBody { error: "e", error_description: "d", cause: Some("c"), hint: Some("h") })),
    ] {
        compare(&schemas, name, &schemas[name], &value);
    }
}

/// Of each object: the same members, and no others allowed.
#[track_caller]
fn compare(schemas: &Value, place: &str, schema: &Value, value: &Value) {
    let schema = match schema["$ref"].as_str() {
        Some(target) => &schemas[target.strip_prefix("#/components/schemas/").unwrap()],
        None => schema,
    };
    assert!(schema.is_object(), "{place}");
    match value {
        Value::Object(members) => {
            let documented: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
            assert_eq!(documented, members.keys().collect(), "{place}");
            assert_eq!(schema["additionalProperties"], false, "{place}");
            for (name, member) in members {
                compare(schemas, &format!("{place}.{name}"), &schema["properties"][name], member);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| compare(schemas, place, &schema["items"], item)),
        _ => {}
    }
}

#[test]
fn its_members_are_those_of_the_requests() {
    let schemas = schemas();
    for (name, taken) in [("Token", taken::<TokenBody>()), ("Rejected", taken::<RejectedBody>())] {
        let documented: BTreeSet<_> =
            schemas[name]["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(documented, taken, "{name}");
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
    }
}

/// The members that a body may have, by what serde says of another one.
fn taken<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_json::from_str::<T>(r#"{"nobody": 1}"#).err().unwrap().to_string();
    let (_, expected) = error.split_once("expected ").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
