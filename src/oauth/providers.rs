//! Presets: what providers have in common for all their clients, as data. None holds a client.
//!
//! An endpoint that no public source confirms is left out.

use crate::oauth::auth_method::AuthMethod;
use crate::oauth::grant::GrantType;

/// Names and values.
type Pairs = &'static [(&'static str, &'static str)];

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
    pub headers: Pairs,
    /// A template, as in `request_body`.
    pub body: Option<&'static str>,
    /// More parameters of each refresh.
    pub params: Pairs,
    /// The needs of a login that gets a refresh token: parameters of the authorization request.
    pub login_params: Pairs,
    /// Keys that every request of a client for itself needs, each with a word on it.
    pub needs: Pairs,
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

/// A row in which nothing is special: with a secret, it goes into the body.
const fn post(name: &'static str, token_endpoint: &'static str) -> Provider {
    Provider {
        name,
        place: None,
        token_endpoint,
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
    }
}

/// The same with the secret in the Authorization header.
const fn basic(name: &'static str, token_endpoint: &'static str) -> Provider {
    post(name, token_endpoint).auth(AuthMethod::ClientSecretBasic)
}

/// The same for clients that ask for themselves.
const fn machine(name: &'static str, token_endpoint: &'static str) -> Provider {
    basic(name, token_endpoint).grant(GrantType::ClientCredentials)
}

/// The rest of a row.
impl Provider {
    /// The endpoints have the value of this key in them, which has no default.
    const fn needs_key(self, key: &'static str) -> Self {
        Self { place: Some(Placeholder { key, default: None, values: &[] }), ..self }
    }

    const fn key(self, key: &'static str, default: &'static str) -> Self {
        self.one_of(key, default, &[])
    }

    const fn one_of(self, key: &'static str, default: &'static str, values: &'static [&'static str]) -> Self {
        Self { place: Some(Placeholder { key, default: Some(default), values }), ..self }
    }

    const fn auth(self, method: AuthMethod) -> Self {
        Self { auth_method: method, ..self }
    }

    const fn grant(self, grant_type: GrantType) -> Self {
        Self { grant_type, ..self }
    }

    const fn browser(self, url: &'static str) -> Self {
        Self { authorization_endpoint: Some(url), ..self }
    }

    const fn device(self, url: &'static str) -> Self {
        Self { device_endpoint: Some(url), ..self }
    }

    const fn revoke(self, url: &'static str) -> Self {
        Self { revocation_endpoint: Some(url), ..self }
    }

    const fn headers(self, headers: Pairs) -> Self {
        Self { headers, ..self }
    }

    const fn body(self, template: &'static str) -> Self {
        Self { body: Some(template), ..self }
    }

    const fn params(self, params: Pairs) -> Self {
        Self { params, ..self }
    }

    const fn login(self, login_params: Pairs) -> Self {
        Self { login_params, ..self }
    }

    const fn needs(self, needs: Pairs) -> Self {
        Self { needs, ..self }
    }

    const fn note(self, quirks: &'static str) -> Self {
        Self { quirks, ..self }
    }

    const fn source(self, source: &'static str) -> Self {
        Self { source, ..self }
    }
}

/// All of them, by name.
pub const PROVIDERS: &[Provider] = &[
    post("amazon", "https://api.amazon.com/auth/o2/token")
        .browser("https://www.amazon.com/ap/oa")
        .note("access tokens live 1 h"),
    post("atlassian", "https://auth.atlassian.com/oauth/token")
        .browser("https://auth.atlassian.com/authorize")
        .login(&[("scope", "offline_access"), ("audience", "api.atlassian.com"), ("prompt", "consent")])
        .note("rotates; access tokens live 1 h")
        .source(NANGO),
    machine("auth0", "https://{host}/oauth/token")
        .needs_key("host")
        .needs(&[("audience", "the identifier of the API")])
        .note("for client credentials; tokens live 24 h")
        .source("auth0.com/docs"),
    machine("aws-cognito", "https://{host}/oauth2/token")
        .needs_key("host")
        .note("for client credentials: host is the domain of the user pool; tokens live 1 h")
        .source("docs.aws.amazon.com/cognito, token-endpoint"),
    basic("bitbucket", "https://bitbucket.org/site/oauth2/access_token")
        .browser("https://bitbucket.org/site/oauth2/authorize")
        .note("access tokens live 2 h"),
    post("box", "https://api.box.com/oauth2/token")
        .browser("https://account.box.com/api/oauth2/authorize")
        .revoke("https://api.box.com/oauth2/revoke")
        .note("a refresh token works once")
        .source(NANGO),
    post("discord", "https://discord.com/api/oauth2/token")
        .browser("https://discord.com/oauth2/authorize")
        .revoke("https://discord.com/api/oauth2/token/revoke")
        .note("rotates; access tokens live 7 days"),
    post("dropbox", "https://api.dropboxapi.com/oauth2/token")
        .browser("https://www.dropbox.com/oauth2/authorize")
        .login(&[("token_access_type", "offline")])
        .note("access tokens live 4 h"),
    basic("ebay", "https://api.ebay.com/identity/v1/oauth2/token")
        .browser("https://auth.ebay.com/oauth2/authorize")
        .note("the token type is User Access Token; access tokens live 2 h"),
    machine("entra", "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token")
        .auth(AuthMethod::ClientSecretPost)
        .needs_key("tenant")
        .needs(&[("scope", "https://RESOURCE/.default")])
        .note("for applications and workloads: with client_secret, with private_key and certificate, or with client_assertion")
        .source("learn.microsoft.com, certificate-credentials"),
    post("exact-online", "https://{host}/api/oauth2/token")
        .key("host", "start.exactonline.nl")
        .note("a refresh token works once, dies after 30 days without use, and is refused before 9.5 of the 10 min are over: set skew = \"25s\"")
        .source("stephangroen/laravel-exact-online, issue 19"),
    post("feishu", "https://open.feishu.cn/open-apis/authen/v2/oauth/token")
        .browser("https://accounts.feishu.cn/open-apis/authen/v1/authorize")
        .login(&[("scope", "offline_access")])
        .note("a refresh token works once and lives 7 days")
        .source("open.feishu.cn"),
    basic("figma", "https://api.figma.com/v1/oauth/refresh")
        .browser("https://www.figma.com/oauth")
        .note("access tokens live 90 days")
        .source(NANGO),
    post("firebase", "https://securetoken.googleapis.com/v1/token?key={tenant}")
        .needs_key("tenant")
        .note("tenant is the Web API key of the project")
        .source("firebase.google.com"),
    basic("fitbit", "https://api.fitbit.com/oauth2/token")
        .browser("https://www.fitbit.com/oauth2/authorize")
        .revoke("https://api.fitbit.com/oauth2/revoke")
        .note("a refresh token works once; access tokens live 8 h"),
    post("github", "https://github.com/login/oauth/access_token")
        .browser("https://github.com/login/oauth/authorize")
        .device("https://github.com/login/device/code")
        .note("errors come with HTTP 200; rotates; access tokens live 8 h, logins 6 months"),
    post("gitlab", "https://{host}/oauth/token")
        .key("host", "gitlab.com")
        .browser("https://{host}/oauth/authorize")
        .device("https://{host}/oauth/authorize_device")
        .revoke("https://{host}/oauth/revoke")
        .note("rotates; access tokens live 2 h"),
    post("google", "https://oauth2.googleapis.com/token")
        .browser("https://accounts.google.com/o/oauth2/v2/auth")
        .device("https://oauth2.googleapis.com/device/code")
        .revoke("https://oauth2.googleapis.com/revoke")
        .login(&[("access_type", "offline"), ("prompt", "consent")])
        .note("a client in \"Testing\" loses its logins after 7 days"),
    post("google-service-account", "https://oauth2.googleapis.com/token")
        .grant(GrantType::JwtBearer)
        .note("set google_credentials = \"key.json\" and scope; tokens live 1 h")
        .source("developers.google.com/identity/protocols/oauth2/service-account"),
    post("hubspot", "https://api.hubapi.com/oauth/v3/token")
        .browser("https://app.hubspot.com/oauth/authorize")
        .note("access tokens live 30 min")
        .source("developers.hubspot.com"),
    basic("intuit", "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer")
        .browser("https://appcenter.intuit.com/connect/oauth2")
        .revoke("https://developer.api.intuit.com/v2/oauth2/tokens/revoke")
        .note("rotates once a day; logins die after 101 days without use")
        .source(NANGO),
    machine("keycloak", "{issuer}/protocol/openid-connect/token")
        .needs_key("issuer")
        .note("for client credentials: issuer = \"https://HOST/realms/NAME\"; the client needs its service account")
        .source("keycloak.org/docs, server_admin, service accounts"),
    post("lark", "https://open.larksuite.com/open-apis/authen/v2/oauth/token")
        .browser("https://accounts.larksuite.com/open-apis/authen/v1/authorize")
        .login(&[("scope", "offline_access")])
        .note("a refresh token works once and lives 7 days")
        .source("open.larksuite.com"),
    post("linear", "https://api.linear.app/oauth/token")
        .browser("https://linear.app/oauth/authorize")
        .revoke("https://api.linear.app/oauth/revoke")
        .note("rotates; access tokens live 24 h")
        .source(NANGO),
    post("linkedin", "https://www.linkedin.com/oauth/v2/accessToken")
        .browser("https://www.linkedin.com/oauth/v2/authorization")
        .note("only some apps get refresh tokens; access tokens live 60 days"),
    post("microsoft", "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token")
        .key("tenant", "common")
        .browser("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize")
        .device("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode")
        .login(&[("scope", "offline_access")])
        .note("rotates; a login dies after 90 days without use, one of a single-page app after 24 h: that one needs request_headers = { origin = \"https://…\" }"),
    post("netatmo", "https://api.netatmo.com/oauth2/token")
        .browser("https://api.netatmo.com/oauth2/authorize")
        .note("rotates; access tokens live 3 h")
        .source("philippelt/netatmo-api-python, issue 82"),
    basic("notion", "https://api.notion.com/v1/oauth/token")
        .browser("https://api.notion.com/v1/oauth/authorize")
        .headers(&[("notion-version", "2022-06-28")])
        .body("{{\"grant_type\": \"{grant_type}\", \"refresh_token\": \"{refresh_token}\"}}")
        .note("rotates")
        .source("developers.notion.com"),
    machine("okta", "https://{host}/oauth2/default/v1/token")
        .needs_key("host")
        .note("for client credentials at the default authorization server; for another one set issuer")
        .source("developer.okta.com, openapi okta-oauth"),
    basic("paypal", "https://api.paypal.com/v1/oauth2/token")
        .browser("https://www.paypal.com/signin/authorize")
        .source(NANGO),
    basic("reddit", "https://www.reddit.com/api/v1/access_token")
        .browser("https://www.reddit.com/api/v1/authorize")
        .revoke("https://www.reddit.com/api/v1/revoke_token")
        .login(&[("duration", "permanent")])
        .note("wants a user agent of your own: request_headers = { user-agent = \"…\" }; access tokens live 24 h")
        .source(NANGO),
    post("salesforce", "https://{host}/services/oauth2/token")
        .key("host", "login.salesforce.com")
        .browser("https://{host}/services/oauth2/authorize")
        .revoke("https://{host}/services/oauth2/revoke")
        .login(&[("scope", "refresh_token")])
        .note("says nothing of lifetimes: set default_lifetime to the session timeout of the org")
        .source(NANGO),
    post("shopify", "https://{shop}.myshopify.com/admin/oauth/access_token")
        .needs_key("shop")
        .browser("https://{shop}.myshopify.com/admin/oauth/authorize")
        .note("rotates; access tokens live 1 h")
        .source("shopify.dev, changelog"),
    post("slack", "https://slack.com/api/oauth.v2.access")
        .browser("https://slack.com/oauth/v2/authorize")
        .note("a refresh token works once; access tokens live 12 h; errors come with HTTP 200"),
    basic("spotify", "https://accounts.spotify.com/api/token")
        .browser("https://accounts.spotify.com/authorize")
        .note("rotates now and then; access tokens live 1 h"),
    post("square", "https://connect.squareup.com/oauth2/token")
        .browser("https://connect.squareup.com/oauth2/authorize")
        .note("rotates only for PKCE; access tokens live 30 days")
        .source(NANGO),
    post("strava", "https://www.strava.com/oauth/token")
        .browser("https://www.strava.com/oauth/authorize")
        .note("access tokens live 6 h"),
    post("tiktok", "https://open.tiktokapis.com/v2/oauth/token/")
        .browser("https://www.tiktok.com/v2/auth/authorize/")
        .revoke("https://open.tiktokapis.com/v2/oauth/revoke/")
        .body("grant_type={grant_type}&refresh_token={refresh_token}&client_key={client_id}&client_secret={client_secret}")
        .note("rotates; access tokens live 24 h")
        .source(NANGO),
    post("twitch", "https://id.twitch.tv/oauth2/token")
        .browser("https://id.twitch.tv/oauth2/authorize")
        .device("https://id.twitch.tv/oauth2/device")
        .revoke("https://id.twitch.tv/oauth2/revoke")
        .note("access tokens live 4 h"),
    post("withings", "https://wbsapi.withings.net/v2/oauth2")
        .browser("https://account.withings.com/oauth2_user/authorize2")
        .params(&[("action", "requesttoken")])
        .note("rotates, the earlier refresh token lives 8 h; access tokens live 3 h, logins 1 year")
        .source("developer.withings.com"),
    basic("x", "https://api.x.com/2/oauth2/token")
        .browser("https://x.com/i/oauth2/authorize")
        .revoke("https://api.x.com/2/oauth2/revoke")
        .login(&[("scope", "offline.access")])
        .note("rotates; access tokens live 2 h"),
    basic("xero", "https://identity.xero.com/connect/token")
        .browser("https://login.xero.com/identity/connect/authorize")
        .revoke("https://identity.xero.com/connect/revocation")
        .login(&[("scope", "offline_access")])
        .note("rotates; access tokens live 30 min, logins die after 60 days without use")
        .source(NANGO),
    basic("yahoo", "https://api.login.yahoo.com/oauth2/get_token")
        .browser("https://api.login.yahoo.com/oauth2/request_auth"),
    post("zoho", "https://accounts.zoho.{data_center}/oauth/v2/token")
        .one_of("data_center", "com", &["com", "eu", "in", "com.au", "jp", "com.cn", "sa"])
        .browser("https://accounts.zoho.{data_center}/oauth/v2/auth")
        .login(&[("access_type", "offline"), ("prompt", "consent")])
        .note("at most 10 access tokens in 10 min; they live 1 h; in Canada set token_endpoint = \"https://accounts.zohocloud.ca/oauth/v2/token\"")
        .source("zoho.com/accounts, access-token-expiry"),
    basic("zoom", "https://zoom.us/oauth/token")
        .browser("https://zoom.us/oauth/authorize")
        .revoke("https://zoom.us/oauth/revoke")
        .note("rotates; access tokens live 1 h"),
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
