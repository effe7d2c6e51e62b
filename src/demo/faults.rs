//! Faults of the server, as data. They are set in the process or by `POST /faults`.

use std::collections::VecDeque;

use serde::Deserialize;

use crate::demo::message::DemoReply;

/// The faults from now on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// One for each of the next requests to the token endpoint.
    pub next: VecDeque<Fault>,
    /// For every further request to the token endpoint.
    pub standing: Option<Fault>,
    /// The whole server is out of order.
    pub outage: Option<Outage>,
}

impl Faults {
    /// Takes the fault that the request at hand meets.
    pub(super) fn take(&mut self) -> Option<Fault> {
        self.next.pop_front().or_else(|| self.standing.clone())
    }
}

/// A server that is out of order as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// Connections are accepted and closed at once, those to the test endpoints too: only
    /// the process that holds the server can end it.
    Closed,
    /// Everything but the test endpoints answers 503.
    Unavailable,
}

/// The fault of one request to the token endpoint. The parts can be combined.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Milliseconds to wait before the request is acted on.
    pub delay_before_commit_ms: u64,
    /// Milliseconds to wait before the reply is sent.
    pub delay_after_commit_ms: u64,
    /// Sent instead of the issuer's reply; nothing is granted unless `commit` is set.
    pub reply: Option<DemoReply>,
    /// The connection is closed without a reply; nothing is granted unless `commit` is set.
    pub drop: bool,
    /// The issuer acts although its reply is not sent: a grant whose reply is lost.
    pub commit: bool,
    /// The connection is closed after so many bytes of the body.
    pub truncate_after: Option<usize>,
    /// The body goes out byte by byte, so many milliseconds apart; at least 1.
    pub dribble_ms: Option<u64>,
    /// The body is followed by spaces without end.
    pub endless: bool,
}

impl Fault {
    /// This status and body, typed as JSON, and nothing is granted.
    pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let reply = DemoReply { body: body.into(), ..DemoReply::empty(status) };
        Self { reply: Some(reply.with_header("content-type", "application/json")), ..Self::default() }
    }

    /// The same with one more header, such as Retry-After or Location.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.reply = self.reply.map(|reply| reply.with_header(name, value));
        self
    }

    /// The connection breaks before anything is granted.
    pub fn drop_before_commit() -> Self {
        Self { drop: true, ..Self::default() }
    }

    /// The grant happens and its reply is lost.
    pub fn drop_after_commit() -> Self {
        Self { drop: true, commit: true, ..Self::default() }
    }

    /// True if the issuer acts on the request.
    pub(super) fn commits(&self) -> bool {
        self.commit || (self.reply.is_none() && !self.drop)
    }

    /// The fault in words, for the audit log; a raw reply's text may hold secrets and stays out.
    pub(super) fn describe(&self) -> String {
        let wait = |ms: u64| (ms > 0).then(|| format!("wait {ms} ms"));
        let parts = [
            wait(self.delay_before_commit_ms),
            self.commits().then(|| "commit".to_owned()),
            wait(self.delay_after_commit_ms),
            self.drop.then(|| "drop".to_owned()),
            self.reply.as_ref().map(|reply| format!("reply {}", reply.status)),
            self.truncate_after.map(|bytes| format!("truncate after {bytes}")),
            self.dribble_ms.map(|ms| format!("dribble every {ms} ms")),
            self.endless.then(|| "endless".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
