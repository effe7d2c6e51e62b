//! The loop, while a wake-up stays in the past.

use std::sync::mpsc;
use std::thread;

use crate::clock::{BootId, Clock};
use crate::config::Environment;
use crate::daemon::*;

/// A clock that the kernel's timers do not follow: by theirs, all that it says is long ago.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp { wall: 1_700_000_000_000, boot: 0, boot_id: BootId::of([b"still"]) }
    }
}

struct Nobody;

impl Observer for Nobody {
    fn notice(&self, _: &Notice<'_>) {}
}

#[test]
fn a_wake_up_that_stays_in_the_past_keeps_nothing_else_from_its_turn() {
    let (done, stopped) = mpsc::channel();
    thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        // No refresh token: the pass fails, and a second one is to come a second later.
        let config = format!(
            "token_endpoint = \"https://localhost/token\"\nclient_id = \"c\"\nrefresh_token.file = \"{}\"\n\
             state_dir = \"{}\"\ntoken_file = \"{}\"\n",
            at("seed"),
            at("state"),
            at("token")
        );
        let environment = Environment::of_process();
        let settings = crate::config::parse(&config, &dir.path().join("config.toml"), &environment).unwrap();
        let mut context = Context::new(Rc::new(Nobody));
        context.clock = Rc::new(Still);
        let options = RunOptions {
            only: None,
            reload: &|| unreachable!("nothing asks for a reload"),
            control: None,
            // Some time after the first pass.
            stop: Box::pin(async { tokio::time::sleep(std::time::Duration::from_millis(100)).await }),
        };
        let _ = done.send(run(settings, context, options));
    });
    // Long enough for every machine; without its turn, the wish to stop is never heard.
    let stopped = stopped.recv_timeout(std::time::Duration::from_secs(30));
    assert!(matches!(stopped, Ok(Ok(()))), "{stopped:?}");
}
