//! The values of an account that stand outside the config, as far as they can be read.

use crate::check::finding::{Finding, FindingLevel};
use crate::config::{AccountConfig, SecretSource};
use crate::http::HttpOptions;
use crate::problem::cause;
use crate::secret::Secret;
use crate::secrets::{self, SecretError};

/// Of a proxy that cannot be read there is a finding of its own.
pub fn options(account: &AccountConfig) -> HttpOptions {
    let proxy = account.proxy.as_ref();
    let proxy = proxy.and_then(|source| secrets::read("proxy", source, &account.secret_variables).ok());
    HttpOptions::new(account, account.timeout, proxy)
}

/// The account with the endpoints that stand outside the config; without them if they cannot be used, of
/// which there is a finding.
pub fn with_endpoints(account: &AccountConfig) -> AccountConfig {
    let read = |(key, source): &(&'static str, SecretSource)| {
        Some((*key, secrets::read(key, source, &account.secret_variables).ok()?))
    };
    let values: Option<Vec<_>> = account.elsewhere.iter().map(read).collect();
    let resolved = values.and_then(|values| account.with_endpoints(&values).ok());
    resolved.unwrap_or_else(|| account.clone())
}

/// Reads a secret. `spare`: there is another one that can be used.
pub fn secret(
    account: &AccountConfig,
    key: &'static str,
    source: &SecretSource,
    spare: bool,
) -> (Option<Secret>, Finding) {
    let error = match secrets::read(key, source, &account.secret_variables) {
        Ok(secret) => return (Some(secret), Finding::ok(key, format!("read from {source}"))),
        Err(error) => error,
    };
    // A credential exists only in the service.
    let elsewhere = matches!(error, SecretError::NoCredentials { .. });
    let level = if spare || elsewhere { FindingLevel::Warning } else { FindingLevel::Problem };
    let message = error.to_string();
    (None, Finding::new(level, key, without_key(key, &message), error.hint()).because(cause(&error)))
}

/// The finding names the key already.
pub fn without_key<'a>(key: &str, message: &'a str) -> &'a str {
    message.strip_prefix(key).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message)
}
