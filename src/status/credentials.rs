//! The judgement of keys, certificates, and tokens that somebody else writes.

use crate::account::certificates::{RENEW, certificate_fault};
use crate::clock::Timestamp;
use crate::config::AccountConfig;
use crate::refresh::record::{Record, VerdictKind};
use crate::status::account::{AccountStatus, Severity};
use crate::status::look::Look;

impl AccountStatus {
    /// A certificate that ends is seen here, long before the server sees it.
    pub(super) fn judge_certificates(&mut self, look: &Look, now: Timestamp) {
        for (key, path, certificate) in &look.certificates {
            match certificate {
                Err(problem) => {
                    let hint = problem.hint.clone().unwrap_or_default();
                    self.find_with(Severity::Warning, &*problem.message, problem.cause.clone(), hint);
                }
                Ok(certificate) => {
                    if let Some(problem) = certificate_fault(key, path, certificate, now.wall / 1000) {
                        self.find(Severity::Warning, problem, RENEW);
                    }
                }
            }
        }
    }
}

/// The thing that only somebody else can bring: another key, or another file.
pub(super) fn waits_for(account: &AccountConfig, record: &Record) -> Option<String> {
    let grant = &account.grant;
    let given = [
        grant.assertion.as_ref(),
        grant.subject_token.as_ref().map(|(source, _)| source),
        grant.client_assertion.as_ref(),
    ];
    let given = given.into_iter().flatten().next();
    let signs = grant.private_key.is_some() || grant.tls.is_some() || grant.google_credentials.is_some();
    let of_key = |kind: &str| matches!(kind, "key" | "certificate" | "google_credentials");
    let of_proof = |kind: &str| matches!(kind, "invalid_client" | "invalid_grant" | "unauthorized_client");
    let needs_key = || signs.then(|| "key".to_owned());
    let verdict = record.verdict.as_ref().filter(|verdict| verdict.kind == VerdictKind::Client);
    match (&record.failure, verdict) {
        (Some(failure), _) if failure.from_inputs && of_key(&failure.kind) => needs_key(),
        (Some(failure), _)
            if failure.from_inputs
                && matches!(&*failure.kind, "assertion_expired" | "secret" | "no_credentials") =>
        {
            given.map(ToString::to_string).or_else(needs_key)
        }
        (_, Some(verdict)) if of_proof(&verdict.error) => given.map(ToString::to_string).or_else(needs_key),
        _ => None,
    }
}
