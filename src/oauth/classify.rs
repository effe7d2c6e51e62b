//! From a reply, or the lack of one, to an [`Answer`]. The table in `tests.rs` shows each case.

use std::time::Duration;

use url::Url;

use crate::clock::Timestamp;
use crate::oauth::answer::{
    Answer, Defect, Doubt, ErrorReply, ExpiresInSource, ServerFailure, TokenFault, TokenResponse,
    Unavailable, Unclear,
};
use crate::oauth::extract::{Findings, JsonValue, ReplyBody, squeeze};
use crate::oauth::id_token;
use crate::oauth::meaning::{Meaning, look_up, meaning};
use crate::oauth::reply::{Reply, Sent, TransportFailure};
use crate::oauth::retry_after;
use crate::redact::{redact_known, scrub};
use crate::secret::Secret;

/// The longest token that is taken. The largest seen in the wild (SAML inside JWT) have 8 KiB,
/// and readers put the token into an HTTP header, which servers cap at 8 to 16 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The longest lifetime that is believed. Longer ones come from milliseconds taken for seconds;
/// refreshing once a year costs nothing.
const MAX_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A JWT whose exp is further off than this many seconds (a century) counts something else.
const MAX_JWT_LIFETIME: f64 = 100.0 * 365.0 * 24.0 * 3600.0;

/// Facts that [`classify`] needs besides the reply.
#[derive(Debug, Clone, Copy)]
pub struct ReplyContext<'a> {
    /// The clocks just before the POST.
    pub now: Timestamp,
    /// How long a token lives when neither the reply nor the token says so.
    pub default_lifetime: Duration,
    /// The tokens and secrets that were sent: the server's words must not repeat them.
    pub known_secrets: &'a [&'a Secret],
}

impl ReplyContext<'_> {
    fn scrub(&self, text: &str) -> String {
        scrub(text, self.known_secrets)
    }

    /// A text as the server wrote it, but for the secrets in it.
    fn repeat(&self, text: &str) -> String {
        redact_known(text, self.known_secrets).into_owned()
    }
}

/// Judges what came of one POST. Never panics, whatever the bytes.
pub fn classify(result: Result<&Reply, &TransportFailure>, context: &ReplyContext<'_>) -> Answer {
    let reply = match result {
        Ok(reply) => reply,
        Err(failure) => return no_reply(failure, context),
    };
    let status = reply.status;
    let retry_after = retry_after::parse(reply.retry_after.as_deref(), reply.date.as_deref(), context.now);
    let unavailable = |reason| Answer::Unavailable(Unavailable { reason, retry_after });
    let unclear = |reason| Answer::Ambiguous(Unclear { reason, retry_after });
    let body = ReplyBody::parse(&reply.body, reply.content_type.as_deref());
    let whole = body.as_ref().filter(|body| body.whole);
    let words = || Some(error_reply(whole?, status, context)?.0);

    match status {
        200..=299 => match &body {
            Some(body) if body.whole => success(body, status, context, unavailable),
            Some(body) if usable_refresh_token(&body.found()).is_some() => Answer::Defective {
                refresh_token: usable_refresh_token(&body.found()).cloned(),
                defect: Defect::Unreadable,
            },
            _ => unclear(Doubt::Unreadable {
                status,
                content_type: reply.content_type.as_deref().map(|text| context.scrub(text)),
            }),
        },
        300..=399 => unavailable(ServerFailure::Redirect { status, host: redirect_host(reply, context) }),
        // "Not now" whatever the body says: proxies and rate limiters borrow OAuth's words.
        408 | 425 | 429 => unavailable(ServerFailure::Status { status, words: words() }),
        400..=499 => match whole.and_then(|body| error_reply(body, status, context)) {
            Some((error, meaning)) => {
                let speaks = whole.is_some_and(ReplyBody::has_code) && !matches!(status, 404 | 405);
                by_meaning(error, meaning, (!speaks).then_some(status), unavailable)
            }
            None => unavailable(ServerFailure::Status { status, words: None }),
        },
        // A gateway lost the answer of a server that may have acted. 520 and 524 are
        // Cloudflare's words for the same: an odd answer, none in time.
        502 | 504 | 520 | 524 => unclear(Doubt::Gateway { status, words: words() }),
        500..=599 => unavailable(ServerFailure::Status { status, words: words() }),
        // No meaning in RFC 9110: nothing is known.
        _ => unclear(Doubt::Gateway { status, words: words() }),
    }
}

/// The error in the reply of another endpoint than the token endpoint, if it has one.
pub fn error_of(reply: &Reply, context: &ReplyContext<'_>) -> Option<ErrorReply> {
    let body = ReplyBody::parse(&reply.body, reply.content_type.as_deref())?;
    error_reply(&body, reply.status, context).map(|(error, _)| error)
}

fn no_reply(failure: &TransportFailure, context: &ReplyContext<'_>) -> Answer {
    let failure = TransportFailure { detail: context.scrub(&failure.detail), ..failure.clone() };
    match failure.sent {
        Sent::NotSent => {
            Answer::Unavailable(Unavailable { reason: ServerFailure::NotSent(failure), retry_after: None })
        }
        Sent::PerhapsSent => Answer::Ambiguous(Unclear { reason: Doubt::Lost(failure), retry_after: None }),
    }
}

/// A 2xx that can be read.
fn success(
    body: &ReplyBody,
    status: u16,
    context: &ReplyContext<'_>,
    unavailable: impl Fn(ServerFailure) -> Answer,
) -> Answer {
    let found = body.found();
    let refresh_token = usable_refresh_token(&found);
    let defective = |defect| Answer::Defective { refresh_token: refresh_token.cloned(), defect };

    let access_token = usable_access_token(found.access_token);
    // An error in a 200 is GitHub's way. Beside a token it is a contradiction, and the
    // refresh token may have been rotated.
    if let Some((error, meaning)) = error_reply(body, status, context) {
        if refresh_token.is_none() && access_token.is_err() {
            return by_meaning(error, meaning, None, unavailable);
        }
        if body.names_error() {
            return defective(Defect::Contradiction(error));
        }
    }
    let access_token = match access_token {
        Ok(token) => token,
        Err(fault) => return defective(Defect::AccessToken(fault)),
    };
    if let Some(JsonValue::Text(stated)) = found.token_type
        && PROOF_TYPES.contains(&&*squeeze(stated.expose()))
    {
        return defective(Defect::TokenType(context.scrub(stated.expose())));
    }
    let lifetime = match lifetime(&found, access_token, context) {
        Ok(found) => found,
        Err(stated) => return defective(Defect::ExpiresIn(stated)),
    };
    Answer::Granted(TokenResponse {
        access_token: access_token.clone(),
        token_type: "Bearer".to_owned(),
        expires_in: lifetime.span,
        expires_in_source: lifetime.source,
        expires_in_unreadable: lifetime.unreadable,
        login_expires_in: found
            .refresh_token_expires_in
            .and_then(|value| seconds(value, context.now))
            .filter(|seconds| *seconds >= 1.0 && *seconds < MAX_JWT_LIFETIME)
            .map(Duration::from_secs_f64),
        refresh_token: refresh_token.cloned(),
        refresh_token_unusable: refresh_token.is_none()
            && found.refresh_token.is_some_and(JsonValue::is_there),
        scope: found.scope.and_then(JsonValue::text).map(|scope| context.repeat(scope.expose())),
        id_token: found.id_token.and_then(JsonValue::text).filter(|token| is_usable(token)).cloned(),
        came_by: None,
    })
}

/// Token types of which the token alone is not enough: RFC 9449, RFC 8705's kin, MAC, and
/// RFC 8693's "not applicable".
const PROOF_TYPES: [&str; 5] = ["dpop", "mac", "pop", "hok", "na"];

fn usable_refresh_token<'a>(found: &Findings<'a>) -> Option<&'a Secret> {
    found.refresh_token.and_then(JsonValue::text).filter(|token| is_usable(token))
}

fn is_usable(token: &Secret) -> bool {
    fault_of(token).is_none()
}

/// The fault of a token. RFC 6749 appendix A.12 and A.17: it is one or more VSCHAR.
pub fn fault_of(token: &Secret) -> Option<TokenFault> {
    let token = token.expose();
    if token.is_empty() {
        Some(TokenFault::Empty)
    } else if token.len() > MAX_TOKEN_BYTES {
        Some(TokenFault::TooLong { bytes: token.len() })
    } else if !token.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        Some(TokenFault::ForbiddenCharacter)
    } else {
        None
    }
}

fn usable_access_token(member: Option<&JsonValue>) -> Result<&Secret, TokenFault> {
    match member {
        None | Some(JsonValue::Null) => Err(TokenFault::Missing),
        Some(JsonValue::Text(token)) => fault_of(token).map_or(Ok(token), Err),
        Some(_) => Err(TokenFault::NotAString),
    }
}

struct Lifetime {
    span: Duration,
    source: ExpiresInSource,
    /// The reply says something that cannot be read.
    unreadable: bool,
}

/// How long the token lives, and who says so; `Err` is an expires_in of zero or less.
fn lifetime(
    found: &Findings<'_>,
    access_token: &Secret,
    context: &ReplyContext<'_>,
) -> Result<Lifetime, String> {
    let unreadable = match found.expires_in.map(|value| seconds(value, context.now)) {
        Some(Some(stated)) => {
            let span = whole_seconds(stated).ok_or_else(|| stated.to_string())?;
            return Ok(Lifetime { span, source: ExpiresInSource::Stated, unreadable: false });
        }
        stated => stated.is_some(),
    };
    let stated = found.expires_at.map(|value| seconds(value, context.now).and_then(whole_seconds));
    let unreadable = unreadable || stated == Some(None);
    let (span, source) = match (stated.flatten(), jwt_lifetime(access_token, context.now)) {
        (Some(span), _) => (span, ExpiresInSource::Stated),
        (None, Some(span)) => (span, ExpiresInSource::Jwt),
        (None, None) => (context.default_lifetime, ExpiresInSource::Default),
    };
    Ok(Lifetime { span, source, unreadable: unreadable && source == ExpiresInSource::Default })
}

/// Seconds from now on: of a number below 10^9 as it is, of a larger one as an instant in
/// seconds or milliseconds since 1970, of a text as RFC 3339. `None` if it is nothing of these.
fn seconds(value: &JsonValue, now: Timestamp) -> Option<f64> {
    let now = now.wall as f64 / 1000.0;
    let number = match value {
        JsonValue::Number(number) => *number,
        JsonValue::Text(text) => match text.expose().trim().parse() {
            Ok(number) => number,
            Err(_) => return Some(instant(text.expose().trim())? - now),
        },
        _ => return None,
    };
    if !number.is_finite() {
        return None;
    }
    Some(match number {
        // The years 2001 to 2286, and 2001 to 5138.
        1e9..1e10 => number - now,
        1e12..1e14 => number / 1000.0 - now,
        _ => number,
    })
}

/// RFC 3339, also with a space for the T, or without a zone: then it is UTC. Or a date of HTTP.
fn instant(text: &str) -> Option<f64> {
    let in_utc = || format!("{}Z", text.trim_end_matches("UTC").trim_end()).parse::<jiff::Timestamp>();
    if let Ok(parsed) = text.parse().or_else(|_| in_utc()) {
        return Some(parsed.as_millisecond() as f64 / 1000.0);
    }
    Some(retry_after::epoch_millis(text)? as f64 / 1000.0)
}

/// A lifetime as it counts: at least one second, at most a year; `None` for less, and for what is
/// not finite.
pub fn whole_seconds(seconds: f64) -> Option<Duration> {
    (seconds.is_finite() && seconds >= 1.0)
        .then(|| Duration::from_secs(seconds.min(MAX_LIFETIME.as_secs_f64()) as u64))
}

/// The rest of the life of a token that is a JWT (RFC 7519) with a believable exp. Its signature
/// is the resource server's business: here it is no more than a better guess than the default.
fn jwt_lifetime(access_token: &Secret, now: Timestamp) -> Option<Duration> {
    let left = id_token::expiry(access_token)? - now.wall as f64 / 1000.0;
    whole_seconds(left).filter(|_| left <= MAX_JWT_LIFETIME)
}

/// The server's error, if the reply has one, and its meaning.
fn error_reply(
    body: &ReplyBody,
    status: u16,
    context: &ReplyContext<'_>,
) -> Option<(ErrorReply, Option<Meaning>)> {
    let error = body.error();
    let plain = |secret: &Secret| context.scrub(secret.expose());
    let own_status = status.to_string();
    // A body that repeats the status, or its name, says nothing new with it.
    let words = || error.words.iter().map(Secret::expose);
    // Firebase has the code where the words belong.
    let hidden_codes = words().filter(|text| !text.contains(' ') && look_up(text).is_some());
    let codes = || {
        let stated = error.codes.iter().map(Secret::expose).filter(|code| **code != *own_status);
        stated.chain(hidden_codes.clone())
    };
    let code = codes().find(|code| look_up(code).is_some()).or_else(|| codes().next());
    let mut said: Vec<_> = error.words.iter().map(plain).filter(|text| !text.is_empty()).collect();
    said.truncate(2);
    let description = (!said.is_empty()).then(|| said.join("; "));
    if code.is_none() && description.is_none() {
        return None;
    }
    // Reddit's and Spring's "no": it says as little as a bare invalid_request, and means the same.
    let is_bare = |text: Option<&str>| text.is_none_or(|text| squeeze(text) == "badrequest");
    if status == 400 && is_bare(code) && error.words.iter().all(|text| is_bare(Some(text.expose()))) {
        let reply = ErrorReply { code: "invalid_request".to_owned(), ..ErrorReply::default() };
        return Some((reply, Some(Meaning::Client)));
    }
    let reply = ErrorReply {
        code: code
            .map(|code| match look_up(code) {
                Some((known, _)) if squeeze(known) == squeeze(code) => known.to_owned(),
                _ => context.scrub(code),
            })
            .unwrap_or_default(),
        description,
        uri: error.uri.as_ref().map(plain).filter(|text| !text.is_empty()),
        clock_ahead: None,
    };
    Some((reply, meaning(codes(), words())))
}

fn by_meaning(
    error: ErrorReply,
    meaning: Option<Meaning>,
    // The status, where that says more than the words: no code is in them, or nothing is there.
    bare: Option<u16>,
    unavailable: impl Fn(ServerFailure) -> Answer,
) -> Answer {
    match meaning {
        Some(Meaning::DeadToken) => Answer::InvalidGrant(error),
        Some(Meaning::Client) => Answer::ClientRefused(error),
        Some(Meaning::NotNow) => unavailable(ServerFailure::Refused(error)),
        None => unavailable(match bare {
            Some(status) => ServerFailure::Status { status, words: Some(error) },
            None => ServerFailure::Refused(error),
        }),
    }
}

/// The host that a redirect leads to; `None` if it stays on the same one or makes no sense.
fn redirect_host(reply: &Reply, context: &ReplyContext<'_>) -> Option<String> {
    // RFC 2606: a name that can be nobody's stands for the endpoint's own.
    let here = Url::parse("https://here.invalid/").ok()?;
    let target = here.join(reply.location.as_deref()?).ok()?;
    target.host_str().filter(|host| *host != "here.invalid").map(|host| context.scrub(host))
}
