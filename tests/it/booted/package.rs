//! The Debian package under a running systemd: what its scripts do with instances. It has a box of
//! its own, since they restart and stop all that run.
//!
//! It is here and not in `tests/all/packages`, which asks whether the package is whole and fits
//! other releases: the scripts are only half run where no systemd runs, and a mistake in them ends a
//! login, so that each run of the tests must find it. Packing the tests' program takes no build.

use std::fs;
use std::process::Command;

use zg_tokend::testing::demo::IssuerOptions;

use super::machine::Machine;
use super::system::Instance;
use crate::common::{audit, finish};

/// Packs the program that is tested, and puts it into the box as `/new.deb`; as `/old.deb` the
/// same with a lower number.
fn pack(machine: &Machine) {
    let directory = tempfile::tempdir().unwrap();
    let mut deb = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/deb"));
    let packed = finish(deb.arg(env!("CARGO_BIN_EXE_zg-tokend")).arg(directory.path()));
    assert_eq!(packed.code, Some(0), "{packed:?}");
    let package = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap();
    machine.put("/new.deb", &fs::read(package.path()).unwrap(), 0o644);
    machine.run(
        "dpkg-deb -R new.deb old; sed -i 's/^Version: .*/Version: 0.0.1-1/' old/DEBIAN/control; \
         dpkg-deb -Znone --root-owner-group -b old old.deb",
    );
}

/// dpkg's part; the index of manual pages, which it would bring up to date each time, is man-db's.
fn dpkg(machine: &Machine, arguments: &str) {
    machine.run(&format!("dpkg --no-triggers {arguments}"));
}

/// The program that is its main process; with a note if it is not the one on disk.
fn program(it: &Instance) -> String {
    let pid = it.property("MainPID");
    it.person.machine.run(&format!("readlink /proc/{pid}/exe")).trim().to_owned()
}

#[test]
fn an_upgrade_restarts_what_runs_a_removal_keeps_the_login_and_purging_ends_it() {
    let Some(machine) = Machine::bare() else { return };
    pack(&machine);
    dpkg(&machine, "-i old.deb");
    let [it, idle, broken] =
        ["ada", "bea", "cai"].map(|name| Instance::on(&machine, name, IssuerOptions::default()));
    for instance in [&it, &idle, &broken] {
        instance.configure("");
        instance.do_systemctl("enable --now");
        instance.assert_live();
    }
    it.refresh();
    idle.do_systemctl("stop");
    broken.person.put(&broken.config(), "nonsense\n");

    // One that cannot start again fails neither the upgrade nor the others.
    let (pid, state) = (it.property("MainPID"), it.state());
    dpkg(&machine, "-i new.deb");
    assert_ne!(it.property("MainPID"), pid);
    assert_eq!((it.property("ActiveState"), program(&it)), ("active".into(), "/usr/bin/zg-tokend".into()));
    assert_eq!(idle.property("ActiveState"), "inactive", "nobody has asked for it");
    assert_eq!(broken.property("ActiveState"), "failed");
    it.assert_live();
    assert_eq!((it.world.posts(), &it.state()), (2, &state), "a token that is fresh stays");
    it.refresh();

    let state = it.state();
    dpkg(&machine, "-r zg-tokend");
    assert_eq!((it.property("ActiveState"), it.property("Result")), ("inactive".into(), "success".into()));
    assert_eq!(machine.shell("command -v zg-tokend").stdout, "");
    assert_eq!(it.state(), state);
    it.assert_live();

    // Installed again, it is as if it had never been away.
    dpkg(&machine, "-i new.deb");
    assert_eq!(it.property("UnitFileState"), "enabled");
    it.do_systemctl("start");
    it.assert_live();
    it.refresh();
    audit::assert_one_post_per_epoch(&it.world.server.audit());

    dpkg(&machine, "-P zg-tokend");
    let exists = |path: &str| machine.path(path).symlink_metadata().is_ok();
    for gone in ["/var/lib/zg-tokend", "/etc/systemd/system/multi-user.target.wants/zg-tokend@ada.service"] {
        assert!(!exists(gone), "{gone}");
    }
    assert!(exists(&it.config()), "what a person has written stays");
    assert_eq!(it.property("LoadState"), "not-found");
}
