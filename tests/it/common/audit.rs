//! Assertions on what the embedded server saw.

use std::collections::HashSet;

use zg_tokend::testing::demo::{AuditEntry, AuditEvent};

/// How many POSTs reached the token endpoint.
pub fn posts(log: &[AuditEntry]) -> usize {
    log.iter().filter(|entry| entry.event == AuditEvent::Post).count()
}

/// How many of them were granted.
pub fn grants(log: &[AuditEntry]) -> usize {
    log.iter().filter(|entry| matches!(entry.event, AuditEvent::Grant { .. })).count()
}

/// Every refresh token was sent once at most, none was refused, and no family was revoked.
#[track_caller]
pub fn assert_one_post_per_epoch(log: &[AuditEntry]) {
    let mut sent = HashSet::new();
    for entry in log {
        match entry.event {
            AuditEvent::Post => assert!(sent.insert(entry.refresh_token), "sent twice: {entry:?}"),
            AuditEvent::Refusal { .. } | AuditEvent::Revocation { .. } => panic!("{entry:?} in {log:#?}"),
            _ => {}
        }
    }
}
