//! The loop, while a deadline stays in the past.

use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use crate::account::context::{Context, Notice, Observer};
use crate::clock::{BootId, Clock, Timestamp};
use crate::config::Environment;
use crate::daemon::{RunOptions, run};

/// A clock that does not move: for the kernel's timers every deadline that it gives has passed.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp { wall: 1_700_000_000_000, boot: 0, boot_id: BootId::of([b"still"]) }
    }
}

struct Silence;

impl Observer for Silence {
    fn notice(&self, _: &Notice<'_>) {}
}

#[test]
fn a_deadline_in_the_past_does_not_starve_other_events() {
    let (done, stopped) = mpsc::channel();
    thread::spawn(move || {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        // Without a refresh token the pass fails, and the next one is due a second later.
        let config = format!(
            "token_endpoint = \"https://localhost/token\"\nclient_id = \"c\"\nrefresh_token.file = \"{}\"\n\
             state_dir = \"{}\"\ntoken_file = \"{}\"\n",
            at("seed"),
            at("state"),
            at("token")
        );
        let environment = Environment::of_process();
        let settings = crate::config::parse(&config, &dir.path().join("config.toml"), &environment).unwrap();
        let mut context = Context::new(Rc::new(Silence));
        context.clock = Rc::new(Still);
        let options = RunOptions {
            only: None,
            reload: &|| unreachable!("nothing requests a reload"),
            control: None,
            listen: None,
            // After the first pass.
            stop: Box::pin(async { tokio::time::sleep(std::time::Duration::from_millis(100)).await }),
        };
        let _ = done.send(run(settings, context, options));
    });
    // Long enough for every machine. A loop that only handles the deadline never stops.
    let stopped = stopped.recv_timeout(std::time::Duration::from_secs(30));
    assert!(matches!(stopped, Ok(Ok(()))), "{stopped:?}");
}
