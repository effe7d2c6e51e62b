//! Hosts with `role = "read"`: they see the access token, and nothing else.

use super::hosts::{DUE, Fleet};
use crate::common::{feed, wait_until};

#[test]
fn a_reader_publishes_the_token_and_cannot_see_the_login() {
    let Some(mut fleet) = Fleet::new(1) else { return };
    fleet.add("read");
    fleet.log_in();
    let reader = &fleet.hosts[1];
    assert_eq!(reader.token(), fleet.hosts[0].token());
    assert!(reader.state()["refresh_token"].is_null(), "{}", reader.state());
    for column in ["secret", "held", "attempt", "host", "verdict"] {
        let select = format!("SELECT {column} FROM zg_tokend.login");
        let error = fleet.cluster.sql_as("zg_read", &select).unwrap_err();
        assert!(error.contains("permission denied"), "{column}: {error}");
    }
    for change in [
        "UPDATE zg_tokend.login SET token = ''",
        "DELETE FROM zg_tokend.login",
        "INSERT INTO zg_tokend.login (account) VALUES ('a')",
        "CREATE TABLE zg_tokend.other (i int)",
    ] {
        assert!(fleet.cluster.sql_as("zg_read", change).is_err(), "{change}");
    }
    assert!(fleet.cluster.sql_as("zg_refresh", "DELETE FROM zg_tokend.login").is_err());
    assert!(fleet.cluster.sql_as("zg_refresh", "CREATE TABLE zg_tokend.other (i int)").is_err());
    let statements = reader.proxy.statements();
    assert!(!statements.iter().any(|sql| sql.contains("UPDATE") || sql.contains("INSERT")), "{statements:?}");
}

#[test]
fn a_reader_hears_of_each_token_and_asks_for_none() {
    let Some(mut fleet) = Fleet::new(1) else { return };
    fleet.add("read");
    fleet.log_in();
    let run = fleet.hosts[1].supervise();
    for posts in 2..4 {
        fleet.hosts[0].permit_force();
        fleet.hosts[0].once_gives(0, ["--force"]);
        fleet.wait_for_token();
        assert_eq!(fleet.posts(), posts);
    }
    fleet.pass_time(DUE);
    // It is due, and nobody refreshes: the reader says so and waits.
    let output = fleet.hosts[1].run(["once"]);
    assert_eq!(output.code, Some(69), "{output:?}");
    let rejected = feed(&mut fleet.hosts[1].command(["rejected"]), fleet.hosts[1].token().expose());
    assert_ne!(rejected.code, Some(0), "{rejected:?}");
    let set = feed(&mut fleet.hosts[1].command(["set"]), fleet.seed().expose());
    assert_ne!(set.code, Some(0), "{set:?}");
    assert_eq!(fleet.posts(), 3);
    fleet.hosts[0].once_gives(0, []);
    fleet.wait_for_token();
    drop(run);
    fleet.assert_agreed();
}

#[test]
fn a_reader_keeps_the_live_token_while_the_database_is_away() {
    let Some(mut fleet) = Fleet::new(1) else { return };
    fleet.add("read");
    fleet.log_in();
    let run = fleet.hosts[1].supervise();
    fleet.cluster.stop();
    let token = fleet.hosts[1].token();
    fleet.cluster.start();
    fleet.hosts[0].once_gives(0, ["--force"]);
    wait_until("the new token", || (fleet.hosts[1].token() != token).then_some(()));
    fleet.wait_for_token();
    drop(run);
}
