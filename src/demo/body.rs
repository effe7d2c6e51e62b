//! A reply's body that can be cut short, dribbled, or never end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::time::Interval;

use crate::demo::faults::Fault;

/// The content of an endless body. JSON allows any amount of white space after a value, so that
/// only a size limit or a deadline stops a reader.
static SPACES: [u8; 1024] = [b' '; 1024];

/// The connection is closed on purpose, in place of a reply or within one.
#[derive(Debug, thiserror::Error)]
#[error("dropped by a scripted fault")]
pub(super) struct Dropped;

enum End {
    Clean,
    Cut { flushed: bool },
    Endless,
}

/// Implements hyper's body.
pub(super) struct Body {
    rest: Bytes,
    /// The Content-Length: all of the bytes, even if they are cut.
    announced: Option<u64>,
    pace: Option<Interval>,
    end: End,
}

impl Body {
    pub(super) fn new(bytes: impl Into<Bytes>, fault: &Fault) -> Self {
        let mut rest = bytes.into();
        let announced = (!fault.endless).then_some(rest.len() as u64);
        let end = match fault.truncate_after {
            Some(after) => {
                rest.truncate(after);
                End::Cut { flushed: false }
            }
            None if fault.endless => End::Endless,
            None => End::Clean,
        };
        // An interval of zero would panic.
        let pace = fault.dribble_ms.map(|ms| tokio::time::interval(Duration::from_millis(ms.max(1))));
        Self { rest, announced, pace, end }
    }

    fn next_bytes(&mut self) -> Bytes {
        let bytes = if self.rest.is_empty() { &mut Bytes::from_static(&SPACES) } else { &mut self.rest };
        let length = if self.pace.is_some() { 1 } else { bytes.len() };
        bytes.split_to(length)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        let body = self.get_mut();
        if body.rest.is_empty() {
            match &mut body.end {
                End::Clean => return Poll::Ready(None),
                End::Cut { flushed: true } => return Poll::Ready(Some(Err(Dropped))),
                // hyper discards what it has buffered when a body fails. It flushes when one
                // is not ready, so the failure comes one poll late.
                End::Cut { flushed } => {
                    *flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                End::Endless => {}
            }
        }
        if let Some(pace) = &mut body.pace {
            ready!(pace.poll_tick(cx));
        }
        Poll::Ready(Some(Ok(Frame::data(body.next_bytes()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
