//! `run --wait`: a standby, alive while another process supervises an account, as in a rolling update
//! where the new container starts before the old one ends.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::interval;

use crate::account::context::{Context, Notice};
use crate::config::Settings;
use crate::daemon::control;
use crate::daemon::control::answer::Service;
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

/// How often a free account is looked at whose port for probes is taken: the other process may be about to
/// end. After that the start reports the port.
const PORT_LOOKS: u32 = 10;

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
    let listener = bind(listen).await?;
    let lacks_port = listen.is_some() && listener.is_none();
    if let Some(listener) = listener {
        control::listen(listener, Service::new(sender.clone(), Rc::clone(&context), Rc::default()));
    }
    let (mut signals, mut notifier) = (Signals::new(&END)?, Notifier::of_process());
    // Ticks of their own: many probes must not put them off.
    let (mut start, mut look) = (interval(STARTING), interval(LOOK));
    let mut looks = 0;
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(false),
            _ = start.tick() => notifier.starting(),
            Some(request) = requests.recv() => if let LoopRequest::CurrentConfig(reply) = request {
                // A client that has gone needs no reply.
                let _ = reply.send(CurrentConfig { settings: Arc::clone(&settings), ready: false });
            },
            _ = look.tick() => if is_free(&settings, account).await {
                looks += 1;
                if !lacks_port || looks > PORT_LOOKS || bind(listen).await?.is_some() {
                    return Ok(true);
                }
            },
        }
    }
}

/// The listener for probes; `None` also while the other process, on the same machine, has the port.
async fn bind(listen: Option<SocketAddr>) -> Result<Option<TcpListener>, RunError> {
    let Some(address) = listen else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if source.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(source) => Err(RunError::Listen { address, source }),
    }
}

/// Whether no process supervises the account. An error is the start's to report.
async fn is_free(settings: &Arc<Settings>, account: &str) -> bool {
    let Some(account) = settings.chosen(Some(account)).next().cloned() else { return true };
    let settings = Arc::clone(settings);
    let look = move || store::open(&settings, &account).supervision();
    !matches!(workers::run(look).await, Ok(Supervision::Alive(_)))
}
