//! Every answer a token endpoint can give, in one table; and what must hold for any bytes.

mod meaning;
mod providers;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use crate::clock::Timestamp;
use crate::oauth::*;
use crate::redact::scrub;
use crate::secret::{Fingerprint, Secret};

/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;

fn classify_with(result: Result<&Reply, &TransportFailure>, known_secrets: &[&Secret]) -> Answer {
    let now = Timestamp { wall: NOW * 1000, boot: 0, boot_id: Fingerprint::of([b"boot"]) };
    classify(result, &ReplyContext { now, default_lifetime: Duration::from_secs(1800), known_secrets })
}

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, body: body.into().into(), ..Reply::default() }
}

/// An answer in a few words, for the table.
fn summary(answer: &Answer) -> String {
    let kind = answer.kind();
    let text = match answer {
        Answer::Granted(grant) => {
            let (seconds, source) = (grant.expires_in.as_secs(), grant.expires_in_source);
            format!("granted {seconds} {source:?}")
        }
        Answer::Defective { .. } => format!("defective {kind}"),
        Answer::InvalidGrant(error) => format!("dead {}", error.code),
        Answer::ClientRefused(_) => format!("client {kind}"),
        Answer::Unavailable(_) => format!("unavailable {kind}"),
        Answer::Ambiguous(_) => format!("ambiguous {kind}"),
    };
    let next = match answer {
        Answer::Granted(TokenResponse { refresh_token: Some(token), .. })
        | Answer::Defective { refresh_token: Some(token), .. } => format!(", next {}", token.expose()),
        _ => String::new(),
    };
    let after = answer.retry_after().map_or(String::new(), |wait| format!(", after {}", wait.as_secs()));
    text + &next + &after
}

fn jwt(exp: &str) -> String {
    let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"x","exp":{exp}}}"#));
    format!("eyJhbGciOiJub25lIn0.{payload}.c2ln")
}

/// A grant with one member changed or added.
fn grant(member: &str) -> String {
    format!(
        r#"{{"access_token":"at","token_type":"Bearer","expires_in":3600,"refresh_token":"r2",{member}}}"#
    )
}

#[test]
fn the_table() {
    const OK: &str = r#"{"access_token":"at","token_type":"Bearer","expires_in":3600,"refresh_token":"r2"}"#;
    let error_words =
        |code: &str, words: &str| format!(r#"{{"error":"{code}","error_description":"{words}"}}"#);
    let error = |code: &str| format!(r#"{{"error":"{code}","error_description":"no"}}"#);
    let token_with = |member: &str| format!(r#"{{"access_token":"at",{member}}}"#);
    let jwt_alone = |exp: &str| format!(r#"{{"access_token":"{}"}}"#, jwt(exp));
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);

    let table: Vec<(u16, String, &str)> = vec![
        // Success, RFC 6749 section 5.1.
        (200, OK.into(), "granted 3600 Stated, next r2"),
        (201, OK.into(), "granted 3600 Stated, next r2"),
        (200, format!("\u{feff} {OK}\n"), "granted 3600 Stated, next r2"),
        (200, grant(r#""scope":"a b""#), "granted 3600 Stated, next r2"),
        (200, grant(r#""scope":["a"],"extra":{"deep":[[[{}]]]}"#), "granted 3600 Stated, next r2"),
        (
            200,
            grant(&format!(r#""x":{}{}"#, "[".repeat(9000), "]".repeat(9000))),
            "granted 3600 Stated, next r2",
        ),
        (200, grant(r#""error":null"#), "granted 3600 Stated, next r2"),
        (200, grant(r#""error":"""#), "granted 3600 Stated, next r2"),
        // token_type.
        (200, grant(r#""token_type":"bearer""#), "granted 3600 Stated, next r2"),
        (200, grant(r#""token_type":"BEARER""#), "granted 3600 Stated, next r2"),
        (200, grant(r#""token_type":null"#), "granted 3600 Stated, next r2"),
        (200, token_with(r#""expires_in":60"#), "granted 60 Stated"),
        (200, grant(r#""token_type":"DPoP""#), "defective bad_token_type, next r2"),
        (200, grant(r#""token_type":"mac""#), "defective bad_token_type, next r2"),
        (200, grant(r#""token_type":7"#), "granted 3600 Stated, next r2"),
        (200, grant(r#""token_type":"User Access Token""#), "granted 3600 Stated, next r2"),
        (200, grant(r#""token_type":"N_A""#), "defective bad_token_type, next r2"),
        // expires_in.
        (200, token_with(r#""expires_in":"3600""#), "granted 3600 Stated"),
        (200, token_with(r#""expires_in":" 3599.9 ""#), "granted 3599 Stated"),
        (200, token_with(r#""expires_in":3599.9"#), "granted 3599 Stated"),
        (200, token_with(r#""expires_in":1e3"#), "granted 1000 Stated"),
        (200, token_with(r#""expires_in":31536001"#), "granted 31536000 Stated"),
        (200, token_with(r#""expires_in":18446744073709551616"#), "granted 31536000 Stated"),
        (200, token_with(r#""expires_in":null"#), "granted 1800 Default"),
        (200, token_with(r#""other":1"#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":0"#), "defective bad_expires_in"),
        (200, token_with(r#""expires_in":0.9"#), "defective bad_expires_in"),
        (200, token_with(r#""expires_in":-1"#), "defective bad_expires_in"),
        (200, token_with(r#""expires_in":"-1""#), "defective bad_expires_in"),
        (200, token_with(r#""expires_in":"""#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":"inf""#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":"NaN""#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":"soon""#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":true"#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":[60]"#), "granted 1800 Default"),
        (200, grant(r#""expires_in":{}"#), "granted 1800 Default, next r2"),
        // An instant in place of it: seconds, milliseconds, RFC 3339; or a span, by its size.
        (200, token_with(&format!(r#""expires_at":{}"#, NOW + 900)), "granted 900 Stated"),
        (200, token_with(&format!(r#""expires_on":"{}000""#, NOW + 900)), "granted 900 Stated"),
        (200, token_with(r#""expires":900"#), "granted 900 Stated"),
        (200, token_with(r#""expiry":"2026-01-01T00:15:00Z""#), "granted 900 Stated"),
        (200, token_with(r#""expires_at":"2026-01-01 01:15:00+01:00""#), "granted 900 Stated"),
        (200, token_with(r#""expires_at":"2026-01-01 00:15:00 UTC""#), "granted 900 Stated"),
        (200, token_with(r#""expires":"Thu, 01 Jan 2026 00:15:00 GMT""#), "granted 900 Stated"),
        (200, token_with(r#""expire":900"#), "granted 900 Stated"),
        (200, token_with(r#""expires_at":"2025-01-01T00:00:00Z""#), "granted 1800 Default"),
        (200, token_with(r#""expires_in":"soon","expires_at":"2026-01-01T00:15:00""#), "granted 900 Stated"),
        (200, token_with(&format!(r#""expires_in":{}"#, NOW + 900)), "granted 900 Stated"),
        // A JWT's exp, where nothing is stated.
        (200, jwt_alone(&(NOW + 600).to_string()), "granted 600 Jwt"),
        (200, jwt_alone(&format!("{}.7", NOW + 600)), "granted 600 Jwt"),
        (200, jwt_alone(&(NOW + 40_000_000).to_string()), "granted 31536000 Jwt"),
        (200, jwt_alone(&NOW.to_string()), "granted 1800 Default"),
        (200, jwt_alone(&(NOW * 1000).to_string()), "granted 1800 Default"),
        (200, jwt_alone(r#""tomorrow""#), "granted 1800 Default"),
        (200, r#"{"access_token":"a.b.c"}"#.into(), "granted 1800 Default"),
        // The access token.
        (200, "{}".into(), "defective no_access_token"),
        (200, r#"{"access_token":null,"refresh_token":"r2"}"#.into(), "defective no_access_token, next r2"),
        (200, grant(r#""access_token":"""#), "defective bad_access_token, next r2"),
        (200, grant(r#""access_token":5"#), "defective bad_access_token, next r2"),
        (200, grant(r#""access_token":["at"]"#), "defective bad_access_token, next r2"),
        (200, grant(r#""access_token":"a\nb""#), "defective bad_access_token, next r2"),
        (200, grant(r#""access_token":"a\u0000b""#), "defective bad_access_token, next r2"),
        (200, grant(r#""access_token":"a\u007f""#), "defective bad_access_token, next r2"),
        (200, grant(r#""access_token":"tökén""#), "defective bad_access_token, next r2"),
        (200, grant(&format!(r#""access_token":"{long}""#)), "defective bad_access_token, next r2"),
        (200, format!(r#"{{"access_token":"{}"}}"#, &long[1..]), "granted 1800 Default"),
        // The refresh token: one that cannot be used leaves the old one.
        (200, grant(r#""refresh_token":"""#), "granted 3600 Stated"),
        (200, grant(r#""refresh_token":null"#), "granted 3600 Stated"),
        (200, grant(r#""refresh_token":5"#), "granted 3600 Stated"),
        (200, grant(r#""refresh_token":"a\nb""#), "granted 3600 Stated"),
        (200, grant(&format!(r#""refresh_token":"{long}""#)), "granted 3600 Stated"),
        (200, grant(r#""refresh_token":"r3""#), "granted 3600 Stated, next r3"),
        // A 200 with an error, as GitHub answers.
        (200, error("bad_refresh_token"), "dead bad_refresh_token"),
        (200, error("incorrect_client_credentials"), "client incorrect_client_credentials"),
        (200, error("invalid_client"), "client invalid_client"),
        (200, grant(r#""error":"invalid_grant""#), "defective contradictory_reply, next r2"),
        (200, token_with(r#""error":"server_error""#), "defective contradictory_reply"),
        // A 200 that cannot be read, with and without something to rescue.
        (200, String::new(), "ambiguous unreadable_reply"),
        (204, String::new(), "ambiguous unreadable_reply"),
        (200, "<html>Welcome to Hotel WiFi</html>".into(), "ambiguous unreadable_reply"),
        (200, "access_token=at&refresh_token=r2".into(), "granted 1800 Default, next r2"),
        (200, "error=bad_refresh_token&error_description=x".into(), "dead bad_refresh_token"),
        (200, "<a href=?access_token=at>".into(), "ambiguous unreadable_reply"),
        (200, "null".into(), "ambiguous unreadable_reply"),
        (200, format!("[{OK}]"), "granted 3600 Stated, next r2"),
        (200, format!("[{OK},{OK}]"), "ambiguous unreadable_reply"),
        (200, format!(r#"{{"code":0,"data":{OK}}}"#), "granted 3600 Stated, next r2"),
        (
            200,
            r#"{"accessToken":"at","refreshToken":"r2","expireIn":60}"#.into(),
            "granted 60 Stated, next r2",
        ),
        (200, format!(r#"{{"data":[{OK}]}}"#), "granted 3600 Stated, next r2"),
        (200, format!(r#"{{"data":{{"type":"tokens","attributes":{OK}}}}}"#), "granted 3600 Stated, next r2"),
        (200, r#"{"AuthenticationResult":{"AccessToken":"at","ExpiresIn":60}}"#.into(), "granted 60 Stated"),
        // An echo of the request is no grant.
        (200, r#"{"error":"invalid_grant","request":{"refresh_token":"r1"}}"#.into(), "dead invalid_grant"),
        (200, r#"{"data":{"refresh_token":"r2"},"access"#.into(), "defective unreadable_reply, next r2"),
        (200, grant(r#""error":"success""#), "granted 3600 Stated, next r2"),
        (200, "[".repeat(100_000), "ambiguous unreadable_reply"),
        (200, r#"{"a":"#.repeat(100_000), "ambiguous unreadable_reply"),
        (200, r#"{"error":{"code":"#.repeat(100_000), "ambiguous unreadable_reply"),
        (200, OK[..OK.len() - 1].into(), "defective unreadable_reply, next r2"),
        (200, OK[..OK.len() - 2].into(), "ambiguous unreadable_reply"),
        (200, r#"{"refresh_token":"r2","access_token":"a"#.into(), "defective unreadable_reply, next r2"),
        (200, r#"{"x":{"refresh_token":"r2"},"access"#.into(), "ambiguous unreadable_reply"),
        (200, format!("{OK} trailing"), "defective unreadable_reply, next r2"),
        (200, grant(r#""access_token":"\ud800""#), "defective unreadable_reply, next r2"),
        (200, r#"{"expires_in":1e999,"refresh_token":"r2"}"#.into(), "defective unreadable_reply, next r2"),
        (200, r#"{"refresh_token":"","access_token":"a"#.into(), "ambiguous unreadable_reply"),
        // Errors, RFC 6749 section 5.2, and what is seen in the wild.
        (400, error("invalid_grant"), "dead invalid_grant"),
        (401, error("invalid_grant"), "dead invalid_grant"),
        (403, error("invalid_grant"), "dead invalid_grant"),
        (400, error("INVALID_GRANT"), "dead invalid_grant"),
        (400, error("invalid_refresh_token"), "dead invalid_refresh_token"),
        (400, error("token_expired"), "dead token_expired"),
        (400, error("app_session_terminated"), "dead app_session_terminated"),
        (400, error("interaction_required"), "dead interaction_required"),
        (400, error("login_required"), "dead login_required"),
        (400, error("consent_required"), "dead consent_required"),
        (
            401,
            r#"{"error":{"code":"refresh_token_reused","message":"m"}}"#.into(),
            "dead refresh_token_reused",
        ),
        (401, r#"{"error":{"code":"refresh_token_invalidated"}}"#.into(), "dead refresh_token_invalidated"),
        (401, error("invalid_client"), "client invalid_client"),
        (400, error("unauthorized_client"), "client unauthorized_client"),
        (400, error("invalid_scope"), "client invalid_scope"),
        (400, error("unsupported_grant_type"), "client unsupported_grant_type"),
        (400, error("invalid_request"), "client invalid_request"),
        (403, error("access_denied"), "client access_denied"),
        (400, error("temporarily_unavailable"), "unavailable temporarily_unavailable"),
        (400, error("server_error"), "unavailable server_error"),
        (400, error("slow_down"), "unavailable slow_down"),
        (400, error("invalid_grant_2"), "unavailable unknown_error"),
        // The same, where servers really put it.
        (400, r#"{"errors":[{"errorType":"invalid_grant","message":"m"}]}"#.into(), "dead invalid_grant"),
        (400, r#"{"status":"BAD_REFRESH_TOKEN","message":"m"}"#.into(), "dead bad_refresh_token"),
        (400, r#"{"status":400,"message":"Invalid refresh token"}"#.into(), "dead "),
        (403, error_words("unauthorized_client", "refresh_token is invalid"), "dead unauthorized_client"),
        (400, error_words("invalid_request", "Refresh token expired."), "dead invalid_request"),
        (400, error_words("invalid_request", "Missing refresh_token parameter"), "client invalid_request"),
        (400, error_words("unsupported_grant_type", "invalid grant type refresh_token"), "client unsupported_grant_type"),
        (400, error_words("invalid_grant", "It is already being processed"), "unavailable invalid_grant"),
        (400, error_words("invalid_grant", "Expired. Please log in and try again"), "dead invalid_grant"),
        (401, r#"{"errorCode":"invalid_client","errorSummary":"x"}"#.into(), "client invalid_client"),
        (400, r#"{"fault":{"faultstring":"Invalid refresh token","detail":{"errorcode":"a.b.invalid_refresh_token"}}}"#.into(), "dead a.b.invalid_refresh_token"),
        // A code among the words, and words among the codes.
        (400, r#"{"message":"invalid_grant"}"#.into(), "dead invalid_grant"),
        (400, r#"{"errors":["invalid_grant"]}"#.into(), "dead invalid_grant"),
        (400, r#"{"error":{"code":400,"message":"TOKEN_EXPIRED"}}"#.into(), "dead token_expired"),
        (400, r#"{"code":"oidc.invalid_grant","message":"no"}"#.into(), "dead oidc.invalid_grant"),
        (400, error_words("invalid_grant: it is gone", "no"), "dead invalid_grant: it is gone"),
        (400, error_words("invalid_client: bad client_id", "no"), "client invalid_client"),
        (401, r#"{"errors":"[API] Invalid API key or access token"}"#.into(), "client unknown_error"),
        (400, r#"{"status":{"error":true,"code":400,"message":"refresh_token is invalid"}}"#.into(), "dead "),
        // A token without a name is the refresh token, unless something else is named.
        (401, error_words("invalid_token", "The token expired, was revoked, or is wrong."), "dead invalid_token"),
        (401, r#"{"reason":"Invalid Token!","error":"invalid_request"}"#.into(), "dead invalid_request"),
        (400, error_words("unauthorized_client", "token was already used"), "dead unauthorized_client"),
        (400, error_words("unauthorized_client", "unable to parse refresh token"), "dead unauthorized_client"),
        (401, error_words("unauthorized_client", "The access token expired"), "client unauthorized_client"),
        (400, error_words("invalid_request", "Invalid token type"), "client invalid_request"),
        (400, error_words("invalid_request", "refresh_token: invalid scope"), "client invalid_request"),
        (400, error_words("invalid_request", "Invalid content type for a refresh_token"), "client invalid_request"),
        (403, r#"{"message":"Missing Authentication Token"}"#.into(), "unavailable http_403"),
        (401, error_words("unauthorized", "user is blocked"), "dead unauthorized"),
        (401, error_words("unauthorized", "Bad credentials"), "client unknown_error"),
        (400, error_words("invalid_grant", "The account is temporarily locked"), "unavailable invalid_grant"),
        (400, error_words("invalid_grant", "ip restricted or invalid login hours"), "unavailable invalid_grant"),
        (200, r#"{"errcode":40030,"errmsg":"x"}"#.into(), "dead 40030"),
        (200, r#"{"status":601,"body":{},"error":"Too Many Requests"}"#.into(), "unavailable too_many_requests"),
        (400, "error=invalid_grant&error_description=expired".into(), "dead invalid_grant"),
        (404, r#"{"error":"Not Found","status":404}"#.into(), "unavailable http_404"),
        // 4xx without an OAuth error.
        (400, String::new(), "unavailable http_4xx"),
        (400, r#"{"error":{"code":400,"status":"INVALID_ARGUMENT"}}"#.into(), "unavailable http_4xx"),
        (400, r#"{"error":"invalid_grant","error_des"#.into(), "unavailable http_4xx"),
        (401, "Unauthorized".into(), "unavailable http_4xx"),
        (403, "<html>Forbidden</html>".into(), "unavailable http_403"),
        (404, "<html>".into(), "unavailable http_404"),
        (405, String::new(), "unavailable http_4xx"),
        (407, String::new(), "unavailable http_4xx"),
        // "Not now", whatever the body says.
        (408, error("invalid_grant"), "unavailable http_408"),
        (425, error("invalid_grant"), "unavailable http_425"),
        (429, error("invalid_grant"), "unavailable http_429"),
        (500, error("invalid_grant"), "unavailable http_500"),
        (501, String::new(), "unavailable http_5xx"),
        (503, error("temporarily_unavailable"), "unavailable http_503"),
        (599, OK.into(), "unavailable http_5xx"),
        // Somebody between us and the server lost the answer.
        (502, error("invalid_grant"), "ambiguous http_502"),
        (504, OK.into(), "ambiguous http_504"),
        (520, String::new(), "ambiguous http_5xx"),
        (524, String::new(), "ambiguous http_5xx"),
        (100, String::new(), "ambiguous http_other"),
        (999, OK.into(), "ambiguous http_other"),
        // Redirects are not followed.
        (301, OK.into(), "unavailable redirect"),
        (302, String::new(), "unavailable redirect"),
        (304, String::new(), "unavailable redirect"),
        (307, String::new(), "unavailable redirect"),
        (308, error("invalid_grant"), "unavailable redirect"),
    ];
    for (status, body, expected) in table {
        let answer = classify_with(Ok(&reply(status, body.as_str())), &[]);
        let shown: String = body.chars().take(200).collect();
        assert_eq!(summary(&answer), expected, "HTTP {status} {shown}");
        assert!(!answer.to_string().is_empty());
    }
}

#[test]
fn bytes_that_are_no_utf8() {
    for (status, body, expected) in [
        (200, &b"{\"access_token\":\"\xff\"}"[..], "defective bad_access_token"),
        (200, b"{\"access_token\":\"\xff\",\"refresh_token\":\"r2\"}", "defective bad_access_token, next r2"),
        (200, b"{\"name\":\"Ren\xe9\",\"access_token\":\"at\"}", "granted 1800 Default"),
        (400, b"{\"error\":\"invalid_grant\",\"error_description\":\"expir\xe9\"}", "dead invalid_grant"),
    ] {
        assert_eq!(summary(&classify_with(Ok(&reply(status, body)), &[])), expected);
    }
}

#[test]
fn transport_failures() {
    use FailureKind::{BodyTooLarge, Dns, Reset, Timeout, Tls};
    for (sent, kind, expected) in [
        (Sent::NotSent, Dns, "unavailable dns"),
        (Sent::NotSent, Tls, "unavailable tls"),
        (Sent::NotSent, Timeout, "unavailable timeout"),
        (Sent::PerhapsSent, Timeout, "ambiguous timeout"),
        (Sent::PerhapsSent, Reset, "ambiguous reset"),
        (Sent::PerhapsSent, BodyTooLarge, "ambiguous body_too_large"),
    ] {
        let failure = TransportFailure { sent, kind, detail: "it broke".to_owned() };
        assert_eq!(summary(&classify_with(Err(&failure), &[])), expected);
    }
}

#[test]
fn retry_after_is_kept_where_the_server_may_mean_it() {
    let error = r#"{"error":"slow_down"}"#;
    for (status, body, expected) in [
        (429, "", "unavailable http_429, after 30"),
        (503, "", "unavailable http_503, after 30"),
        (404, "", "unavailable http_404, after 30"),
        (400, error, "unavailable slow_down, after 30"),
        (302, "", "unavailable redirect, after 30"),
        (502, "", "ambiguous http_502, after 30"),
        (200, "", "ambiguous unreadable_reply, after 30"),
        (400, r#"{"error":"invalid_grant"}"#, "dead invalid_grant"),
    ] {
        let retry_after = Some("30".to_owned());
        let reply = Reply { retry_after, ..reply(status, body) };
        assert_eq!(summary(&classify_with(Ok(&reply), &[])), expected);
    }
}

#[test]
fn a_refresh_token_that_cannot_be_used_is_reported() {
    for (member, expected) in [
        (r#""refresh_token":"a\nb""#, true),
        (r#""refresh_token":5"#, true),
        (r#""refresh_token":"""#, false),
        (r#""refresh_token":null"#, false),
        (r#""refresh_token":"r3""#, false),
    ] {
        let Answer::Granted(grant) = classify_with(Ok(&reply(200, grant(member))), &[]) else {
            panic!("{member}");
        };
        assert_eq!(grant.refresh_token_unusable, expected, "{member}");
    }
}

#[test]
fn a_redirect_names_the_host_alone() {
    for (location, expected) in [
        ("https://other.example/path?token=secret", "redirects to other.example (HTTP 302)"),
        ("//other.example/x", "redirects to other.example (HTTP 302)"),
        ("/elsewhere?token=secret", "redirects (HTTP 302)"),
        ("http://[::bad", "redirects (HTTP 302)"),
    ] {
        let reply = Reply { location: Some(location.to_owned()), ..reply(302, "") };
        let text = classify_with(Ok(&reply), &[]).to_string();
        assert!(text.contains(expected) && !text.contains("secret"), "{text}");
    }
}

#[test]
fn the_server_is_quoted() {
    let body = r#"{"error":"invalid_grant","error_description":"Token has been\nexpired or revoked.","error_uri":"https://as.example/e/1"}"#;
    let answer = classify_with(Ok(&reply(400, body)), &[]);
    assert_eq!(
        answer.to_string(),
        "the server refuses the refresh token: invalid_grant: \"Token has been expired or revoked.\" \
         (see https://as.example/e/1)"
    );
    assert_eq!(answer.hint(), None, "the account knows how its user logs in again");
}

/// A known code is understood even if it happens to contain a secret.
#[test]
fn a_short_secret_does_not_hide_the_code() {
    let answer = classify_with(Ok(&reply(400, r#"{"error":"invalid_grant"}"#)), &[&Secret::new("grant")]);
    assert_eq!(summary(&answer), "dead invalid_grant");
}

/// Puts a marked secret wherever a server could put it.
fn marked_replies(mark: &str) -> Vec<Reply> {
    let mut replies = Vec::new();
    for status in [200, 302, 400, 403, 429, 500, 502, 700] {
        for body in [
            format!(r#"{{"error":"{mark}","error_description":"{mark}","error_uri":"https://x/{mark}"}}"#),
            format!(r#"{{"error":"invalid_grant","error_description":"was {mark}."}}"#),
            format!(r#"{{"error":{{"code":"{mark}","message":"a{mark}b"}}}}"#),
            format!(r#"{{"access_token":"{mark}","refresh_token":"{mark}","token_type":"{mark}"}}"#),
            format!(r#"{{"access_token":"{mark}","refresh_token":"{mark}","expires_in":"{mark}"}}"#),
            format!(r#"{{"refresh_token":"{mark}","access_token":"{mark}"#),
            format!(r#"{{"access_token":"{mark}","refresh_token":"{mark}"}}"#),
            format!(r#"{{"access_token":"a","token_type":"{mark}{mark}"}}"#),
            mark.to_owned(),
        ] {
            replies.push(Reply {
                content_type: Some(format!("text/{mark}")),
                location: Some(format!("https://x.example/{mark}?t={mark}")),
                retry_after: Some(mark.to_owned()),
                date: Some(mark.to_owned()),
                ..reply(status, body)
            });
        }
    }
    replies
}

fn assert_hidden(answer: &Answer, mark: &str) {
    let text = format!("{answer} {answer:?} {answer:#?} {:?} {}", answer.hint(), answer.kind());
    assert!(!text.contains(mark), "{mark:?} in {text}");
}

#[test]
fn no_marked_secret_shows() {
    for mark in ["s3cr3t", "correct horse", "1//0gMarkedMarkedMarkedMarked99"] {
        let secret = Secret::new(mark);
        for reply in marked_replies(mark) {
            assert_hidden(&classify_with(Ok(&reply), &[&secret]), mark);
            assert!(!format!("{reply:?}").contains(mark));
        }
        let detail = format!("odd: {mark}");
        let failure = TransportFailure { sent: Sent::NotSent, kind: FailureKind::Other, detail };
        assert_hidden(&classify_with(Err(&failure), &[&secret]), mark);
    }
}

/// Tokens that are not known beforehand, such as the new ones, show by their looks alone.
#[test]
fn no_unknown_token_shows() {
    let mark = "ya29.a0AfH6SMBxMarked0123456789";
    for reply in marked_replies(mark) {
        assert_hidden(&classify_with(Ok(&reply), &[]), mark);
    }
}

proptest! {
    #![proptest_config(crate::regressions::cases(256))]
    #[test]
    fn any_bytes_are_judged(
        status in 100_u16..1000,
        body in prop::collection::vec(any::<u8>(), 0..400),
        header in "\\PC{0,40}",
    ) {
        let reply = Reply {
            content_type: Some(header.clone()),
            retry_after: Some(header.clone()),
            date: Some(header.clone()),
            location: Some(header),
            ..reply(status, body)
        };
        let answer = classify_with(Ok(&reply), &[]);
        let _ = (answer.to_string(), answer.hint(), answer.kind());
    }

    #[test]
    fn any_cut_and_any_flip_of_a_grant_is_judged(cut in 0_usize..120, flip in 0_usize..120, to in any::<u8>()) {
        let mut body = grant(r#""scope":"a","x":[1,{"y":"\u00e9"}]"#).into_bytes();
        let at = flip % body.len();
        body[at] = to;
        body.truncate(cut);
        let _ = classify_with(Ok(&reply(200, body)), &[]).to_string();
    }

    #[test]
    fn no_text_around_a_secret_makes_it_show(
        before in "\\PC{0,30}",
        secret in "[!-~]{8,40}",
        after in "\\PC{0,30}",
    ) {
        let known = Secret::new(secret.clone());
        let shown = scrub(&format!("{before}{secret}{after}"), &[&known]);
        prop_assert!(!shown.contains(&secret), "{}", shown);
        prop_assert!(shown.chars().count() <= 201);
    }
}

/// The scope is kept and shown: a server that repeats a secret in it must not have it shown.
#[test]
fn a_scope_repeats_no_secret() {
    let secret = Secret::new("sesame");
    let reply = reply(200, grant(r#""scope":"mail sesame https://a/b""#));
    let Answer::Granted(grant) = classify_with(Ok(&reply), &[&secret]) else { panic!("{reply:?}") };
    assert_eq!(grant.scope.as_deref(), Some("mail [redacted] https://a/b"));
}
