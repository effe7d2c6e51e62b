//! A row that this machine cannot use: sealed with another key, or changed by somebody else than zg-tokend.

use super::hosts::{DUE, Fleet, KEY, OTHER_KEY};
use crate::common::write_private;

#[test]
fn another_key_is_told_also_by_a_host_without_a_state() {
    let Some(fleet) = Fleet::new(2) else { return };
    let [first, second] = &fleet.hosts[..] else { unreachable!() };
    write_private(&second.sandbox.path("fleet.key"), OTHER_KEY.as_bytes());
    fleet.configure(first, &format!("refresh_token = \"{}\"", fleet.seed().expose()));
    first.once_gives(0, []);
    let output = second.once_gives(78, []);
    assert!(output.stderr.contains("sealed with another key"), "{output:?}");
    let (status, code) = second.status();
    assert_eq!((code, &status["problem"]), (2, &"there is no token yet".into()), "{status}");
    let told = |name: &str, words: &str| status[name].as_str().is_some_and(|text| text.contains(words));
    assert!(told("cause", "sealed with another key"), "{status}");
    assert!(told("hint", "set fleet.key to the key of the other machines"), "{status}");
    assert!(!told("hint", "log in"), "{status}");
    write_private(&second.sandbox.path("fleet.key"), KEY.as_bytes());
    second.once_gives(0, []);
    fleet.assert_agreed();
    assert_eq!(second.status().1, 0);
}

#[test]
fn a_row_that_was_changed_by_hand_is_told_as_such() {
    let Some(fleet) = Fleet::new(1) else { return };
    fleet.log_in();
    fleet.pass_time(DUE);
    let host = &fleet.hosts[0];
    let issued_at = fleet.row("issued_at");
    let secret = fleet.row("encode(secret, 'hex')");
    for (change, back, words) in [
        (
            "UPDATE zg_tokend.login SET issued_at = 'infinity'",
            &*format!("issued_at = '{issued_at}'"),
            "infinity",
        ),
        ("UPDATE zg_tokend.login SET epoch = 7", "epoch = 2", "or the row was changed by hand"),
        (
            "UPDATE zg_tokend.login SET secret = 'x'",
            &format!("secret = '\\x{secret}'"),
            "or the row was changed by hand",
        ),
    ] {
        fleet.cluster.sql(change);
        let output = host.once_gives(78, []);
        assert!(output.stderr.contains(words) && output.stderr.contains("docs/FLEET.md"), "{output:?}");
        fleet.cluster.sql(&format!("UPDATE zg_tokend.login SET {back}"));
    }
    fleet.cluster.sql("ALTER TABLE zg_tokend.login ALTER epoch TYPE integer");
    let output = host.once_gives(78, []);
    assert!(output.stderr.contains("the column epoch of zg_tokend.login has another type"), "{output:?}");
    assert_eq!(fleet.posts(), 1, "nothing is sent");
    fleet.cluster.sql("ALTER TABLE zg_tokend.login ALTER epoch TYPE bigint");
    host.once_gives(0, ["--force"]);
    assert_eq!(fleet.posts(), 2);
    fleet.assert_agreed();
}
