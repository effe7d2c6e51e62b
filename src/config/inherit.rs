//! The inheritance of keys from the defaults of all accounts.

use crate::config::keys::{RawAccount, RawTable as _};

impl RawAccount {
    /// These keys, and `defaults` where there are none.
    ///
    /// Two groups are inherited whole or not at all: an account with an endpoint of its own must
    /// not send its secrets to the default one, and secrets and keys of a client belong to its client_id.
    pub(super) fn inherit(self, mut defaults: Self) -> Self {
        if self.provider.is_some() || self.issuer.is_some() || self.token_endpoint.is_some() {
            defaults.provider = None;
            defaults.tenant = None;
            defaults.host = None;
            defaults.shop = None;
            defaults.data_center = None;
            defaults.issuer = None;
            defaults.token_endpoint = None;
            defaults.confirmed_endpoint_host = None;
            defaults.authorization_endpoint = None;
            defaults.device_authorization_endpoint = None;
            defaults.revocation_endpoint = None;
        }
        if self.client_id.is_some() {
            defaults.client_id = None;
            defaults.client_secret = None;
            defaults.private_key = None;
            defaults.key_id = None;
            defaults.certificate = None;
            defaults.client_assertion = None;
            defaults.tls_certificate = None;
            defaults.tls_private_key = None;
        }
        self.or(defaults)
    }
}
