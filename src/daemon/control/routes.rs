//! The paths of the control socket. packaging/openapi.json describes them.

/// The handler of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    Status,
    Set,
    Rejected,
    Refresh,
    Reread,
    Metrics,
    Health,
    Ready,
}

impl Handler {
    /// Whether it may be served to everybody.
    pub(super) fn is_probe(self) -> bool {
        matches!(self, Self::Metrics | Self::Health | Self::Ready)
    }

    pub(super) fn takes_json(self) -> bool {
        matches!(self, Self::Set | Self::Rejected)
    }
}

/// Each path with its only method.
pub(super) const ROUTES: [(&str, &str, Handler); 8] = [
    ("/v1/token/status", "GET", Handler::Status),
    ("/v1/token", "POST", Handler::Set),
    ("/v1/token/rejected", "POST", Handler::Rejected),
    ("/v1/token/refresh", "POST", Handler::Refresh),
    ("/v1/token/reread", "POST", Handler::Reread),
    ("/metrics", "GET", Handler::Metrics),
    ("/healthz", "GET", Handler::Health),
    ("/readyz", "GET", Handler::Ready),
];

#[derive(Debug)]
pub(super) enum Found {
    Handler(Handler),
    /// The path serves this method only.
    OtherMethod(&'static str),
    Nothing,
}

pub(super) fn find(method: &str, path: &str) -> Found {
    match ROUTES.iter().find(|route| route.0 == path) {
        Some((_, served, handler)) if *served == method => Found::Handler(*handler),
        Some((_, served, _)) => Found::OtherMethod(served),
        None => Found::Nothing,
    }
}
