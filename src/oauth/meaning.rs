//! From the codes and words of an error to its meaning: one table.

use crate::oauth::extract::squeeze;

/// The meaning of an error for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The refresh token is dead.
    DeadToken,
    /// The client is set up wrongly: another refresh token would not help.
    Client,
    /// The server cannot answer at the moment.
    NotNow,
}

use Meaning::{Client, DeadToken, NotNow};

/// A row applies if one of its phrases is in the words, and none of `unless`.
struct Phrases {
    all_of: &'static [&'static str],
    one_of: &'static [&'static str],
    unless: &'static [&'static [&'static str]],
    meaning: Meaning,
}

/// Words for a token that is gone for good.
const GONE: &[&str] = &[
    "invalid",
    "expired",
    "revoked",
    "not found",
    "unknown",
    "not exist",
    "already used",
    "been used",
    "reused",
    "incorrect",
    "inactive",
    "claimed",
    "not valid",
    "no longer valid",
    "not recognized",
    "not active",
    "deleted",
    "consumed",
    "blacklisted",
    "wrong",
    "malformed",
    "not match",
    "mismatch",
    "does not belong",
    "was rotated",
    "is bad",
    "bad refresh token",
    "could not be decoded",
    "unable to parse", // Gitea
    "cannot decrypt",  // league/oauth2-server
    "cannot be decrypted",
    "not linked to client",
    "old refresh token", // Exact Online
    "no such",
    "superseded",
    "evicted",
];

/// The same of a token that has no name: in a refresh there is but one.
const TOKEN_GONE: &[&str] = &[
    "invalid token",
    "token invalid",
    "token is invalid",
    "token was invalid", // X: the value passed for the token was invalid
    "expired token",
    "token expired",
    "token has expired",
    "token is expired",
    "token was already used", // Gitea
    "token already used",
    "token has already been used",
    "token has been used",
    "token not found",
    "token does not exist",
    "token has been revoked",
    "token was revoked",
    "token is revoked",
    "token revoked",
    "token is not active",
    "token is inactive",
];

/// Words for a user who is let in no more, or must come in person.
const USER_GONE: &[&str] = &[
    "authorization has been revoked",
    "session has expired",
    "session expired",
    "session not found",
    "session is not active",
    "user is blocked", // Auth0
    "user is disabled",
    "user is inactive", // Salesforce
    "user is not active",
    "user does not exist",
    "user status is invalid", // Feishu
    "log in again",
    "login again",
    "sign in again",
    "reauthoriz",
];

/// Words that speak of the request or the client although a refresh token is in them.
const NOT_OF_THE_TOKEN: &[&str] = &[
    "missing",
    "required parameter",
    "is required",
    "grant type",
    "unsupported",
    "client secret",
    "client credentials",
    "client authentication",
    "invalid client",
    "not enabled",
    "not allowed",
    "scope",
    "content type",
    "media type",
    "request body",
    "json",
];

/// Words that speak of another credential.
const ANOTHER_TOKEN: &[&str] = &[
    "access token",
    "api token",
    "app token",
    "bearer token",
    "csrf",
    "client token",
    "token type",
    "token endpoint",
    "token request",
    "client secret",
    "client assertion",
    "api key",
    "authorization header",
];

/// "Not now" comes first: it is said with any code, and a live login taken for dead is the worst
/// mistake. Words are compared without case, spaces and punctuation.
const NOT_NOW_WORDS: &[Phrases] = &[
    Phrases {
        all_of: &[],
        one_of: &[
            "already being processed", // Salesforce, with invalid_grant
            "concurrent request",      // Ory Hydra, with invalid_request
            "too many request",        // RFC 6585, in any code
            "too many attempts",       // Supabase, Discord
            "too many concurrent",     // Supabase
            "competing for the same",  // Ory Hydra
            "use by another request",
            "requests too many", // Zoho's "made too many requests continuously" has the first
            "rate limit",        // Exact Online, GitHub, Okta
            "rate exceeded",     // AWS, Salesforce
            "request limit",     // Meta
            "usage reached",     // Netatmo
            "quota",
            "login hours",       // Salesforce: the login lives, but not at this hour or address
            "throttled",         // AWS, Salesforce
            "slow down",         // RFC 8628 section 3.5
            "not yet expired",   // Exact Online: asked before nine and a half minutes are over
            "token not expired", // the same
            "token is still valid", // the same kind
            "AADSTS50196",       // Entra ID: a loop of requests, stopped for some minutes
            "transient error",   // Entra ID: AADSTS90024, AADSTS90033
            "AADSTS90033",       // Entra ID: a service is temporarily unavailable
            "AADSTS90055",       // Entra ID: too many requests
            "temporarily",       // RFC 6749 section 4.1.2.1
            "unavailable",
            "unreachable",
            "could not reach",
            "upstream",
            "backend",
            "connection refused",
            "connection reset",
            "deadline exceeded",
            "maintenance",
            "overloaded",
            "internal error",
            "internal server error",
            "unexpected error",
            "database error", // Supabase
            "request timeout",
            "request timed out",
            "timed out while",
            "server is busy",  // WeChat, Feishu
            "system busy",     // the same
            "system is busy",  // the same
            "in progress",     // identity servers that lock a token while it is rotated
            "being refreshed", // the same
            "locked by another",
            "try again later",
            "try again in",
            "try again after",
            "retry later",
            "retry after",
            "retry your request", // Salesforce, Meta
            "please retry",
        ],
        unless: &[],
        meaning: NotNow,
    },
    Phrases {
        all_of: &[],
        one_of: &["try again"],
        unless: &[&[
            "log in",
            "login",
            "sign in",
            "signin",
            "authoriz",
            "authenticate",
            "expired",
            "revoked",
            "invalid refresh",
            "refresh token is invalid",
            "client",
        ]],
        meaning: NotNow,
    },
];

/// With a code that says no more than "no", or without one.
const WORDS: &[Phrases] = &[
    // X, Atlassian, Bitbucket, Dex, Zitadel, league/oauth2-server, Authlib, DeviantArt, Twitch,
    // HubSpot, Apigee, Withings, UAA, Spring.
    Phrases { all_of: &["refresh token"], one_of: GONE, unless: &[NOT_OF_THE_TOKEN], meaning: DeadToken },
    Phrases {
        all_of: &[],
        one_of: &["missing or invalid refresh token", "refresh token is missing or invalid"], // HubSpot
        unless: &[],
        meaning: DeadToken,
    },
    Phrases {
        all_of: &[],
        one_of: TOKEN_GONE,
        unless: &[NOT_OF_THE_TOKEN, ANOTHER_TOKEN],
        meaning: DeadToken,
    },
    Phrases { all_of: &[], one_of: USER_GONE, unless: &[ANOTHER_TOKEN], meaning: DeadToken },
    Phrases {
        all_of: &[],
        one_of: &[
            "invalid client", // Twitch, Fitbit
            "client secret",
            "client id",
            "client not found",
            "client authentication",
            "client credentials",
            "client does not exist",
            "unknown client",
            "bad credentials", // UAA, Spring
            "grant type",
            "redirect uri",
            "application invalid", // Strava
            "api key not valid",   // Firebase
            "no api key",          // Supabase
            "invalid api key",
            "provide an api key",   // Stripe
            "authorization header", // X
            "dpop",                 // RFC 9449
            "AADSTS9002327",        // Entra ID: the login of a single-page app wants an Origin header
            "undefined action",     // Withings without action=requesttoken
        ],
        unless: &[],
        meaning: Client,
    },
];

/// Codes that say it all. Where one is not from RFC 6749 section 5.2, its origin stands beside it.
pub const CODES: &[(&str, Meaning)] = &[
    ("invalid_grant", DeadToken),
    ("bad_refresh_token", DeadToken),         // GitHub, HubSpot, Monzo
    ("invalid_refresh_token", DeadToken),     // Slack, Firebase, Apigee; the next five: seen by sub2api
    ("refresh_token_reused", DeadToken),      // OpenAI, in an error object
    ("refresh_token_invalidated", DeadToken), // the same
    ("refresh_token_expired", DeadToken),     // the same
    ("token_expired", DeadToken),             // and Slack, Firebase
    ("app_session_terminated", DeadToken),
    ("interaction_required", DeadToken), // OpenID Connect Core 3.1.2.6; Entra ID sends it on refresh
    ("login_required", DeadToken),       // the same
    ("consent_required", DeadToken),     // the same
    ("account_selection_required", DeadToken), // the same
    ("mfa_required", DeadToken),         // Auth0
    ("token_inactive", DeadToken),       // Ory Hydra
    ("invalid_code", DeadToken),         // Zoho: wrong, revoked, or of another data centre
    ("invalid_refresh", DeadToken),      // league/oauth2-server 4
    ("inactive_user", DeadToken),        // Salesforce
    ("token_revoked", DeadToken),        // Slack
    ("account_inactive", DeadToken),     // Slack
    ("refresh_token_not_found", DeadToken), // Supabase; the next six as well
    ("refresh_token_already_used", DeadToken),
    ("session_not_found", DeadToken),
    ("session_expired", DeadToken),
    ("user_not_found", DeadToken), // and Firebase
    ("user_banned", DeadToken),
    ("user_disabled", DeadToken),        // Firebase
    ("RefreshToken invalid", DeadToken), // Strava
    ("expired_token", DeadToken),        // RFC 8628 section 3.5, and some for a refresh token
    ("20026", DeadToken),                // Feishu: invalid; the next three: expired, revoked, used
    ("20037", DeadToken),
    ("20064", DeadToken),
    ("20073", DeadToken),
    ("40030", DeadToken), // WeChat: invalid refresh_token; the next two: expired, password changed
    ("42002", DeadToken),
    ("42007", DeadToken),
    ("invalid_client", Client),
    ("unauthorized_client", Client),
    ("invalid_scope", Client),
    ("unsupported_grant_type", Client),
    ("invalid_request", Client),
    ("access_denied", Client), // RFC 6749 section 4.1.2.1, and RFC 8628 section 3.5
    ("incorrect_client_credentials", Client), // GitHub
    ("invalid_client_id", Client), // Salesforce, Slack
    ("invalid_client_secret", Client), // Zoho
    ("bad_client_secret", Client), // Slack, HubSpot
    ("bad_client_id", Client), // HubSpot
    ("missing_client_id", Client),
    ("deleted_client", Client),             // Google
    ("disabled_client", Client),            // Google
    ("org_internal", Client),               // Google
    ("admin_policy_enforced", Client),      // Google
    ("invalid_client_credentials", Client), // Salesforce; the next two as well
    ("inactive_org", Client),
    ("unsupported_api_version", Client),
    ("invalid_target", Client),                // RFC 8707
    ("invalid_resource", Client),              // Entra ID
    ("invalid_dpop_proof", Client),            // RFC 9449
    ("use_dpop_nonce", Client),                // the same
    ("invalid_authorization_details", Client), // RFC 9396
    ("application invalid", Client),           // Strava
    ("redirect_uri_mismatch", Client),
    ("bad_redirect_uri", Client), // Slack, GitHub
    ("unsupported_auth_method", Client),
    ("restricted_client", Client),     // Google
    ("invalid_app_access", Client),    // Salesforce
    ("application_suspended", Client), // GitHub
    ("invalid_arguments", Client),     // Slack
    ("invalid_app_id", Client),
    ("40013", Client), // WeChat: appid; the next: appsecret
    ("40125", Client),
    ("20002", Client), // Feishu: client secret; the next: no such app
    ("20048", Client),
    ("temporarily_unavailable", NotNow), // RFC 6749 section 4.1.2.1
    ("server_error", NotNow),            // RFC 6749 section 4.1.2.1
    ("slow_down", NotNow),               // RFC 8628 section 3.5
    ("authorization_pending", NotNow),   // RFC 8628 section 3.5
    ("rate_limit_exceeded", NotNow),
    ("too_many_requests", NotNow),
    ("over_request_rate_limit", NotNow), // Supabase
    ("ratelimited", NotNow),             // Slack; the next three as well
    ("fatal_error", NotNow),
    ("internal_error", NotNow),
    ("service_unavailable", NotNow),
    ("internal_failure", NotNow), // Google
    ("request_timeout", NotNow),
    ("20050", NotNow), // Feishu
    ("-1", NotNow),    // WeChat
    ("45009", NotNow), // WeChat: too often; the next as well
    ("45011", NotNow),
    ("601", NotNow), // Withings
];

/// Codes of which the words may know better: servers use them for whatever they dislike.
const VAGUE: [&str; 6] = [
    "invalid_request",
    "unauthorized_client",
    "access_denied",
    "invalid_token",
    "unsupported_grant_type",
    "invalid_arguments",
];

/// The code in its registered spelling, and its meaning; `None` for one that is not known.
/// Upper and lower case do not count: servers with INVALID_GRANT exist.
pub fn look_up(code: &str) -> Option<(&'static str, Meaning)> {
    let find = |code: &str| {
        let code = squeeze_code(code);
        CODES.iter().find(|(known, _)| squeeze_code(known) == code).copied()
    };
    // Logto's oidc.invalid_grant, and "invalid_grant: the words". A number is no part of a code.
    let parts = || code.split([':', '.', '/']).filter(|part| part.contains('_'));
    find(code).or_else(|| parts().find_map(find))
}

/// A code's sign counts.
fn squeeze_code(code: &str) -> String {
    if code.starts_with('-') { code.to_owned() } else { squeeze(code) }
}

/// The meaning of the codes and the words together; `None` if nothing in them is known.
#[expect(clippy::needless_pass_by_value, reason = "iterators that are cheap to clone")]
pub fn meaning<'a>(
    codes: impl Iterator<Item = &'a str> + Clone,
    words: impl Iterator<Item = &'a str> + Clone,
) -> Option<Meaning> {
    let text: String = codes.clone().chain(words).map(|text| squeeze(text) + "\n").collect();
    let says = |rows: &[Phrases]| rows.iter().find(|row| row.applies(&text)).map(|row| row.meaning);
    let known = || codes.clone().filter_map(look_up);
    if let Some(NotNow) = says(NOT_NOW_WORDS) {
        return Some(NotNow);
    }
    let clear = known().find(|(code, _)| !VAGUE.contains(code)).map(|(_, meaning)| meaning);
    clear
        .or_else(|| codes.clone().any(is_dead).then_some(DeadToken))
        .or_else(|| says(WORDS))
        .or_else(|| known().next().map(|(_, meaning)| meaning))
        // A client that is not let in is a client's fault; UAA's and Spring's words came before.
        .or_else(|| codes.clone().any(|code| squeeze(code) == "invalidtoken").then_some(Client))
}

/// `keymanagement.service.invalid_refresh_token`, `unauthorized.bad_refresh_token.evicted` and
/// their like: a code that names the token and its end.
fn is_dead(code: &str) -> bool {
    let code = squeeze(code);
    let ends = ["invalid", "bad", "expired", "revoked", "reused", "used", "notfound", "evicted"];
    code.contains("refreshtoken") && !code.contains("missing") && ends.iter().any(|end| code.contains(end))
}

impl Phrases {
    fn applies(&self, text: &str) -> bool {
        let holds = |phrase: &str| text.contains(&squeeze(phrase));
        self.all_of.iter().all(|phrase| holds(phrase))
            && self.one_of.iter().any(|phrase| holds(phrase))
            && !self.unless.iter().copied().flatten().any(|phrase| holds(phrase))
    }
}
