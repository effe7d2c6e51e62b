//! The formats with a name, for programs that read tokens: each is a template.

/// A format that may stand in the place of a template.
#[derive(Debug)]
pub struct NamedFormat {
    pub name: &'static str,
    /// The part after the name and a colon; empty if there is none.
    pub argument: &'static str,
    /// The readers, in one line.
    pub doc: &'static str,
    /// `@USER@`, `@PLACE@` and `@URL@` stand for the parts of the argument.
    template: &'static str,
}

/// The user name where a program wants one and the argument has none: a server that takes a token as
/// a password ignores it, or wants this one, as GitLab does.
const USER: &str = "oauth2";

/// One without an argument.
const fn plain(name: &'static str, doc: &'static str, template: &'static str) -> NamedFormat {
    NamedFormat { name, argument: "", doc, template }
}

/// One for a place that its argument names.
const fn of_place(
    name: &'static str,
    argument: &'static str,
    doc: &'static str,
    template: &'static str,
) -> NamedFormat {
    NamedFormat { name, argument, doc, template }
}

/// All of them.
pub const FORMATS: &[NamedFormat] = &[
    plain("bare", "the token alone: Prometheus, ZeroGravity", "{access_token}"),
    plain(
        "bearer",
        "Bearer and the token, for programs that send the text as it is",
        "{token_type} {access_token}",
    ),
    plain("header", "a line of HTTP: curl -H @FILE", "Authorization: {token_type} {access_token}\n"),
    plain(
        "json",
        "a JSON object with access_token, token_type and expires_at (Unix seconds)",
        "{{\"access_token\":{access_token|json},\"expires_at\":{expires_at},\"token_type\":{token_type|json}}}\n",
    ),
    plain(
        "oauth2-json",
        "the Token of golang.org/x/oauth2, without a refresh token: most Go programs",
        "{{\"access_token\":{access_token|json},\"token_type\":{token_type|json},\"expiry\":{expires_at|rfc3339|json}}}\n",
    ),
    // google-auth wants the members that only a refresh needs, and takes empty ones.
    plain(
        "authorized-user",
        "the authorized_user file of google-auth, without a refresh token",
        "{{\"type\":\"authorized_user\",\"token\":{access_token|json},\"expiry\":{expires_at|rfc3339|json},\"client_id\":\"\",\"client_secret\":\"\",\"refresh_token\":\"\"}}\n",
    ),
    of_place(
        "netrc",
        "[USER@]HOST",
        "a line of netrc: curl --netrc-file, wget, pip",
        "machine @PLACE@ login @USER@ password {access_token}\n",
    ),
    of_place(
        "npmrc",
        "HOST[:PORT][/PATH]",
        "a line of .npmrc: npm, pnpm, yarn",
        "//@PLACE@/:_authToken={access_token}\n",
    ),
    of_place(
        "docker",
        "[USER@]HOST[:PORT]",
        "config.json or auth.json: docker, podman, skopeo",
        "{{\"auths\":{{\"@PLACE@\":{{\"auth\":\"{access_token|basic:@USER@}\"}}}}}}\n",
    ),
    // https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    plain(
        "kubeconfig-exec",
        "an ExecCredential: kubectl",
        "{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"expirationTimestamp\":{expires_at|rfc3339|json},\"token\":{access_token|json}}}}}\n",
    ),
    of_place("git", "[USER@]HOST[:PORT]", "a line of git-credential-store(1)", "@URL@\n"),
    of_place(
        "cargo",
        "REGISTRY",
        "credentials.toml: cargo, for a registry that wants Bearer",
        "[registries.\"@PLACE@\"]\ntoken = \"{token_type} {access_token|json}\"\n",
    ),
    of_place(
        "pip",
        "[USER@]HOST[:PORT]/PATH",
        "pip.conf with the index: pip, by PIP_CONFIG_FILE",
        "[global]\nindex-url = @URL@\n",
    ),
];

/// The fault of a name or its argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// It needs an argument of this form.
    #[error("lacks a part: {0}:{1}")]
    Missing(&'static str, &'static str),
    #[error("has a part too many: `{0}` stands alone")]
    Surplus(&'static str),
    /// The argument has a character that could be taken for the syntax of the file.
    #[error("has a part that does not fit: {0}:{1}")]
    Forbidden(&'static str, &'static str),
}

impl NameFault {
    pub fn hint(&self) -> String {
        match self {
            Self::Missing(name, argument) | Self::Forbidden(name, argument) => {
                format!("write {name}:{argument}, with letters, digits and -._~/:")
            }
            Self::Surplus(name) => format!("write {name}, or a template with {{access_token}}"),
        }
    }
}

/// The format has an `{id_token}`, and the server sent none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the format has {{id_token}}, and the server sent no id_token")]
pub struct NoIdToken;

impl NoIdToken {
    pub const HINT: &str = "set scope to what was granted at login, with openid among it; a server that sends none at a refresh has none to give";
}

/// The template of a format; `None` if the text begins with no name of one.
pub fn template(text: &str) -> Option<Result<String, NameFault>> {
    let (name, argument) = text.split_once(':').unwrap_or((text, ""));
    let format = FORMATS.iter().find(|format| format.name == name)?;
    Some(format.template(argument))
}

impl NamedFormat {
    /// The name, with the form of its argument.
    pub fn usage(&self) -> String {
        let colon = if self.argument.is_empty() { "" } else { ":" };
        [self.name, colon, self.argument].concat()
    }

    fn template(&self, argument: &str) -> Result<String, NameFault> {
        match (self.argument.is_empty(), argument.is_empty()) {
            (true, true) => return Ok(self.template.to_owned()),
            (true, false) => return Err(NameFault::Surplus(self.name)),
            (false, true) => return Err(NameFault::Missing(self.name, self.argument)),
            (false, false) => {}
        }
        let (scheme, rest) = match argument.split_once("://") {
            Some((scheme @ ("https" | "http"), rest)) => (scheme, rest),
            Some(_) => return Err(NameFault::Forbidden(self.name, self.argument)),
            None => ("https", argument),
        };
        let (user, place) = rest.split_once('@').unwrap_or((USER, rest));
        let (place, directory) = place.strip_suffix('/').map_or((place, ""), |place| (place, "/"));
        let is_plain = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._~/:".contains(c))
        };
        if !is_plain(place) || !is_plain(user) || user.contains([':', '/']) {
            return Err(NameFault::Forbidden(self.name, self.argument));
        }
        // A place such as HOST/PATH: the token belongs before it.
        let url = format!("{scheme}://{user}:{{access_token|url}}@{place}{directory}");
        Ok(self.template.replace("@URL@", &url).replace("@USER@", user).replace("@PLACE@", place))
    }
}
