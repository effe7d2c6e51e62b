//! What can be asked, in one table: requests are dispatched by it, and the OpenAPI document is
//! made from it.

/// One method of one path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) endpoint: Handler,
    /// In one line.
    pub(super) summary: &'static str,
    /// More of it.
    pub(super) description: &'static str,
    /// It is about one account, `?account=`.
    pub(super) of_account: bool,
    /// The schema of the request's body.
    pub(super) body: Option<&'static str>,
    /// The schema of the reply, if it is JSON.
    pub(super) reply: Option<&'static str>,
    /// The errors that may be, beside those that every request can meet.
    pub(super) errors: &'static [u16],
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    Status,
    Set,
    Rejected,
    Refresh,
    Metrics,
    Health,
    Ready,
}

/// Everything that is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/token/status",
        endpoint: Handler::Status,
        summary: "What is true of an account",
        description: "The account's object of `zg-tokend status --json`. Never the network, never a secret.",
        of_account: true,
        body: None,
        reply: Some("Status"),
        errors: &[],
    },
    Route {
        method: "POST",
        path: "/v1/token",
        endpoint: Handler::Set,
        summary: "Stores a token that was obtained elsewhere",
        description: "An access token is published at once and served until it expires. A refresh token is a new \
                      login, and is used at once: the reply tells what came of it; one that was given before is known, and \
                      changes nothing. Both may come together.",
        of_account: true,
        body: Some("Token"),
        reply: Some("Result"),
        errors: &[409, 413, 415],
    },
    Route {
        method: "POST",
        path: "/v1/token/rejected",
        endpoint: Handler::Rejected,
        summary: "Reports that a resource refused an access token",
        description: "If it is still the stored one it is replaced, once however many report it, and once a minute at \
                      most. With 200 the token file holds another one: read it again.",
        of_account: true,
        body: Some("Rejected"),
        reply: Some("Result"),
        errors: &[409, 413, 415, 429],
    },
    Route {
        method: "POST",
        path: "/v1/token/refresh",
        endpoint: Handler::Refresh,
        summary: "Refreshes although nothing is due",
        description: "However many ask at once, one refresh answers them all. It overrides neither a refusal nor a \
                      wait. Within a minute of the last refresh it is too soon. The body, if any, is not looked at.",
        of_account: true,
        body: None,
        reply: Some("Result"),
        errors: &[409, 413, 429],
    },
    Route {
        method: "GET",
        path: "/metrics",
        endpoint: Handler::Metrics,
        summary: "Metrics of all accounts",
        description: "Prometheus' text format 0.0.4. Counters begin with the process.",
        of_account: false,
        body: None,
        reply: None,
        errors: &[],
    },
    Route {
        method: "GET",
        path: "/healthz",
        endpoint: Handler::Health,
        summary: "Whether the loop that does the work answers",
        description: "It says nothing of the tokens.",
        of_account: false,
        body: None,
        reply: Some("Condition"),
        errors: &[],
    },
    Route {
        method: "GET",
        path: "/readyz",
        endpoint: Handler::Ready,
        summary: "Whether every account has been looked at, and the end has not begun",
        description: "503 until then.",
        of_account: false,
        body: None,
        reply: Some("Condition"),
        errors: &[],
    },
];

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Found {
    Route(&'static Route),
    /// Another method is needed: these.
    Method(&'static str),
    Nothing,
}

/// Looks a request up.
pub(super) fn find(method: &str, path: &str) -> Found {
    let mut found = Found::Nothing;
    for route in ROUTES.iter().filter(|route| route.path == path) {
        if route.method == method {
            return Found::Route(route);
        }
        // No path has two methods, as a test knows.
        found = Found::Method(route.method);
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::daemon::control::routes::*;

    #[test]
    fn each_path_has_one_method() {
        for (at, route) in ROUTES.iter().enumerate() {
            assert!(ROUTES[at + 1..].iter().all(|other| other.path != route.path), "{}", route.path);
        }
    }
}
