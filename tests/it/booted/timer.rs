//! The timer, for those who want no daemon.

use std::fs;
use std::time::Duration;

use zg_tokend::testing::secret::Secret;

use super::home::Home;
use crate::common::{audit, poll_for};

/// The timer's own delay, and a loaded machine.
const DELAYED: Duration = Duration::from_secs(30 + 30);

#[test]
fn a_missed_pass_is_made_up_for_and_a_dead_login_fails_the_unit() {
    let Some(home) = Home::new("tom", 3600) else { return };
    home.person.linger();
    // The last pass was an hour ago.
    let stamps = home.person.home(".local/share/systemd/timers");
    home.person.make(&stamps);
    home.person.run(&format!("touch -d '1 hour ago' {stamps}/stamp-zg-tokend-once.timer"));
    home.person.run("systemctl --user enable --now zg-tokend-once.timer");
    let pass = poll_for(DELAYED, || {
        (!home.property("zg-tokend-once", "ExecMainExitTimestamp").is_empty()).then_some(())
    });
    assert!(pass.is_some(), "{}", home.person.run("systemctl --user status zg-tokend-once.timer"));
    home.assert_live();
    assert_eq!(home.world.posts(), 1);
    assert_eq!(home.property("zg-tokend-once", "Result"), "success");
    home.person.run("systemctl --user stop zg-tokend-once.timer");

    // With nothing due it asks nobody, and is no failure.
    home.person.run("systemctl --user start zg-tokend-once");
    assert_eq!(home.world.posts(), 1);

    let state = home.person.machine.path(home.person.home(".local/state/zg-tokend/default/state"));
    let state: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    let token = Secret::new(state["refresh_token"]["value"].as_str().unwrap());
    let now = home.world.server.now();
    home.world.server.issuer(|issuer| issuer.revoke_login(now, &token));
    home.person.run("zg-tokend once --force >/dev/null 2>&1; true");
    let failed = home.person.shell("systemctl --user start zg-tokend-once");
    assert_eq!((failed.code, home.property("zg-tokend-once", "ExecMainStatus").as_str()), (Some(1), "77"));
    home.configure("");
    home.person.run("systemctl --user start zg-tokend-once");
    home.assert_live();
    let sent = audit::posts(&home.world.server.audit());
    assert_eq!(sent, 3, "a dead refresh token is sent once");
}
