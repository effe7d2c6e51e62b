//! The results of the years.

/// The numbers that the closing note wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) account_ms: i64,
    pub(crate) posts: u64,
    pub(crate) grants: u64,
    /// Tokens whose life was over when they arrived.
    pub(crate) dead_on_arrival: u64,
    /// Of these, the ones right after another.
    pub(crate) dead_again: u64,
    /// Milliseconds without a live token, all excused.
    pub(crate) gap_ms: i64,
    /// Logins lost to a lost reply or a crash, where the server has no grace.
    pub(crate) logins_lost: u32,
    /// The same where the server has a grace, but an outage or a dead machine outlasted it.
    pub(crate) lost_despite_grace: u32,
    pub(crate) crashes: u32,
    pub(crate) first_hour: u32,
    pub(crate) later_hour: u32,
    pub(crate) steps: u32,
    pub(crate) posts_per_step: u32,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        self.account_ms += other.account_ms;
        self.posts += other.posts;
        self.grants += other.grants;
        self.dead_on_arrival += other.dead_on_arrival;
        self.dead_again += other.dead_again;
        self.gap_ms += other.gap_ms;
        self.logins_lost += other.logins_lost;
        self.lost_despite_grace += other.lost_despite_grace;
        self.crashes += other.crashes;
        self.first_hour = self.first_hour.max(other.first_hour);
        self.later_hour = self.later_hour.max(other.later_hour);
        self.steps += other.steps;
        self.posts_per_step = self.posts_per_step.max(other.posts_per_step);
    }
}
