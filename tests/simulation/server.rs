//! The authorization server: the one of `zg-tokend demo`, behind a network that fails.

use std::time::Duration;

use zg_tokend::testing::clock::Timestamp;
use zg_tokend::testing::demo::AuditEntry;
use zg_tokend::testing::demo::DemoRequest;
use zg_tokend::testing::demo::{Issuer, IssuerOptions};
use zg_tokend::testing::oauth::{self, Answer, FailureKind, ReplyContext, Sent, TransportFailure};
use zg_tokend::testing::secret::Secret;

use super::plan::{Outage, Plan, SECOND};
use super::random::Random;

/// One request is given up after this.
pub(crate) const DEADLINE: i64 = 30 * SECOND;

pub(crate) struct Server {
    issuer: Issuer,
    latency: i64,
    pub(crate) outage: Option<Outage>,
    /// The fate of the reply to the next request.
    pub(crate) lose_next: Option<bool>,
}

/// A request under way.
pub(crate) struct Post {
    pub(crate) token: Secret,
    pub(crate) issued_at: Timestamp,
    pub(crate) started_at: i64,
    /// When the server decides; `None` if it never does, or has.
    pub(crate) commit_at: Option<i64>,
    pub(crate) reply_at: i64,
    /// The answer for the client; `None` until the server has decided.
    pub(crate) answer: Option<Answer>,
    /// The server decides, but nobody hears of it.
    pub(crate) loses_reply: bool,
}

impl Server {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        let mut random = [0; 32];
        random[..8].copy_from_slice(&seed.to_be_bytes());
        let options = IssuerOptions {
            rotation: plan.rotation,
            reuse_grace: plan.grace,
            access_token_lifetime: plan.lifetime,
            family_lifetime: plan.login_lifetime,
            random,
            ..IssuerOptions::default()
        };
        Self { issuer: Issuer::new(options), latency: plan.latency, outage: None, lose_next: None }
    }

    pub(crate) fn login(&mut self, now: i64) -> Secret {
        self.issuer.seed(now, "demo").expect("the client is registered")
    }

    pub(crate) fn revoke(&mut self, now: i64, refresh_token: &Secret) -> bool {
        self.issuer.revoke_login(now, refresh_token)
    }

    pub(crate) fn audit_from(&self, seq: usize) -> &[AuditEntry] {
        &self.issuer.audit()[seq..]
    }

    pub(crate) fn audit_len(&self) -> usize {
        self.issuer.audit().len()
    }

    /// A request leaves; what becomes of it is decided by the network it leaves into.
    pub(crate) fn post(
        &mut self,
        now: i64,
        issued_at: Timestamp,
        token: Secret,
        random: &mut Random,
    ) -> Post {
        let half = random.between(1, self.latency);
        let mut post = Post {
            token,
            issued_at,
            started_at: now,
            commit_at: None,
            reply_at: now + 2 * half,
            answer: None,
            loses_reply: false,
        };
        match (self.outage, self.lose_next.take()) {
            (Some(outage), _) => {
                let retry_after = |seconds: u32| Some(seconds.to_string());
                post.answer = Some(match outage {
                    Outage::Refused => no_reply(Sent::NotSent, FailureKind::Connect),
                    Outage::Unavailable => reply(503, None, ""),
                    Outage::Busy(seconds) if seconds % 2 == 0 => reply(503, retry_after(seconds), ""),
                    Outage::Busy(seconds) => reply(429, retry_after(seconds), ""),
                    Outage::Gateway => reply(502, None, "<html>bad gateway</html>"),
                    Outage::Silent => no_reply(Sent::PerhapsSent, FailureKind::Timeout),
                    Outage::Client => reply(401, None, r#"{"error":"invalid_client"}"#),
                });
                if outage == Outage::Silent {
                    post.reply_at = now + DEADLINE;
                }
            }
            (None, Some(committed)) => {
                post.commit_at = committed.then_some(now + half);
                post.loses_reply = true;
                if random.one_in(3) {
                    post.reply_at = now + DEADLINE;
                }
                post.answer = Some(no_reply(Sent::PerhapsSent, FailureKind::Reset));
            }
            (None, None) => post.commit_at = Some(now + half),
        }
        post
    }

    /// The server decides about a request that has reached it.
    pub(crate) fn commit(&mut self, now: i64, post: &mut Post) {
        post.commit_at = None;
        let body = format!("grant_type=refresh_token&client_id=demo&refresh_token={}", post.token.expose());
        let request = DemoRequest {
            content_type: Some("application/x-www-form-urlencoded".into()),
            authorization: None,
            body: body.into(),
        };
        let answer = self.issuer.token(now, &request);
        if !post.loses_reply {
            let reply =
                oauth::Reply { status: answer.status, body: answer.body.into(), ..oauth::Reply::default() };
            post.answer = Some(classify(Ok(&reply), post.issued_at));
        }
    }
}

pub(crate) fn no_reply(sent: Sent, kind: FailureKind) -> Answer {
    let failure = TransportFailure { sent, kind, detail: "simulated".into() };
    classify(
        Err(&failure),
        Timestamp { wall: 0, boot: 0, boot_id: zg_tokend::testing::clock::BootId::of([b""]) },
    )
}

fn reply(status: u16, retry_after: Option<String>, body: &str) -> Answer {
    let reply =
        oauth::Reply { status, retry_after, body: body.as_bytes().to_vec().into(), ..Default::default() };
    classify(
        Ok(&reply),
        Timestamp { wall: 0, boot: 0, boot_id: zg_tokend::testing::clock::BootId::of([b""]) },
    )
}

fn classify(result: Result<&oauth::Reply, &TransportFailure>, now: Timestamp) -> Answer {
    let context = ReplyContext { now, default_lifetime: Duration::from_secs(3600), known_secrets: &[] };
    oauth::classify(result, &context)
}
