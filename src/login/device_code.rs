//! Device codes, and the meaning of the answers to a poll: RFC 8628. Pure.

use std::time::Duration;

use serde::Deserialize;

use crate::message::duration;
use crate::oauth::{Answer, Doubt, ErrorReply, ServerFailure, Unavailable, Unclear};
use crate::problem::{Class, Problem};
use crate::secret::Secret;

/// Section 3.2: the interval if the server states none.
const INTERVAL: Duration = Duration::from_secs(5);

/// Section 3.5: each `slow_down` adds this.
const SLOWER: Duration = Duration::from_secs(5);

/// A clock that runs a fifth too fast, as that of a virtual machine may, is no reason for a `slow_down`.
const MARGIN: f64 = 1.2;

/// The longest pause, whatever the server says: a user waits.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The life of a code that states none (it must, section 3.2).
pub const LIFETIME: Duration = Duration::from_secs(900);

/// The answer to a device authorization request, section 3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    /// The device_code.
    pub secret: Secret,
    /// Shown to the user, and worth nothing without the device code.
    pub user_code: String,
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    pub expires_in: Duration,
    interval: Duration,
}

/// Why there is no device code.
#[derive(Debug)]
pub enum DeviceFault {
    /// The server has no such flow for this client: another one may do.
    NotOffered(String),
    Problem(Problem),
}

impl From<Problem> for DeviceFault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Reads the answer. Google says `verification_url`.
pub fn parse_device_code(body: &[u8]) -> Option<DeviceCode> {
    #[derive(Deserialize)]
    struct Members {
        device_code: String,
        user_code: String,
        #[serde(alias = "verification_url")]
        verification_uri: String,
        #[serde(alias = "verification_url_complete")]
        verification_uri_complete: Option<String>,
        expires_in: Option<f64>,
        interval: Option<f64>,
    }

    let members: Members = serde_json::from_slice(body).ok()?;
    let seconds = |value: Option<f64>, otherwise: Duration| {
        let stated = value.filter(|value| value.is_finite() && *value >= 1.0 && *value < 1e6);
        stated.map_or(otherwise, Duration::from_secs_f64)
    };
    let is_url = |text: &String| text.parse::<url::Url>().is_ok();
    let is_whole = !members.device_code.is_empty() && !members.user_code.is_empty();
    (is_whole && is_url(&members.verification_uri)).then(|| DeviceCode {
        secret: Secret::new(members.device_code),
        user_code: members.user_code,
        verification_uri: members.verification_uri,
        verification_uri_complete: members.verification_uri_complete.filter(is_url),
        expires_in: seconds(members.expires_in, LIFETIME),
        interval: seconds(members.interval, INTERVAL).min(INTERVAL_MAX),
    })
}

/// The statuses and codes by which servers say that they have no such flow, as the GitHub CLI knows them.
pub fn judge_refusal(status: u16, error: Option<&ErrorReply>) -> DeviceFault {
    let code = error.map_or("", |error| error.code.as_str());
    let said = error.map(|error| format!(": {error}")).unwrap_or_default();
    let message = format!("the server gives no device code (HTTP {status}){said}");
    let other = ["unauthorized_client", "unsupported_grant_type", "device_flow_disabled"];
    if other.contains(&code) || (matches!(status, 401 | 403 | 404 | 405 | 422) && code != "invalid_client") {
        return DeviceFault::NotOffered(message);
    }
    let (class, hint) = match (status, code) {
        (408 | 425 | 429 | 500..=599, _) | (_, "temporarily_unavailable" | "server_error" | "slow_down") => {
            (Class::Unavailable, "try again later")
        }
        (_, "invalid_scope") => (Class::Config, "check login_scope"),
        (_, "invalid_client") => {
            (Class::Config, "check client_id, client_secret and token_endpoint_auth_method")
        }
        _ => (Class::Config, "check device_authorization_endpoint, client_id and login_scope"),
    };
    DeviceFault::Problem(Problem::of(class, "device_code", message).hint(hint))
}

/// The meaning of an answer to a poll, section 3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollResult {
    /// The user has consented.
    Granted,
    /// The user is not done yet.
    Pending,
    SlowDown,
    Expired,
    Denied,
    /// The network or the server: section 3.5 asks for patience.
    Trouble,
    /// Nothing that passes.
    Failed,
}

pub fn judge_poll(answer: &Answer) -> PollResult {
    match answer {
        Answer::Granted(_) | Answer::Defective { refresh_token: Some(_), .. } => return PollResult::Granted,
        Answer::Defective { .. } => return PollResult::Failed,
        Answer::Unavailable(Unavailable { reason: ServerFailure::Redirect { .. }, .. }) => {
            return PollResult::Failed;
        }
        _ => {}
    }
    match error_in(answer).map_or("", |error| error.code.as_str()) {
        "authorization_pending" => PollResult::Pending,
        "slow_down" => PollResult::SlowDown,
        "access_denied" | "authorization_declined" => PollResult::Denied,
        "expired_token" | "code_expired" => PollResult::Expired,
        _ => match answer {
            Answer::Unavailable(_) | Answer::Ambiguous(_) => PollResult::Trouble,
            _ => PollResult::Failed,
        },
    }
}

/// The error that the server names.
pub fn error_in(answer: &Answer) -> Option<&ErrorReply> {
    match answer {
        Answer::InvalidGrant(error)
        | Answer::ClientRefused(error)
        | Answer::Unavailable(Unavailable { reason: ServerFailure::Refused(error), .. }) => Some(error),
        Answer::Unavailable(Unavailable { reason: ServerFailure::Status { words, .. }, .. })
        | Answer::Ambiguous(Unclear { reason: Doubt::Gateway { words, .. }, .. }) => words.as_ref(),
        _ => None,
    }
}

/// The pause before the next poll; `slower` counts the answers `slow_down`.
pub fn pause(code: &DeviceCode, slower: u32) -> Duration {
    (code.interval + SLOWER.saturating_mul(slower)).min(INTERVAL_MAX).mul_f64(MARGIN)
}

impl DeviceCode {
    /// For people.
    pub fn life(&self) -> String {
        duration(self.expires_in)
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::{Clock as _, SystemClock};
    use crate::login::device_code::*;
    use crate::oauth::{FailureKind, Reply, ReplyContext, Sent, TransportFailure, classify};

    fn answer(status: u16, body: &str) -> Answer {
        let reply = Reply { status, body: body.as_bytes().to_vec().into(), ..Reply::default() };
        let context =
            ReplyContext { now: SystemClock::new().now(), default_lifetime: INTERVAL, known_secrets: &[] };
        classify(Ok(&reply), &context)
    }

    #[test]
    fn an_answer_to_a_poll_waits_or_ends_it() {
        let error = |code: &str| format!(r#"{{"error":"{code}","error_description":"words"}}"#);
        for (status, code, result) in [
            (400, "authorization_pending", PollResult::Pending),
            (403, "authorization_pending", PollResult::Pending),
            (428, "authorization_pending", PollResult::Pending),
            // GitHub.
            (200, "authorization_pending", PollResult::Pending),
            (400, "slow_down", PollResult::SlowDown),
            (429, "slow_down", PollResult::SlowDown),
            (400, "access_denied", PollResult::Denied),
            (403, "access_denied", PollResult::Denied),
            // Entra ID.
            (400, "authorization_declined", PollResult::Denied),
            (400, "expired_token", PollResult::Expired),
            (400, "invalid_grant", PollResult::Failed),
            (401, "invalid_client", PollResult::Failed),
            (503, "server_error", PollResult::Trouble),
            (502, "", PollResult::Trouble),
        ] {
            assert_eq!(judge_poll(&answer(status, &error(code))), result, "{status} {code}");
        }
        let granted = r#"{"access_token":"a","refresh_token":"r","expires_in":60,"token_type":"Bearer"}"#;
        assert_eq!(judge_poll(&answer(200, granted)), PollResult::Granted);
        let failure =
            TransportFailure { sent: Sent::PerhapsSent, kind: FailureKind::Timeout, detail: String::new() };
        let context =
            ReplyContext { now: SystemClock::new().now(), default_lifetime: INTERVAL, known_secrets: &[] };
        assert_eq!(judge_poll(&classify(Err(&failure), &context)), PollResult::Trouble);
    }

    #[test]
    fn a_code_is_read_as_servers_write_it() {
        let google =
            br#"{"device_code":"d","user_code":"AB-CD","verification_url":"https://g.example/device",
            "expires_in":1800,"interval":5}"#;
        let code = parse_device_code(google).unwrap();
        assert_eq!(
            (code.verification_uri.as_str(), code.expires_in, code.interval),
            ("https://g.example/device", Duration::from_secs(1800), INTERVAL)
        );
        assert_eq!(pause(&code, 0), Duration::from_secs(6));
        assert_eq!(pause(&code, 2), Duration::from_secs(18));
        assert_eq!(
            pause(&code, 1000),
            Duration::from_secs(72),
            "it never gives up, and never sleeps for long"
        );
        let odd = br#"{"device_code":"d","user_code":"u","verification_uri":"https://a/","interval":-1,"expires_in":0}"#;
        let code = parse_device_code(odd).unwrap();
        assert_eq!((code.interval, code.expires_in), (INTERVAL, LIFETIME));
        for bad in [
            "{}",
            "x",
            r#"{"device_code":"","user_code":"u","verification_uri":"https://a/"}"#,
            r#"{"device_code":"d","user_code":"u","verification_uri":"no"}"#,
        ] {
            assert_eq!(parse_device_code(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_server_without_the_flow_is_told_from_a_fault() {
        let reply =
            |code: &str| ErrorReply { code: code.into(), description: None, uri: None, clock_ahead: None };
        for (status, code, is_offered) in [
            (404, "", false),
            (403, "", false),
            (422, "", false),
            (400, "unauthorized_client", false),
            (400, "device_flow_disabled", false),
            (401, "invalid_client", true),
            (400, "invalid_scope", true),
            (503, "", true),
        ] {
            let fault = judge_refusal(status, Some(&reply(code)));
            assert_eq!(matches!(fault, DeviceFault::Problem(_)), is_offered, "{status} {code}");
        }
    }
}
