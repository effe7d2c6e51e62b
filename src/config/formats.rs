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

/// All of them.
pub const FORMATS: &[NamedFormat] = &[
    NamedFormat {
        name: "bare",
        argument: "",
        doc: "the token alone: Prometheus, ZeroGravity",
        template: "{access_token}",
    },
    NamedFormat {
        name: "bearer",
        argument: "",
        doc: "Bearer and the token, for programs that send the text as it is",
        template: "{token_type} {access_token}",
    },
    NamedFormat {
        name: "header",
        argument: "",
        doc: "a line of HTTP: curl -H @FILE",
        template: "Authorization: {token_type} {access_token}\n",
    },
    NamedFormat {
        name: "json",
        argument: "",
        doc: "a JSON object with access_token, token_type and expires_at (Unix seconds)",
        template: "{{\"access_token\":{access_token|json},\"expires_at\":{expires_at},\"token_type\":{token_type|json}}}\n",
    },
    NamedFormat {
        name: "oauth2-json",
        argument: "",
        doc: "the Token of golang.org/x/oauth2, without a refresh token: most Go programs",
        template: "{{\"access_token\":{access_token|json},\"token_type\":{token_type|json},\"expiry\":{expires_at|rfc3339|json}}}\n",
    },
    NamedFormat {
        name: "authorized-user",
        argument: "",
        // google-auth wants the members that only a refresh needs, and takes empty ones.
        doc: "the authorized_user file of google-auth, without a refresh token",
        template: "{{\"type\":\"authorized_user\",\"token\":{access_token|json},\"expiry\":{expires_at|rfc3339|json},\"client_id\":\"\",\"client_secret\":\"\",\"refresh_token\":\"\"}}\n",
    },
    NamedFormat {
        name: "netrc",
        argument: "[USER@]HOST",
        doc: "a line of netrc: curl --netrc-file, wget, pip",
        template: "machine @PLACE@ login @USER@ password {access_token}\n",
    },
    NamedFormat {
        name: "npmrc",
        argument: "HOST[:PORT][/PATH]",
        doc: "a line of .npmrc: npm, pnpm, yarn",
        template: "//@PLACE@/:_authToken={access_token}\n",
    },
    NamedFormat {
        name: "docker",
        argument: "[USER@]HOST[:PORT]",
        doc: "config.json or auth.json: docker, podman, skopeo",
        template: "{{\"auths\":{{\"@PLACE@\":{{\"auth\":\"{access_token|basic:@USER@}\"}}}}}}\n",
    },
    // https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    NamedFormat {
        name: "kubeconfig-exec",
        argument: "",
        doc: "an ExecCredential: kubectl",
        template: "{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"expirationTimestamp\":{expires_at|rfc3339|json},\"token\":{access_token|json}}}}}\n",
    },
    NamedFormat {
        name: "git",
        argument: "[USER@]HOST[:PORT]",
        doc: "a line of git-credential-store(1)",
        template: "@URL@\n",
    },
    NamedFormat {
        name: "cargo",
        argument: "REGISTRY",
        doc: "credentials.toml: cargo, for a registry that wants Bearer",
        template: "[registries.\"@PLACE@\"]\ntoken = \"{token_type} {access_token|json}\"\n",
    },
    NamedFormat {
        name: "pip",
        argument: "[USER@]HOST[:PORT]/PATH",
        doc: "pip.conf with the index: pip, by PIP_CONFIG_FILE",
        template: "[global]\nindex-url = @URL@\n",
    },
];

/// The fault of a name or its argument.
#[derive(Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It needs an argument of this form.
    Missing(&'static str, &'static str),
    /// It takes none.
    Surplus(&'static str),
    /// The argument has a character that could be taken for the syntax of the file.
    Forbidden(&'static str, &'static str),
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
