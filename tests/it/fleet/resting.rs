//! An idle `run` that listens costs nothing.

use super::hosts::Fleet;
use crate::idle::assert_idle;

#[test]
fn an_idle_host_that_listens_does_not_wake_up() {
    let Some(fleet) = Fleet::new(2) else { return };
    fleet.log_in();
    let run = fleet.hosts[1].supervise();
    fleet.hosts[1].proxy.wait_for_statement("LISTEN", 1);
    assert_idle("listening to the database", &run);
    let statements = fleet.hosts[1].proxy.statements().len();
    fleet.hosts[0].once_gives(0, ["--force"]);
    fleet.wait_for_token();
    assert!(fleet.hosts[1].proxy.statements().len() > statements);
    assert_idle("after a token of another host", &run);
}
