//! The event loop of a command, and the signals that it handles.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{self, SignalKind};

/// The signals that ask a command to end. SIGHUP means that its terminal was closed.
pub const END: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// Runs everything in the calling thread.
pub fn event_loop() -> io::Result<Runtime> {
    // Threads for name lookups and file work end soon: an idle `run` has only one thread.
    Builder::new_current_thread().enable_all().thread_keep_alive(Duration::from_secs(1)).build()
}

/// Signals that no longer have their default effect on the process.
pub struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let listen = |signal: &Signal| Ok((*signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        signals.iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let received = self
                .0
                .iter_mut()
                .find_map(|(signal, listener)| listener.poll_recv(context).is_ready().then_some(*signal));
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
