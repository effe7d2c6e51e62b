//! The document says what the code does: the members of everything that is sent and taken.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::daemon::control::answer::{Condition, GivenBody, PassBody, RejectedBody};
use crate::daemon::control::openapi::*;
use crate::daemon::control::reply::ErrorBody;
use crate::status::{
    AccountStatus, AttemptStatus, ProbeStatus, PushStatus, RefreshTokenStatus, Severity, State,
    SupervisorStatus, TokenFileStatus,
};

/// The one that is shipped is the one that the code makes. What it should be is left in target.
#[test]
fn packaging_has_this_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = std::fs::read_to_string(root.join("packaging/openapi.json")).unwrap_or_default();
    if shipped != document() {
        std::fs::write(root.join("target/openapi.json"), document()).unwrap();
        panic!("packaging/openapi.json is not the document: copy target/openapi.json there");
    }
}

/// Everything that can be said of an account at once: a new member does not compile without.
fn everything() -> AccountStatus {
    AccountStatus {
        account: "a".into(),
        state: State::Fresh,
        severity: Severity::Ok,
        problem: Some(String::new()),
        hint: Some(String::new()),
        source: "login",
        token_file: TokenFileStatus {
            path: "/t".into(),
            exists: true,
            current: Some(true),
            modified_at: Some(1),
            masked_by: Some("V"),
        },
        generation: Some(1),
        expires_at: Some(1),
        expires_in: Some(1),
        lifetime: Some(1),
        refresh_at: Some(1),
        next_refresh_at: Some(1),
        refresh_token: RefreshTokenStatus {
            available: true,
            source: Some("state"),
            seeded_at: Some(1),
            rotated_at: Some(1),
        },
        last_attempt: Some(AttemptStatus {
            at: 1,
            result: "refreshed".into(),
            message: Some(String::new()),
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
        supervisor: Some(SupervisorStatus { pid: Some(1), stopped: true }),
    }
}

fn sent(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn its_members_are_those_of_the_replies() {
    let schemas = Value::Object(schemas());
    for (name, value) in [
        ("Status", sent(&everything())),
        ("Result", sent(&PassBody { account: "a", result: "stored" })),
        ("Condition", sent(&Condition { status: "ok" })),
        ("Error", sent(&ErrorBody { error: "e", error_description: "d", hint: Some("h") })),
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
    for (name, taken) in [("Token", taken::<GivenBody>()), ("Rejected", taken::<RejectedBody>())] {
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
