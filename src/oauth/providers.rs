//! Presets: what providers have in common for all their clients, as data. None holds a client.
//!
//! An endpoint that no public source confirms is left out.

use crate::oauth::auth_method::AuthMethod;
use crate::oauth::grant::GrantType;

/// One provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// The value of the key `provider`.
    pub name: &'static str,
    /// The key whose value belongs into the endpoints, as `{tenant}` and the like.
    pub place: Option<Placeholder>,
    pub token_endpoint: &'static str,
    /// With a client_secret; without one it is none.
    pub auth_method: AuthMethod,
    /// If the config states none.
    pub grant_type: GrantType,
    pub authorization_endpoint: Option<&'static str>,
    pub device_endpoint: Option<&'static str>,
    /// RFC 7009.
    pub revocation_endpoint: Option<&'static str>,
    pub headers: &'static [(&'static str, &'static str)],
    /// A template, as in `request_body`.
    pub body: Option<&'static str>,
    /// More parameters of each refresh.
    pub params: &'static [(&'static str, &'static str)],
    /// The needs of a login that gets a refresh token: parameters of the authorization request.
    pub login_params: &'static [(&'static str, &'static str)],
    /// Keys that every request of a client for itself needs, each with a word on it.
    pub needs: &'static [(&'static str, &'static str)],
    /// Facts for users: lifetimes, limits, what the answers look like.
    pub quirks: &'static str,
    /// Where the row is from. All were seen on [`SEEN`].
    pub source: &'static str,
}

/// When the sources of the table were read.
pub const SEEN: &str = "2026-11-28";

/// The part of an endpoint that each user has another one of.
#[derive(Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// `tenant`, `host`, `shop` or `data_center`.
    pub key: &'static str,
    /// None: the key is required.
    pub default: Option<&'static str>,
    /// The only values; empty for any.
    pub values: &'static [&'static str],
}

const GO: &str = "golang/oauth2, endpoints.go";
const NANGO: &str = "NangoHQ/nango, providers.yaml";

/// A row in which nothing is special.
const PLAIN: Provider = Provider {
    name: "",
    place: None,
    token_endpoint: "",
    auth_method: AuthMethod::ClientSecretPost,
    grant_type: GrantType::RefreshToken,
    authorization_endpoint: None,
    device_endpoint: None,
    revocation_endpoint: None,
    headers: &[],
    body: None,
    params: &[],
    login_params: &[],
    needs: &[],
    quirks: "",
    source: GO,
};

/// A row for clients that ask for themselves.
const MACHINE: Provider = Provider { grant_type: GrantType::ClientCredentials, ..BASIC };

const BASIC: Provider = Provider { auth_method: AuthMethod::ClientSecretBasic, ..PLAIN };

/// All of them, by name.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "amazon",
        token_endpoint: "https://api.amazon.com/auth/o2/token",
        authorization_endpoint: Some("https://www.amazon.com/ap/oa"),
        quirks: "access tokens live 1 h",
        ..PLAIN
    },
    Provider {
        name: "atlassian",
        token_endpoint: "https://auth.atlassian.com/oauth/token",
        authorization_endpoint: Some("https://auth.atlassian.com/authorize"),
        login_params: &[
            ("scope", "offline_access"),
            ("audience", "api.atlassian.com"),
            ("prompt", "consent"),
        ],
        quirks: "rotates; access tokens live 1 h",
        source: NANGO,
        ..PLAIN
    },
    Provider {
        name: "auth0",
        place: Some(Placeholder { key: "host", default: None, values: &[] }),
        token_endpoint: "https://{host}/oauth/token",
        needs: &[("audience", "the identifier of the API")],
        quirks: "for client credentials; tokens live 24 h",
        source: "auth0.com/docs",
        ..MACHINE
    },
    Provider {
        name: "aws-cognito",
        place: Some(Placeholder { key: "host", default: None, values: &[] }),
        token_endpoint: "https://{host}/oauth2/token",
        quirks: "for client credentials: host is the domain of the user pool; tokens live 1 h",
        source: "docs.aws.amazon.com/cognito, token-endpoint",
        ..MACHINE
    },
    Provider {
        name: "bitbucket",
        token_endpoint: "https://bitbucket.org/site/oauth2/access_token",
        authorization_endpoint: Some("https://bitbucket.org/site/oauth2/authorize"),
        quirks: "access tokens live 2 h",
        ..BASIC
    },
    Provider {
        name: "box",
        token_endpoint: "https://api.box.com/oauth2/token",
        authorization_endpoint: Some("https://account.box.com/api/oauth2/authorize"),
        revocation_endpoint: Some("https://api.box.com/oauth2/revoke"),
        quirks: "a refresh token works once",
        source: NANGO,
        ..PLAIN
    },
    Provider {
        name: "discord",
        token_endpoint: "https://discord.com/api/oauth2/token",
        authorization_endpoint: Some("https://discord.com/oauth2/authorize"),
        revocation_endpoint: Some("https://discord.com/api/oauth2/token/revoke"),
        quirks: "rotates; access tokens live 7 days",
        ..PLAIN
    },
    Provider {
        name: "dropbox",
        token_endpoint: "https://api.dropboxapi.com/oauth2/token",
        authorization_endpoint: Some("https://www.dropbox.com/oauth2/authorize"),
        login_params: &[("token_access_type", "offline")],
        quirks: "access tokens live 4 h",
        ..PLAIN
    },
    Provider {
        name: "ebay",
        token_endpoint: "https://api.ebay.com/identity/v1/oauth2/token",
        authorization_endpoint: Some("https://auth.ebay.com/oauth2/authorize"),
        quirks: "the token type is User Access Token; access tokens live 2 h",
        ..BASIC
    },
    Provider {
        name: "entra",
        place: Some(Placeholder { key: "tenant", default: None, values: &[] }),
        token_endpoint: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        auth_method: AuthMethod::ClientSecretPost,
        needs: &[("scope", "https://RESOURCE/.default")],
        quirks: "for applications and workloads: with client_secret, with private_key and certificate, or with client_assertion",
        source: "learn.microsoft.com, certificate-credentials",
        ..MACHINE
    },
    Provider {
        name: "exact-online",
        place: Some(Placeholder { key: "host", default: Some("start.exactonline.nl"), values: &[] }),
        token_endpoint: "https://{host}/api/oauth2/token",
        quirks: "a refresh token works once, dies after 30 days without use, and is refused before 9.5 of the 10 min are over: set skew = \"25s\"",
        source: "stephangroen/laravel-exact-online, issue 19",
        ..PLAIN
    },
    Provider {
        name: "feishu",
        token_endpoint: "https://open.feishu.cn/open-apis/authen/v2/oauth/token",
        authorization_endpoint: Some("https://accounts.feishu.cn/open-apis/authen/v1/authorize"),
        login_params: &[("scope", "offline_access")],
        quirks: "a refresh token works once and lives 7 days",
        source: "open.feishu.cn",
        ..PLAIN
    },
    Provider {
        name: "figma",
        token_endpoint: "https://api.figma.com/v1/oauth/refresh",
        authorization_endpoint: Some("https://www.figma.com/oauth"),
        quirks: "access tokens live 90 days",
        source: NANGO,
        ..BASIC
    },
    Provider {
        name: "firebase",
        place: Some(Placeholder { key: "tenant", default: None, values: &[] }),
        token_endpoint: "https://securetoken.googleapis.com/v1/token?key={tenant}",
        quirks: "tenant is the Web API key of the project",
        source: "firebase.google.com",
        ..PLAIN
    },
    Provider {
        name: "fitbit",
        token_endpoint: "https://api.fitbit.com/oauth2/token",
        authorization_endpoint: Some("https://www.fitbit.com/oauth2/authorize"),
        revocation_endpoint: Some("https://api.fitbit.com/oauth2/revoke"),
        quirks: "a refresh token works once; access tokens live 8 h",
        ..BASIC
    },
    Provider {
        name: "github",
        token_endpoint: "https://github.com/login/oauth/access_token",
        authorization_endpoint: Some("https://github.com/login/oauth/authorize"),
        device_endpoint: Some("https://github.com/login/device/code"),
        quirks: "errors come with HTTP 200; rotates; access tokens live 8 h, logins 6 months",
        ..PLAIN
    },
    Provider {
        name: "gitlab",
        place: Some(Placeholder { key: "host", default: Some("gitlab.com"), values: &[] }),
        token_endpoint: "https://{host}/oauth/token",
        authorization_endpoint: Some("https://{host}/oauth/authorize"),
        device_endpoint: Some("https://{host}/oauth/authorize_device"),
        revocation_endpoint: Some("https://{host}/oauth/revoke"),
        quirks: "rotates; access tokens live 2 h",
        ..PLAIN
    },
    Provider {
        name: "google",
        token_endpoint: "https://oauth2.googleapis.com/token",
        authorization_endpoint: Some("https://accounts.google.com/o/oauth2/v2/auth"),
        device_endpoint: Some("https://oauth2.googleapis.com/device/code"),
        revocation_endpoint: Some("https://oauth2.googleapis.com/revoke"),
        login_params: &[("access_type", "offline"), ("prompt", "consent")],
        quirks: "a client in \"Testing\" loses its logins after 7 days",
        ..PLAIN
    },
    Provider {
        name: "google-service-account",
        token_endpoint: "https://oauth2.googleapis.com/token",
        grant_type: GrantType::JwtBearer,
        quirks: "set google_credentials = \"key.json\" and scope; tokens live 1 h",
        source: "developers.google.com/identity/protocols/oauth2/service-account",
        ..PLAIN
    },
    Provider {
        name: "hubspot",
        token_endpoint: "https://api.hubapi.com/oauth/v3/token",
        authorization_endpoint: Some("https://app.hubspot.com/oauth/authorize"),
        quirks: "access tokens live 30 min",
        source: "developers.hubspot.com",
        ..PLAIN
    },
    Provider {
        name: "intuit",
        token_endpoint: "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        authorization_endpoint: Some("https://appcenter.intuit.com/connect/oauth2"),
        revocation_endpoint: Some("https://developer.api.intuit.com/v2/oauth2/tokens/revoke"),
        quirks: "rotates once a day; logins die after 101 days without use",
        source: NANGO,
        ..BASIC
    },
    Provider {
        name: "keycloak",
        place: Some(Placeholder { key: "issuer", default: None, values: &[] }),
        token_endpoint: "{issuer}/protocol/openid-connect/token",
        quirks: "for client credentials: issuer = \"https://HOST/realms/NAME\"; the client needs its service account",
        source: "keycloak.org/docs, server_admin, service accounts",
        ..MACHINE
    },
    Provider {
        name: "lark",
        token_endpoint: "https://open.larksuite.com/open-apis/authen/v2/oauth/token",
        authorization_endpoint: Some("https://accounts.larksuite.com/open-apis/authen/v1/authorize"),
        login_params: &[("scope", "offline_access")],
        quirks: "a refresh token works once and lives 7 days",
        source: "open.larksuite.com",
        ..PLAIN
    },
    Provider {
        name: "linear",
        token_endpoint: "https://api.linear.app/oauth/token",
        authorization_endpoint: Some("https://linear.app/oauth/authorize"),
        revocation_endpoint: Some("https://api.linear.app/oauth/revoke"),
        quirks: "rotates; access tokens live 24 h",
        source: NANGO,
        ..PLAIN
    },
    Provider {
        name: "linkedin",
        token_endpoint: "https://www.linkedin.com/oauth/v2/accessToken",
        authorization_endpoint: Some("https://www.linkedin.com/oauth/v2/authorization"),
        quirks: "only some apps get refresh tokens; access tokens live 60 days",
        ..PLAIN
    },
    Provider {
        name: "microsoft",
        place: Some(Placeholder { key: "tenant", default: Some("common"), values: &[] }),
        token_endpoint: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        authorization_endpoint: Some("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize"),
        device_endpoint: Some("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode"),
        login_params: &[("scope", "offline_access")],
        quirks: "rotates; a login dies after 90 days without use, one of a single-page app after 24 h: that one needs request_headers = { origin = \"https://…\" }",
        ..PLAIN
    },
    Provider {
        name: "netatmo",
        token_endpoint: "https://api.netatmo.com/oauth2/token",
        authorization_endpoint: Some("https://api.netatmo.com/oauth2/authorize"),
        quirks: "rotates; access tokens live 3 h",
        source: "philippelt/netatmo-api-python, issue 82",
        ..PLAIN
    },
    Provider {
        name: "notion",
        token_endpoint: "https://api.notion.com/v1/oauth/token",
        authorization_endpoint: Some("https://api.notion.com/v1/oauth/authorize"),
        body: Some("{{\"grant_type\": \"{grant_type}\", \"refresh_token\": \"{refresh_token}\"}}"),
        headers: &[("notion-version", "2022-06-28")],
        quirks: "rotates",
        source: "developers.notion.com",
        ..BASIC
    },
    Provider {
        name: "okta",
        place: Some(Placeholder { key: "host", default: None, values: &[] }),
        token_endpoint: "https://{host}/oauth2/default/v1/token",
        quirks: "for client credentials at the default authorization server; for another one set issuer",
        source: "developer.okta.com, openapi okta-oauth",
        ..MACHINE
    },
    Provider {
        name: "paypal",
        token_endpoint: "https://api.paypal.com/v1/oauth2/token",
        authorization_endpoint: Some("https://www.paypal.com/signin/authorize"),
        source: NANGO,
        ..BASIC
    },
    Provider {
        name: "reddit",
        token_endpoint: "https://www.reddit.com/api/v1/access_token",
        authorization_endpoint: Some("https://www.reddit.com/api/v1/authorize"),
        revocation_endpoint: Some("https://www.reddit.com/api/v1/revoke_token"),
        login_params: &[("duration", "permanent")],
        quirks: "wants a user agent of your own: request_headers = { user-agent = \"…\" }; access tokens live 24 h",
        source: NANGO,
        ..BASIC
    },
    Provider {
        name: "salesforce",
        place: Some(Placeholder { key: "host", default: Some("login.salesforce.com"), values: &[] }),
        token_endpoint: "https://{host}/services/oauth2/token",
        authorization_endpoint: Some("https://{host}/services/oauth2/authorize"),
        revocation_endpoint: Some("https://{host}/services/oauth2/revoke"),
        login_params: &[("scope", "refresh_token")],
        quirks: "says nothing of lifetimes: set default_lifetime to the session timeout of the org",
        source: NANGO,
        ..PLAIN
    },
    Provider {
        name: "shopify",
        place: Some(Placeholder { key: "shop", default: None, values: &[] }),
        token_endpoint: "https://{shop}.myshopify.com/admin/oauth/access_token",
        authorization_endpoint: Some("https://{shop}.myshopify.com/admin/oauth/authorize"),
        quirks: "rotates; access tokens live 1 h",
        source: "shopify.dev, changelog",
        ..PLAIN
    },
    Provider {
        name: "slack",
        token_endpoint: "https://slack.com/api/oauth.v2.access",
        authorization_endpoint: Some("https://slack.com/oauth/v2/authorize"),
        quirks: "a refresh token works once; access tokens live 12 h; errors come with HTTP 200",
        ..PLAIN
    },
    Provider {
        name: "spotify",
        token_endpoint: "https://accounts.spotify.com/api/token",
        authorization_endpoint: Some("https://accounts.spotify.com/authorize"),
        quirks: "rotates now and then; access tokens live 1 h",
        ..BASIC
    },
    Provider {
        name: "square",
        token_endpoint: "https://connect.squareup.com/oauth2/token",
        authorization_endpoint: Some("https://connect.squareup.com/oauth2/authorize"),
        quirks: "rotates only for PKCE; access tokens live 30 days",
        source: NANGO,
        ..PLAIN
    },
    Provider {
        name: "strava",
        token_endpoint: "https://www.strava.com/oauth/token",
        authorization_endpoint: Some("https://www.strava.com/oauth/authorize"),
        quirks: "access tokens live 6 h",
        ..PLAIN
    },
    Provider {
        name: "tiktok",
        token_endpoint: "https://open.tiktokapis.com/v2/oauth/token/",
        authorization_endpoint: Some("https://www.tiktok.com/v2/auth/authorize/"),
        revocation_endpoint: Some("https://open.tiktokapis.com/v2/oauth/revoke/"),
        body: Some(
            "grant_type={grant_type}&refresh_token={refresh_token}&client_key={client_id}&client_secret={client_secret}",
        ),
        quirks: "rotates; access tokens live 24 h",
        source: NANGO,
        ..PLAIN
    },
    Provider {
        name: "twitch",
        token_endpoint: "https://id.twitch.tv/oauth2/token",
        authorization_endpoint: Some("https://id.twitch.tv/oauth2/authorize"),
        device_endpoint: Some("https://id.twitch.tv/oauth2/device"),
        revocation_endpoint: Some("https://id.twitch.tv/oauth2/revoke"),
        quirks: "access tokens live 4 h",
        ..PLAIN
    },
    Provider {
        name: "withings",
        token_endpoint: "https://wbsapi.withings.net/v2/oauth2",
        authorization_endpoint: Some("https://account.withings.com/oauth2_user/authorize2"),
        params: &[("action", "requesttoken")],
        quirks: "rotates, the earlier refresh token lives 8 h; access tokens live 3 h, logins 1 year",
        source: "developer.withings.com",
        ..PLAIN
    },
    Provider {
        name: "x",
        token_endpoint: "https://api.x.com/2/oauth2/token",
        authorization_endpoint: Some("https://x.com/i/oauth2/authorize"),
        revocation_endpoint: Some("https://api.x.com/2/oauth2/revoke"),
        login_params: &[("scope", "offline.access")],
        quirks: "rotates; access tokens live 2 h",
        ..BASIC
    },
    Provider {
        name: "xero",
        token_endpoint: "https://identity.xero.com/connect/token",
        authorization_endpoint: Some("https://login.xero.com/identity/connect/authorize"),
        revocation_endpoint: Some("https://identity.xero.com/connect/revocation"),
        login_params: &[("scope", "offline_access")],
        quirks: "rotates; access tokens live 30 min, logins die after 60 days without use",
        source: NANGO,
        ..BASIC
    },
    Provider {
        name: "yahoo",
        token_endpoint: "https://api.login.yahoo.com/oauth2/get_token",
        authorization_endpoint: Some("https://api.login.yahoo.com/oauth2/request_auth"),
        ..BASIC
    },
    Provider {
        name: "zoho",
        place: Some(Placeholder {
            key: "data_center",
            default: Some("com"),
            values: &["com", "eu", "in", "com.au", "jp", "com.cn", "sa"],
        }),
        token_endpoint: "https://accounts.zoho.{data_center}/oauth/v2/token",
        authorization_endpoint: Some("https://accounts.zoho.{data_center}/oauth/v2/auth"),
        login_params: &[("access_type", "offline"), ("prompt", "consent")],
        quirks: "at most 10 access tokens in 10 min; they live 1 h; in Canada set token_endpoint = \"https://accounts.zohocloud.ca/oauth/v2/token\"",
        source: "zoho.com/accounts, access-token-expiry",
        ..PLAIN
    },
    Provider {
        name: "zoom",
        token_endpoint: "https://zoom.us/oauth/token",
        authorization_endpoint: Some("https://zoom.us/oauth/authorize"),
        revocation_endpoint: Some("https://zoom.us/oauth/revoke"),
        quirks: "rotates; access tokens live 1 h",
        ..BASIC
    },
];

/// The provider of this name.
pub fn find(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|provider| provider.name == name)
}

impl Provider {
    /// One of its endpoints with the user's part in its place.
    pub fn endpoint(&self, endpoint: &str, part: &str) -> String {
        match &self.place {
            Some(place) => endpoint.replace(&format!("{{{}}}", place.key), part),
            None => endpoint.to_owned(),
        }
    }

    /// The scope that a login needs for a refresh token.
    pub fn login_scope(&self) -> Option<&'static str> {
        self.login_params.iter().find(|(name, _)| *name == "scope").map(|(_, scope)| *scope)
    }

    /// The settings of the preset, in lines for people.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let pairs = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            (!pairs.is_empty()).then(|| pairs.join(" "))
        };
        let place = self.place.as_ref().map(|place| match place.default {
            Some(default) => format!("{}, by default {default}", place.key),
            None => format!("{}, required", place.key),
        });
        let needs: Vec<_> = self.needs.iter().map(|(key, note)| format!("{key} ({note})")).collect();
        let needs = (!needs.is_empty()).then(|| needs.join(", "));
        let owned = |text: Option<&str>| text.map(str::to_owned);
        [
            ("key", place),
            ("token_endpoint", Some(self.token_endpoint.to_owned())),
            ("grant_type", (!self.grant_type.has_login()).then(|| self.grant_type.name().to_owned())),
            ("token_endpoint_auth_method", Some(self.auth_method.as_str().to_owned())),
            ("authorization_endpoint", owned(self.authorization_endpoint)),
            ("device_authorization_endpoint", owned(self.device_endpoint)),
            ("revocation_endpoint", owned(self.revocation_endpoint)),
            ("request_headers", pairs(self.headers)),
            ("request_body", owned(self.body)),
            ("extra_params", pairs(self.params)),
            ("login", pairs(self.login_params)),
            ("needs", needs),
            ("note", (!self.quirks.is_empty()).then(|| self.quirks.to_owned())),
            ("source", Some(format!("{}, {SEEN}", self.source))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}
