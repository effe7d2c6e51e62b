//! Codes that are exchanged for a login: those of the consent page, and those of devices.

use std::collections::HashMap;

use crate::secret::Fingerprint;

/// Words that a login may ask for besides the issuer's own scope.
pub(super) const LOGIN_SCOPES: [&str; 3] = ["openid", "email", "offline_access"];

/// The logins that are under way.
#[derive(Default)]
pub(super) struct Consents {
    pub(super) codes: HashMap<Fingerprint, IssuedCode>,
    pub(super) devices: HashMap<Fingerprint, DeviceLogin>,
}

/// The user and the facts of a login.
#[derive(Clone)]
pub(super) struct Consent {
    pub(super) client_id: String,
    pub(super) code_challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) scope: String,
}

pub(super) struct IssuedCode {
    pub(super) consent: Consent,
    pub(super) redirect_uri: String,
    pub(super) user: String,
    pub(super) issued_at: i64,
    /// The refresh token that it was exchanged for.
    pub(super) spent_for: Option<Fingerprint>,
}

pub(super) struct DeviceLogin {
    pub(super) consent: Consent,
    pub(super) user_code: String,
    pub(super) issued_at: i64,
    /// When the device last polled, to slow it down.
    pub(super) polled_at: i64,
    /// The user, or a denial; `None` until one of them.
    pub(super) decision: Option<Result<String, ()>>,
}

/// The object of a consent: the client, the scope, the user, and the nonce of the request.
pub(super) struct Granted {
    pub(super) client_id: String,
    pub(super) scope: String,
    pub(super) user: String,
    pub(super) nonce: Option<String>,
}
