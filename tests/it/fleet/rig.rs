//! The parts of the rig do what the tests expect of them, also without zg-tokend.

use std::process::Command;

use super::pooler::Pooler;
use super::postgres::{ADMIN, Cluster, DATABASE, available};
use super::proxy::{Cut, Mode, Proxy};
use crate::common::{Background, Output, feed, finish, wait_until};

/// psql through a proxy: another client than the program's.
fn psql(proxy: &Proxy, user: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", user]);
    command.args(["-p", &proxy.port().to_string(), "-d", DATABASE]);
    command.env("PGSSLMODE", "disable");
    command
}

fn run(proxy: &Proxy, sql: &str) -> Output {
    finish(psql(proxy, ADMIN).args(["-c", sql]))
}

/// Statement by statement, so that the COMMIT is a message of its own.
fn transaction(proxy: &Proxy, sql: &str) -> Output {
    feed(&mut psql(proxy, ADMIN), &format!("BEGIN;\n{sql};\nCOMMIT;\n"))
}

#[test]
fn the_proxy_cuts_before_and_after_a_commit() {
    if !available() {
        return;
    }
    let cluster = Cluster::new();
    cluster.sql("CREATE TABLE t (i int)");
    let proxy = Proxy::new(&cluster.socket());
    let count = || cluster.sql("SELECT count(*) FROM t");
    assert_eq!(transaction(&proxy, "INSERT INTO t VALUES (1)").code, Some(0));
    assert_eq!(count(), "1");
    proxy.cut_next("INSERT INTO t", Cut::BeforeCommit);
    assert_eq!(transaction(&proxy, "SELECT 1").code, Some(0), "another transaction");
    assert_ne!(transaction(&proxy, "INSERT INTO t VALUES (2)").code, Some(0));
    assert_eq!(proxy.cuts(), 1);
    // The server rolls back once it sees that the connection has ended; nobody ever sees the row.
    assert_eq!(count(), "1");
    proxy.cut_next("INSERT INTO t", Cut::AfterCommit);
    assert_ne!(transaction(&proxy, "INSERT INTO t VALUES (3)").code, Some(0));
    assert_eq!((proxy.cuts(), &*count()), (2, "2"));
    proxy.set_mode(Mode::Closed);
    assert_ne!(run(&proxy, "SELECT 1").code, Some(0));
    proxy.set_mode(Mode::Pass);
    assert_eq!(run(&proxy, "SELECT 1").code, Some(0));
}

#[test]
fn a_standby_that_is_held_back_loses_commits_when_it_is_promoted() {
    if !available() {
        return;
    }
    let cluster = Cluster::new();
    let link = Proxy::new(&cluster.socket());
    cluster.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let standby = cluster.standby(&link);
    cluster.wait_for_replay(&standby);
    link.hold(true);
    cluster.sql("INSERT INTO t VALUES (2)");
    standby.promote();
    assert_eq!(
        (&*cluster.sql("SELECT count(*) FROM t"), &*standby.sql("SELECT count(*) FROM t")),
        ("2", "1")
    );
    let timeline = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!((&*cluster.sql(timeline), &*standby.sql(timeline)), ("00000001", "00000002"));
}

#[test]
fn a_cancelled_wait_for_a_standby_is_a_commit_with_a_warning() {
    if !available() {
        return;
    }
    let cluster = Cluster::new();
    cluster.sql("CREATE TABLE t (i int)");
    cluster.require_standby("nobody");
    let proxy = Proxy::new(&cluster.socket());
    let mut command = psql(&proxy, ADMIN);
    command.args(["-c", "INSERT INTO t VALUES (1)"]);
    let directory = tempfile::tempdir().unwrap();
    let mut waiting = Background::start(&mut command, directory.path().join("log"));
    cluster.cancel_wait_for_standby();
    assert_eq!(waiting.wait().code(), Some(0));
    waiting.wait_for("WARNING");
    assert_eq!(cluster.sql("SELECT count(*) FROM t"), "1");
}

#[test]
fn a_cluster_is_stopped_killed_and_frozen() {
    if !available() {
        return;
    }
    let mut cluster = Cluster::new();
    cluster.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let proxy = Proxy::new(&cluster.socket());
    let count = "SELECT count(*) FROM t";
    cluster.freeze();
    let mut command = psql(&proxy, ADMIN);
    command.args(["-c", count]);
    let directory = tempfile::tempdir().unwrap();
    let mut waiting = Background::start(&mut command, directory.path().join("log"));
    wait_until("a connection", || (proxy.connections() == 1).then_some(()));
    assert!(waiting.ended().is_none());
    cluster.thaw();
    assert_eq!(waiting.wait().code(), Some(0));
    cluster.stop();
    assert_ne!(run(&proxy, count).code, Some(0));
    cluster.start();
    assert_eq!(run(&proxy, count).stdout.trim(), "1");
    cluster.kill();
    assert_ne!(run(&proxy, count).code, Some(0));
    cluster.start();
    assert_eq!(run(&proxy, count).stdout.trim(), "1");
}

#[test]
fn the_pooler_swallows_listen() {
    if !available() {
        return;
    }
    let cluster = Cluster::new();
    cluster.sql("CREATE ROLE zg_refresh LOGIN");
    let Some(pooler) = Pooler::start(&cluster) else { return };
    let (direct, through) = (Proxy::new(&cluster.socket()), Proxy::new(&pooler.socket()));
    // Through the pooler a transaction may run on the very connection that listens: other transactions
    // occupy it, as those of other hosts do.
    let echo = "LISTEN c;\nNOTIFY c, 'echo';\nSELECT 1;\n";
    let told = feed(&mut psql(&direct, "zg_refresh"), echo);
    assert!(told.stdout.contains("\"echo\" received"), "{told:?}");
    let untold = feed(&mut psql(&through, "zg_refresh"), "LISTEN c;\nSELECT 1;\n");
    assert_eq!(untold.code, Some(0), "{untold:?}");
    cluster.sql("NOTIFY c, 'later'");
    assert!(!feed(&mut psql(&through, "zg_refresh"), "SELECT 1;\n").stdout.contains("later"));
}
