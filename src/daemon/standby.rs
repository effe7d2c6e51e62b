//! `run --wait`: a standby, alive while another process supervises an account, as in a rolling update
//! where the new container starts before the old one ends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{interval, sleep};

use crate::account::context::{Context, Notice};
use crate::config::Settings;
use crate::daemon::control;
use crate::daemon::control::counts::Counts;
use crate::daemon::requests::{CurrentConfig, LoopRequest};
use crate::daemon::supervisor::RunError;
use crate::daemon::systemd::Notifier;
use crate::message::{Level, Message};
use crate::runtime::{END, Signals, event_loop};
use crate::store;
use crate::store::lock::Supervision;
use crate::workers;

/// How often a standby looks. The kernel tells nobody that a lock has ended, and no token is in danger for
/// so long: it is refreshed minutes before its end.
const LOOK: Duration = Duration::from_secs(1);

/// How often the service manager is told that the start goes on.
const STARTING: Duration = Duration::from_secs(60);

/// Waits until no process supervises this account. False if a signal ends the wait. With `listen` the
/// probes are served meanwhile: healthy, and not ready.
pub fn wait_for(
    settings: Settings,
    account: &str,
    context: Context,
    listen: Option<SocketAddr>,
) -> Result<bool, RunError> {
    let runtime = event_loop()?;
    let free = LocalSet::new().block_on(&runtime, stand_by(Arc::new(settings), account, context, listen));
    runtime.shutdown_background();
    free
}

async fn stand_by(
    settings: Arc<Settings>,
    account: &str,
    context: Context,
    listen: Option<SocketAddr>,
) -> Result<bool, RunError> {
    let context = Rc::new(context);
    let text = format!("standing by: another process supervises account {account}");
    let message = Message::new(Level::Info, "standby", text);
    context.notice(&Notice::Message { account: None, message: &message });
    let (sender, mut requests) = mpsc::unbounded_channel();
    if let Some(address) = listen {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| RunError::Listen { address, source })?;
        control::listen(listener, sender.clone(), Rc::clone(&context), Rc::<RefCell<Counts>>::default());
    }
    let (mut signals, mut notifier) = (Signals::new(&END)?, Notifier::of_process());
    let mut start = interval(STARTING);
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(false),
            _ = start.tick() => notifier.starting(),
            Some(request) = requests.recv() => if let LoopRequest::CurrentConfig(reply) = request {
                // A client that has gone needs no reply.
                let _ = reply.send(CurrentConfig { settings: Arc::clone(&settings), ready: false });
            },
            () = sleep(LOOK) => if is_free(&settings, account).await {
                return Ok(true);
            },
        }
    }
}

/// Whether no process supervises the account. An error is the start's to report.
async fn is_free(settings: &Arc<Settings>, account: &str) -> bool {
    let Some(account) = settings.chosen(Some(account)).next().cloned() else { return true };
    let settings = Arc::clone(settings);
    let look = move || store::open(&settings, &account).supervision();
    !matches!(workers::run(look).await, Ok(Supervision::Alive(_)))
}
