//! From a reply, or the lack of one, to an [`Answer`]. The table in `tests.rs` shows each case.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use url::Url;

use crate::clock::Timestamp;
use crate::oauth::answer::{
    Answer, Defect, Doubt, ErrorReply, ExpiresInSource, ServerFailure, TokenFault, TokenResponse,
    Unavailable, Unclear,
};
use crate::oauth::codes::{Meaning, look_up};
use crate::oauth::members::{Member, Members, salvage_refresh_token};
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
    let words = || error_reply(&Members::parse(&reply.body)?, context);

    match status {
        200..=299 => match Members::parse(&reply.body) {
            Some(members) => success(&members, context, unavailable),
            None => match salvage_refresh_token(&reply.body).filter(is_usable) {
                Some(refresh_token) => {
                    Answer::Defective { refresh_token: Some(refresh_token), defect: Defect::Unreadable }
                }
                None => unclear(Doubt::Unreadable {
                    status,
                    content_type: reply.content_type.as_deref().map(|text| context.scrub(text)),
                }),
            },
        },
        300..=399 => unavailable(ServerFailure::Redirect { status, host: redirect_host(reply, context) }),
        // "Not now" whatever the body says: proxies and rate limiters borrow OAuth's words.
        408 | 425 | 429 => unavailable(ServerFailure::Status { status, words: words() }),
        400..=499 => match words() {
            Some(words) => by_code(words, unavailable),
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

fn no_reply(failure: &TransportFailure, context: &ReplyContext<'_>) -> Answer {
    let failure = TransportFailure { detail: context.scrub(&failure.detail), ..failure.clone() };
    match failure.sent {
        Sent::NotSent => {
            Answer::Unavailable(Unavailable { reason: ServerFailure::NotSent(failure), retry_after: None })
        }
        Sent::PerhapsSent => Answer::Ambiguous(Unclear { reason: Doubt::Lost(failure), retry_after: None }),
    }
}

/// A 2xx with a JSON object.
fn success(
    members: &Members,
    context: &ReplyContext<'_>,
    unavailable: impl Fn(ServerFailure) -> Answer,
) -> Answer {
    let refresh_token =
        members.refresh_token.as_ref().and_then(Member::text).filter(|token| is_usable(token));
    let defective = |defect| Answer::Defective { refresh_token: refresh_token.cloned(), defect };

    let access_token = usable_access_token(members.access_token.as_ref());
    if let Some(error) = error_reply(members, context) {
        // An error in a 200 is GitHub's way. Beside a token it is a contradiction, and the
        // refresh token may have been rotated.
        return if refresh_token.is_some() || access_token.is_ok() {
            defective(Defect::Contradiction(error))
        } else {
            by_code(error, unavailable)
        };
    }
    let access_token = match access_token {
        Ok(token) => token,
        Err(fault) => return defective(Defect::AccessToken(fault)),
    };
    let token_type = match members.token_type.as_ref() {
        None | Some(Member::Null) => "Bearer",
        Some(Member::Text(stated)) if stated.expose().eq_ignore_ascii_case("bearer") => stated.expose(),
        Some(Member::Text(stated)) => return defective(Defect::TokenType(context.scrub(stated.expose()))),
        Some(_) => return defective(Defect::TokenType("not a string".to_owned())),
    };
    let (expires_in, expires_in_source) = match lifetime(members.expires_in.as_ref(), access_token, context) {
        Ok(found) => found,
        Err(stated) => return defective(Defect::ExpiresIn(stated)),
    };
    Answer::Granted(TokenResponse {
        access_token: access_token.clone(),
        token_type: token_type.to_owned(),
        expires_in,
        expires_in_source,
        refresh_token: refresh_token.cloned(),
        refresh_token_unusable: refresh_token.is_none() && is_there(members.refresh_token.as_ref()),
        scope: members.scope.as_ref().and_then(Member::text).map(|scope| context.repeat(scope.expose())),
    })
}

/// Null and the empty string are how some servers say "none".
fn is_there(member: Option<&Member>) -> bool {
    match member {
        None | Some(Member::Null) => false,
        Some(Member::Text(text)) => !text.is_empty(),
        Some(_) => true,
    }
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

fn usable_access_token(member: Option<&Member>) -> Result<&Secret, TokenFault> {
    match member {
        None | Some(Member::Null) => Err(TokenFault::Missing),
        Some(Member::Text(token)) => fault_of(token).map_or(Ok(token), Err),
        Some(_) => Err(TokenFault::NotAString),
    }
}

/// How long the token lives, and who says so; `Err` is what expires_in says instead.
fn lifetime(
    expires_in: Option<&Member>,
    access_token: &Secret,
    context: &ReplyContext<'_>,
) -> Result<(Duration, ExpiresInSource), String> {
    let seconds = match expires_in {
        None | Some(Member::Null) => {
            return Ok(match jwt_lifetime(access_token, context.now) {
                Some(lifetime) => (lifetime, ExpiresInSource::Jwt),
                None => (context.default_lifetime, ExpiresInSource::Default),
            });
        }
        Some(Member::Number(number)) => *number,
        Some(Member::Text(text)) => match text.expose().trim().parse::<f64>() {
            Ok(number) => number,
            Err(_) => return Err("a text".to_owned()),
        },
        Some(_) => return Err("a boolean, array or object".to_owned()),
    };
    whole_seconds(seconds)
        .map_or_else(|| Err(seconds.to_string()), |lifetime| Ok((lifetime, ExpiresInSource::Stated)))
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
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }

    let mut parts = access_token.expose().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let Claims { exp } = serde_json::from_slice(&payload).ok()?;
    let left = exp - now.wall as f64 / 1000.0;
    whole_seconds(left).filter(|_| left <= MAX_JWT_LIFETIME)
}

/// The server's error, if the reply has one: RFC 6749 section 5.2, or an object with a code.
fn error_reply(members: &Members, context: &ReplyContext<'_>) -> Option<ErrorReply> {
    let text = |member: &Option<Member>| {
        let text = context.scrub(member.as_ref()?.text()?.expose());
        (!text.is_empty()).then_some(text)
    };
    let (code, message) = match members.error.as_ref()? {
        Member::Text(code) => (code, None),
        Member::Coded { code, message } => (code, message.as_ref()),
        _ => return None,
    };
    (!code.is_empty()).then(|| ErrorReply {
        code: look_up(code.expose())
            .map_or_else(|| context.scrub(code.expose()), |(known, _)| known.to_owned()),
        description: text(&members.error_description)
            .or_else(|| message.map(|message| context.scrub(message.expose()))),
        uri: text(&members.error_uri),
    })
}

fn by_code(error: ErrorReply, unavailable: impl Fn(ServerFailure) -> Answer) -> Answer {
    match look_up(&error.code) {
        Some((_, Meaning::DeadToken)) => Answer::InvalidGrant(error),
        Some((_, Meaning::Client)) => Answer::ClientRefused(error),
        Some((_, Meaning::NotNow)) | None => unavailable(ServerFailure::Refused(error)),
    }
}

/// The host that a redirect leads to; `None` if it stays on the same one or makes no sense.
fn redirect_host(reply: &Reply, context: &ReplyContext<'_>) -> Option<String> {
    // RFC 2606: a name that can be nobody's stands for the endpoint's own.
    let here = Url::parse("https://here.invalid/").ok()?;
    let target = here.join(reply.location.as_deref()?).ok()?;
    target.host_str().filter(|host| *host != "here.invalid").map(|host| context.scrub(host))
}
