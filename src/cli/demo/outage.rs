//! When the server goes down, and for how long. Pure: instants are milliseconds since the start.

/// The first outage comes after a third of the show, and no later than this: by then a newcomer
/// has seen two ordinary refreshes.
const FIRST_AT: i64 = 10_000;

/// A show without an end has an outage this often, for those who look in later.
const EVERY: i64 = 60_000;

/// None begins with less of the show left: its end would not be seen.
const ROOM: i64 = 7000;

/// So many refreshes fail before the server comes back: one may be a hiccup, two are an outage.
const FAILURES: u32 = 2;

/// The server comes back so long after the last of them. The next try comes 2 s after it, when the
/// token has some 3 s to live.
const LINGER: i64 = 1000;

/// What the server is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Go out of order.
    Down,
    /// Work again.
    Up,
}

/// The outages of one show.
pub(super) struct Outages {
    show_ends_at: Option<i64>,
    next_at: i64,
    down: bool,
    failures: u32,
    over_at: Option<i64>,
}

impl Outages {
    /// For a show of this length; `None`: without an end.
    pub(super) fn new(show_ends_at: Option<i64>) -> Self {
        let next_at = show_ends_at.map_or(FIRST_AT, |end| FIRST_AT.min(end / 3));
        Self { show_ends_at, next_at, down: false, failures: 0, over_at: None }
    }

    /// What changes at this instant, if anything.
    pub(super) fn turn(&mut self, now: i64) -> Option<Change> {
        if self.down {
            self.over_at.filter(|at| *at <= now)?;
            self.down = false;
            return Some(Change::Up);
        }
        if now < self.next_at {
            return None;
        }
        self.next_at += EVERY;
        if self.show_ends_at.is_some_and(|end| end - now < ROOM) {
            return None;
        }
        (self.down, self.failures, self.over_at) = (true, 0, None);
        Some(Change::Down)
    }

    /// A refresh has failed.
    pub(super) fn failed(&mut self, now: i64) {
        self.failures += 1;
        if self.failures == FAILURES {
            self.over_at = Some(now + LINGER);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::demo::outage::*;

    #[test]
    fn an_outage_lasts_until_two_refreshes_have_failed() {
        let mut outages = Outages::new(Some(30_000));
        assert_eq!(outages.turn(9999), None);
        assert_eq!(outages.turn(10_000), Some(Change::Down));
        outages.failed(12_000);
        assert_eq!(outages.turn(13_000), None);
        outages.failed(13_000);
        assert_eq!(outages.turn(13_999), None);
        assert_eq!(outages.turn(14_000), Some(Change::Up));
        assert_eq!(outages.turn(29_000), None);
    }

    #[test]
    fn a_show_too_short_for_an_outage_has_none() {
        let mut outages = Outages::new(Some(9000));
        assert!((0..9000).all(|now| outages.turn(now).is_none()));
        let mut outages = Outages::new(Some(12_000));
        assert_eq!(outages.turn(4000), Some(Change::Down));
    }

    #[test]
    fn a_show_without_end_has_one_a_minute() {
        let mut outages = Outages::new(None);
        let mut began = Vec::new();
        for now in (0..200_000).step_by(100) {
            if outages.turn(now) == Some(Change::Down) {
                began.push(now);
                outages.failed(now);
                outages.failed(now);
            }
        }
        assert_eq!(began, [10_000, 70_000, 130_000, 190_000]);
    }
}
