//! Which changes reach a host, and how often a host that is refused asks again.

use std::time::Duration;

use zg_tokend::testing::clock::monotonic;

use super::hosts::{DUE, Fleet, Host, KEY, OTHER_KEY};
use super::proxy::Proxy;
use crate::common::world::read;
use crate::common::{wait_until, write_private};

/// Two accounts in one database, each with a key and a login of its own.
fn configure_two(fleet: &Fleet, host: &Host, seeds: [&str; 2]) {
    let account = |name: &str, key: &str, seed: &str| {
        let path = host.sandbox.path(format!("{name}.key"));
        write_private(&path, key.as_bytes());
        format!(
            "[accounts.{name}]\n{seed}token_file = \"{}\"\nfleet = {{ url = \"{}\", key = {{ file = \"{}\" }} }}\n",
            host.sandbox.path(name).display(),
            host.url(),
            path.display(),
        )
    };
    host.sandbox.write_config(&format!(
        "token_endpoint = \"{}\"\nclient_id = \"demo\"\n{}{}",
        fleet.server.token_endpoint(),
        account("one", KEY, seeds[0]),
        account("two", OTHER_KEY, seeds[1]),
    ));
}

#[test]
fn accounts_with_keys_of_their_own_all_hear_of_their_changes() {
    let Some(fleet) = Fleet::new(2) else { return };
    let [first, second] = &fleet.hosts[..] else { unreachable!() };
    let seeds = [(); 2].map(|()| format!("refresh_token = \"{}\"\n", fleet.seed().expose()));
    configure_two(&fleet, first, [&seeds[0], &seeds[1]]);
    configure_two(&fleet, second, ["", ""]);
    for host in &fleet.hosts {
        host.once_gives(0, []);
    }
    let run = second.supervise();
    // Each of them tries whether notifications arrive, on one connection.
    second.proxy.wait_for_statement("LISTEN", 2);
    for name in ["one", "two"] {
        let earlier = read(&second.sandbox.path(name));
        first.once_gives(0, ["--force", "--account", name]);
        let new = read(&first.sandbox.path(name));
        assert_ne!(new, earlier);
        wait_until(&format!("the token of {name}"), || {
            (read(&second.sandbox.path(name)) == new).then_some(())
        });
    }
    assert!(!run.log().contains("every 30 s instead"), "{}", run.log());
}

/// A reader whose URL names a standby before the primary.
#[test]
fn a_reader_finds_the_primary_behind_a_standby() {
    let Some(mut fleet) = Fleet::new(1) else { return };
    fleet.add("read");
    let link = Proxy::new(&fleet.cluster.socket());
    let standby = fleet.cluster.standby(&link);
    let before_standby = Proxy::new(&standby.socket());
    fleet.log_in();
    let reader = &fleet.hosts[1];
    fleet.configure_url(reader, "", &reader.url_of([before_standby.port(), reader.proxy.port()]));
    let run = reader.supervise();
    reader.proxy.wait_for_statement("LISTEN", 1);
    assert!(before_standby.connections() > 0, "the first host of the URL was asked");
    fleet.hosts[0].once_gives(0, ["--force"]);
    fleet.wait_for_token();
    wait_until("its word that it listens", || (reader.status().0["fleet"]["listens"] == true).then_some(()));
    assert!(!run.log().contains("every 30 s instead"), "{}", run.log());
}

/// A reader that knows a standby alone: that takes no LISTEN.
#[test]
fn a_reader_of_a_standby_polls_and_says_so() {
    let Some(mut fleet) = Fleet::new(1) else { return };
    fleet.add("read");
    let link = Proxy::new(&fleet.cluster.socket());
    fleet.log_in();
    let standby = fleet.cluster.standby(&link);
    let reader = &fleet.hosts[1];
    reader.proxy.lead_to(&standby.socket());
    let run = reader.supervise();
    run.wait_for("every 30 s instead");
    fleet.hosts[0].once_gives(0, ["--force"]);
    fleet.wait_for_token();
    assert_eq!(reader.status().0["fleet"]["listens"], false);
    assert!(!run.log().contains("fleet_away"), "{}", run.log());
}

/// The server locks out who tries a wrong password again and again.
#[test]
fn a_host_with_a_wrong_password_tries_it_every_five_minutes() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.log_in();
    let host = &fleet.hosts[0];
    fleet.cluster.set_client_rules("local all zg_refresh scram-sha-256\nlocal all all trust\n");
    fleet.cluster.sql("ALTER ROLE zg_refresh PASSWORD 'right'");
    fleet.configure_url(host, "", &host.url().replace("zg_refresh@", "zg_refresh:wrong@"));
    // The account itself has a reason to ask as well.
    fleet.pass_time(DUE);
    let began = monotonic();
    let before = host.proxy.connections();
    let run = host.supervise();
    run.wait_for("correct user and password in fleet.url");
    // A backoff would try several times meanwhile.
    std::thread::sleep(Duration::from_secs(12));
    let tries = host.proxy.connections() - before;
    let permitted = 1 + (monotonic() - began) / 300_000;
    assert!(
        i64::try_from(tries).unwrap() <= permitted,
        "{tries} tries, {permitted} permitted: {}",
        run.log()
    );
}
