//! The words for an answer. Without a login, what is refused is a key, a clock or a file.

use crate::oauth::{Answer, ErrorReply};
use crate::problem::{Class, Problem};
use crate::refresh::Refresher;
use crate::refresh::decide::{Evidence, EvidenceOrigin};

/// A clock that is further off than this explains why an assertion is refused: servers allow up to five
/// minutes.
const CLOCK_EXPLAINS: u64 = 300;

impl Refresher {
    pub(super) fn problem(&self, answer: &Answer) -> Problem {
        let has_login = self.policy.grant_type.has_login();
        let class = match answer {
            Answer::InvalidGrant(_) if has_login => Class::NeedsLogin,
            Answer::InvalidGrant(_) | Answer::ClientRefused(_) => Class::Config,
            _ => Class::Unavailable,
        };
        let (mut message, mut cause, mut hint) = (answer.to_string(), answer.cause(), answer.hint());
        let evidence = self.inputs.as_ref().map(|inputs| &inputs.evidence);
        if let (Answer::InvalidGrant(error), false) = (answer, has_login) {
            let refused = evidence.and_then(|evidence| evidence.name.as_deref()).unwrap_or("the client");
            message = format!("the server refuses {refused}: {error}");
        }
        if let Answer::InvalidGrant(error) | Answer::ClientRefused(error) = answer
            && let Some(evidence) = evidence
            && let Some(own) = way_out(evidence, error)
        {
            hint = Some(own);
        } else if !has_login {
            hint = hint.map(|hint| reworded(&hint, self.policy.grant_type.name()));
        }
        if !has_login {
            cause = cause.map(|cause| reworded(&cause, self.policy.grant_type.name()));
        }
        Problem { class, kind: answer.kind().into(), message, cause, hint }
    }
}

/// The next step after a refusal of what the request proved itself with.
fn way_out(evidence: &Evidence, error: &ErrorReply) -> Option<String> {
    // The key is right where something else is asked for too much.
    let about_key = matches!(&*error.code, "invalid_client" | "invalid_grant" | "unauthorized_client" | "");
    let clock_explains = error.clock_ahead.is_some_and(|ahead| ahead.unsigned_abs() > CLOCK_EXPLAINS);
    Some(match evidence.origin {
        EvidenceOrigin::Client => return None,
        _ if !about_key && !clock_explains => return None,
        _ if clock_explains => "set the clock of this machine: date, timedatectl".into(),
        EvidenceOrigin::SignedHere => {
            "check that the public half of private_key is registered for this client, then key_id, certificate, client_id and the audience of the assertion; and the clock"
                .into()
        }
        EvidenceOrigin::Given => {
            "check its issuer, subject and audience against what the server trusts; other content is tried as soon as it is there"
                .into()
        }
    })
}

/// Hints that speak of a login.
fn reworded(hint: &str, grant_type: &str) -> String {
    match hint {
        "request no more scope than was granted at login, or remove scope from the config" => {
            "check scope: the server does not grant it to this client".into()
        }
        "scope asks for more than the server grants to this login" => {
            "scope asks for more than the server grants to this client".into()
        }
        hint => hint.replace("refresh_token grant", &format!("{grant_type} grant")),
    }
}
