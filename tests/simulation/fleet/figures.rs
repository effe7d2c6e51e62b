//! The faults of a world, and what came of them.

use std::collections::BTreeMap;

/// The faults of a world: chances in 10,000. The first seven are for each refresh, aimed at the second after its
/// claim; where there is a chance at all, failovers come once a week and outages every two days as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) kill: u64,
    pub(crate) freeze: u64,
    pub(crate) outage: u64,
    pub(crate) failover: u64,
    /// The old primary goes on after a failover: some hosts do not see the new one for a while ...
    pub(crate) split: u64,
    /// ... or all see the new one, and the old one again later.
    pub(crate) stale: u64,
    /// Somebody logs in on another host.
    pub(crate) login: u64,
    /// The reply of the token endpoint is lost.
    pub(crate) lose: u64,
    /// A statement has no answer, and may have been done.
    pub(crate) unknown: u64,
    /// A statement takes up to 5 s.
    pub(crate) slow: u64,
    /// One reply in a hundred takes from 5 s to so many seconds.
    pub(crate) slowest: i64,
    /// How long the server takes a replaced refresh token again, in seconds.
    pub(crate) grace: u64,
    /// A COMMIT waits for the standby.
    pub(crate) sync: bool,
    /// This host is behind a pooler that swallows LISTEN.
    pub(crate) polling: bool,
    /// Another host only reads.
    pub(crate) reader: bool,
}

/// The faults that every world has.
pub(crate) const NONE: Faults = Faults {
    kill: 0,
    freeze: 0,
    outage: 0,
    failover: 0,
    split: 0,
    stale: 0,
    login: 0,
    lose: 0,
    unknown: 5,
    slow: 100,
    slowest: 25,
    grace: 0,
    sync: false,
    polling: false,
    reader: false,
};

/// The results of a world.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) ms: i64,
    pub(crate) posts: u64,
    pub(crate) epochs: u64,
    /// Logins that somebody had to replace, after a refresh token was sent again ...
    pub(crate) lost: u64,
    /// ... although a host had its successor on its disk,
    pub(crate) avoidable: u64,
    /// ... or because a host was killed between the reply and its fsync, which no program can help,
    pub(crate) cut_off: u64,
    /// ... or because no host had a live token for hours.
    pub(crate) stuck: u64,
    /// Host-seconds without a live token.
    pub(crate) dead: i64,
    pub(crate) kills: u64,
    pub(crate) failovers_with_loss: u64,
    pub(crate) repairs: u64,
    pub(crate) unknown: u64,
    pub(crate) broken: BTreeMap<Broken, u64>,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        self.ms += other.ms;
        self.posts += other.posts;
        self.epochs += other.epochs;
        self.lost += other.lost;
        self.avoidable += other.avoidable;
        self.cut_off += other.cut_off;
        self.stuck += other.stuck;
        self.dead += other.dead;
        self.kills += other.kills;
        self.failovers_with_loss += other.failovers_with_loss;
        self.repairs += other.repairs;
        self.unknown += other.unknown;
        for (rule, times) in &other.broken {
            *self.broken.entry(*rule).or_default() += times;
        }
    }
}

/// Events that must never happen, whatever befalls the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Broken {
    /// A request without a claim that the database has acknowledged.
    NoClaim,
    /// A request whose claim began too long ago.
    OldClaim,
    /// A refresh token is sent after its refusal was stored in the row.
    SentAfterVerdict,
    /// A token file goes back to an older token.
    Older,
    /// A reply goes into the row before it is on the disk of its host.
    NotOnDisk,
    /// A statement replaces a newer row by an older one.
    RowBack,
    /// After hours without a fault the hosts do not agree with the row.
    Apart,
}
