//! When the server is down. Pure: instants are milliseconds since the start.

/// The first outage comes after a third of the demo, and no later than this: by then a viewer has
/// seen two ordinary refreshes.
const FIRST_AT: i64 = 10_000;

/// A demo without an end has an outage this often, for viewers who look in later.
const EVERY: i64 = 60_000;

/// No outage begins with less time left: the viewer would not see its end.
const ROOM: i64 = 7000;

/// So many refreshes fail before the server comes back: one may be a hiccup, two are an outage.
const FAILURES: u32 = 2;

/// The server comes back so long after the last failure. The next try comes 2 s after it, when the
/// token is live for another 3 s or so.
const LINGER: i64 = 1000;

/// The outages of one demo.
pub(super) struct Outages {
    ends_at: Option<i64>,
    next_at: i64,
    down: bool,
    failures: u32,
    over_at: Option<i64>,
}

impl Outages {
    /// `ends_at`: the end of the demo, if it has one.
    pub(super) fn new(ends_at: Option<i64>) -> Self {
        let next_at = ends_at.map_or(FIRST_AT, |end| FIRST_AT.min(end / 3));
        Self { ends_at, next_at, down: false, failures: 0, over_at: None }
    }

    /// `Some(true)`: the server goes down now. `Some(false)`: it comes back now.
    pub(super) fn change(&mut self, now: i64) -> Option<bool> {
        if self.down {
            self.over_at.filter(|at| *at <= now)?;
            self.down = false;
            return Some(false);
        }
        if now < self.next_at {
            return None;
        }
        self.next_at += EVERY;
        if self.ends_at.is_some_and(|end| end - now < ROOM) {
            return None;
        }
        (self.down, self.failures, self.over_at) = (true, 0, None);
        Some(true)
    }

    /// Counts a failed refresh.
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
        assert_eq!(outages.change(9999), None);
        assert_eq!(outages.change(10_000), Some(true));
        outages.failed(12_000);
        assert_eq!(outages.change(13_000), None);
        outages.failed(13_000);
        assert_eq!(outages.change(13_999), None);
        assert_eq!(outages.change(14_000), Some(false));
        assert_eq!(outages.change(29_000), None);
    }

    #[test]
    fn a_demo_too_short_for_an_outage_has_none() {
        let mut outages = Outages::new(Some(9000));
        assert!((0..9000).all(|now| outages.change(now).is_none()));
        let mut outages = Outages::new(Some(12_000));
        assert_eq!(outages.change(4000), Some(true));
    }

    #[test]
    fn a_demo_without_end_has_one_a_minute() {
        let mut outages = Outages::new(None);
        let mut began = Vec::new();
        for now in (0..200_000).step_by(100) {
            if outages.change(now) == Some(true) {
                began.push(now);
                outages.failed(now);
                outages.failed(now);
            }
        }
        assert_eq!(began, [10_000, 70_000, 130_000, 190_000]);
    }
}
