//! The end of the demo.

use std::io;
use std::time::Duration;

use crate::runtime::{END, Signals};

/// Its time is over, or a signal came. SIGHUP: the terminal was closed.
pub(super) struct Ending {
    after: Option<Duration>,
    signals: Signals,
}

impl Ending {
    pub(super) fn new(after: Option<Duration>) -> io::Result<Self> {
        Ok(Self { after, signals: Signals::new(&END)? })
    }

    pub(super) async fn comes(mut self) {
        // Without a time it has no end.
        let after = self.after.unwrap_or(Duration::MAX);
        let _ = tokio::time::timeout(after, self.signals.next()).await;
    }
}
