//! The system unit: an instance for each test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::demo::{Fault, Outage};
use zg_tokend::testing::secret::Secret;

use super::machine::{Machine, Person};
use crate::common::world::World;
use crate::common::{Output, audit, figure, wait_until};

/// A user's instance of the system unit, and the server that it asks.
pub(super) struct Instance {
    pub world: World,
    pub person: Person,
    pub unit: String,
}

impl Instance {
    /// Not configured and not started yet; `None` without root.
    pub(super) fn new(name: &'static str, options: IssuerOptions) -> Option<Self> {
        Some(Self::on(&Machine::shared()?, name, options))
    }

    /// The same in a box of the caller's.
    pub(super) fn on(machine: &Arc<Machine>, name: &'static str, options: IssuerOptions) -> Self {
        let person = machine.person(name);
        person.make(&person.home(".config/zerogravity"));
        Self { world: World::with(options), person, unit: format!("zg-tokend@{name}") }
    }

    /// Where its config is.
    pub(super) fn config(&self) -> String {
        format!("/etc/zg-tokend/{}.toml", self.person.name)
    }

    /// Writes its config, with a new login.
    pub(super) fn configure(&self, extra: &str) {
        let seed = self.world.seed();
        self.configure_login(&format!("\"{}\"", seed.expose()), extra);
    }

    /// The same; `login` is the value of refresh_token.
    pub(super) fn configure_login(&self, login: &str, extra: &str) {
        let config = format!("{}refresh_token = {login}\n{extra}\n", self.world.client());
        self.person.put(&self.config(), &config);
    }

    /// A drop-in, as `systemctl edit` would make it.
    pub(super) fn edit(&self, text: &str) {
        let directory = format!("/etc/systemd/system/{}.service.d", self.unit);
        self.person.machine.make(&directory, 0o755);
        self.person.machine.put(&format!("{directory}/override.conf"), text.as_bytes(), 0o644);
        self.person.machine.run("systemctl daemon-reload");
    }

    /// `systemctl VERB` for the unit.
    pub(super) fn systemctl(&self, verb: &str) -> Output {
        self.person.machine.shell(&format!("systemctl {verb} {}", self.unit))
    }

    /// The same; it must succeed.
    #[track_caller]
    pub(super) fn do_systemctl(&self, verb: &str) {
        let output = self.systemctl(verb);
        assert_eq!(output.code, Some(0), "{verb}: {output:?}\n{}", self.journal());
    }

    pub(super) fn property(&self, name: &str) -> String {
        self.person.machine.property(&self.unit, name)
    }

    /// Its messages and what systemd says of it.
    pub(super) fn journal(&self) -> String {
        self.person.machine.run(&format!("journalctl --sync; journalctl -o cat -u {}", self.unit))
    }

    /// The content of the token file, if there is one.
    fn read(&self) -> Option<Secret> {
        let path = self.person.machine.path(self.person.home(".config/zerogravity/token"));
        fs::read_to_string(path).ok().map(Secret::new)
    }

    #[track_caller]
    pub(super) fn assert_live(&self) {
        let token = self.read().unwrap_or_else(|| panic!("no token file\n{}", self.journal()));
        assert!(self.world.server.is_live(&token), "the token file holds a live token\n{}", self.journal());
    }

    pub(super) fn wait_for_grants(&self, count: usize) {
        wait_until(&format!("{count} grants"), || (self.world.grants() >= count).then_some(()));
    }

    pub(super) fn state(&self) -> Value {
        let path = format!("/var/lib/zg-tokend/{}/default/state", self.person.name);
        serde_json::from_slice(&fs::read(self.person.machine.path(path)).unwrap()).unwrap()
    }

    /// One more refresh, to show that the login lives: nothing was sent twice, or lost.
    pub(super) fn refresh(&self) {
        let generation = || self.state()["generation"].as_u64().unwrap();
        // The server has granted a token before the state has it.
        wait_until("the end of an exchange", || self.state()["in_flight"].is_null().then_some(()));
        let (before, grants) = (generation(), self.world.grants());
        self.do_systemctl("kill -s USR1");
        self.wait_for_grants(grants + 1);
        wait_until("the new token in the state", || (generation() > before).then_some(()));
        self.assert_live();
    }
}

fn seconds(lifetime: u64) -> IssuerOptions {
    IssuerOptions { access_token_lifetime: Duration::from_secs(lifetime), ..IssuerOptions::default() }
}

#[test]
fn enabled_it_keeps_the_token_fresh_in_its_confinement() {
    let Some(it) = Instance::new("ann", seconds(6)) else { return };
    it.configure("");
    it.world.fault(Fault { delay_before_commit_ms: 700, ..Fault::default() });
    it.do_systemctl("enable --now");
    // Started means: what was overdue is fresh.
    it.assert_live();
    while it.world.grants() < 5 {
        it.assert_live();
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((it.property("ActiveState"), it.property("NRestarts")), ("active".into(), "0".into()));
    assert!(it.property("StatusText").starts_with("the token is fresh; "), "{}", it.property("StatusText"));
    audit::assert_one_post_per_epoch(&it.world.server.audit());

    let machine = &it.person.machine;
    let pid = it.property("MainPID");
    let status = machine.run(&format!("cat /proc/{pid}/status"));
    for line in ["CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    // It may open a file for each of many accounts.
    let limits = machine.run(&format!("grep 'open files' /proc/{pid}/limits"));
    let limits: Vec<&str> = limits.split_whitespace().collect();
    assert_eq!(limits[3], limits[4], "{limits:?}");
    let state = machine.path(format!("/var/lib/zg-tokend/{}", it.person.name));
    assert_eq!(fs::metadata(state).unwrap().permissions().mode() & 0o777, 0o700);

    let by_account =
        machine.run(&format!("journalctl --sync; journalctl -o cat -u {} ACCOUNT=default", it.unit));
    assert!(
        by_account.lines().filter(|line| line.starts_with("default: refreshed: ")).count() >= 4,
        "{by_account}"
    );
    assert_eq!(machine.run(&format!("systemctl is-enabled {}", it.unit)).trim(), "enabled");
    it.do_systemctl("disable --now");
}

#[test]
fn killed_it_is_restarted_and_the_login_lives() {
    let Some(it) =
        Instance::new("ben", IssuerOptions { reuse_grace: Duration::from_secs(60), ..seconds(3600) })
    else {
        return;
    };
    it.configure("");
    it.do_systemctl("start");
    it.do_systemctl("kill -s KILL --kill-whom=main");
    wait_until("a restart", || (it.property("NRestarts") == "1").then_some(()));
    wait_until("that it is up", || (it.property("ActiveState") == "active").then_some(()));
    assert_eq!(it.world.posts(), 1);
    it.refresh();
    audit::assert_one_post_per_epoch(&it.world.server.audit());

    // Once more, with an answer on its way that will find nobody.
    it.world.fault(Fault { delay_after_commit_ms: 20_000, ..Fault::default() });
    it.do_systemctl("kill -s USR1");
    it.wait_for_grants(3);
    it.do_systemctl("kill -s KILL --kill-whom=main");
    wait_until("another restart", || (it.property("NRestarts") == "2").then_some(()));
    it.wait_for_grants(4);
    it.refresh();
    assert_eq!(it.state()["generation"], 4, "the lost answer is the only one that is missing");
    it.do_systemctl("stop");
}

#[test]
fn a_hung_one_is_killed_by_the_watchdog_and_restarted() {
    let Some(it) = Instance::new("cleo", seconds(3600)) else { return };
    it.configure("");
    it.edit("[Service]\nWatchdogSec=5\n");
    it.do_systemctl("start");
    // Over two limits it answers in time.
    thread::sleep(Duration::from_secs(12));
    assert_eq!((it.property("NRestarts"), it.property("ActiveState")), ("0".into(), "active".into()));
    it.do_systemctl("kill -s STOP --kill-whom=main");
    wait_until("a restart", || (it.property("NRestarts") == "1").then_some(()));
    wait_until("that it is up", || (it.property("ActiveState") == "active").then_some(()));
    assert!(it.journal().contains("Watchdog timeout"), "{}", it.journal());
    it.refresh();
    audit::assert_one_post_per_epoch(&it.world.server.audit());
    it.do_systemctl("stop");
}

#[test]
fn a_reload_takes_a_good_config_and_refuses_a_bad_one() {
    let Some(it) = Instance::new("dora", seconds(6)) else { return };
    it.configure("");
    it.do_systemctl("start");
    let pid = it.property("MainPID");
    let good = fs::read_to_string(it.person.machine.path(it.config())).unwrap();

    it.person.put(&it.config(), &format!("{good}surplus = 1\n"));
    let refused = it.systemctl("reload");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(it.property("ActiveState"), "active");
    // It notices by itself, too.
    wait_until("that it says so", || {
        it.property("StatusText").contains("the new config is wrong").then_some(())
    });
    assert!(it.journal().contains("so the old one stays in force"), "{}", it.journal());
    let grants = it.world.grants();
    it.wait_for_grants(grants + 2);
    it.assert_live();

    let elsewhere = "/run/zg-tokend/dora/token";
    it.person.put(&it.config(), &format!("{good}token_file = \"{elsewhere}\"\n"));
    it.do_systemctl("reload");
    let moved = it.person.machine.path(elsewhere);
    wait_until("the token in its new place", || moved.exists().then_some(()));
    wait_until("that all is well", || it.property("StatusText").starts_with("the token is").then_some(()));
    assert_eq!((it.property("MainPID"), it.property("NRestarts")), (pid, "0".into()));
    audit::assert_one_post_per_epoch(&it.world.server.audit());
    it.do_systemctl("stop");
}

#[test]
fn a_dead_login_keeps_it_up_until_a_new_one_comes() {
    let Some(it) = Instance::new("eve", seconds(3600)) else { return };
    it.configure("");
    it.do_systemctl("start");
    let pid = it.property("MainPID");
    let token = Secret::new(it.state()["refresh_token"]["value"].as_str().unwrap());
    let now = it.world.server.now();
    it.world.server.issuer(|issuer| issuer.revoke_login(now, &token));
    it.do_systemctl("kill -s USR1");
    wait_until("that it says so", || it.property("StatusText").contains("invalid_grant").then_some(()));
    // Nor does a restart by hand ask the server again.
    it.do_systemctl("restart");
    assert!(it.property("StatusText").contains("invalid_grant"), "{}", it.property("StatusText"));
    assert_eq!((it.property("ActiveState"), it.property("NRestarts")), ("active".into(), "0".into()));
    assert_ne!(it.property("MainPID"), pid);
    assert_eq!(it.world.posts(), 2, "a dead refresh token is sent once");

    let pid = it.property("MainPID");
    it.configure("");
    it.wait_for_grants(2);
    it.refresh();
    wait_until("that all is well", || it.property("StatusText").starts_with("the token is").then_some(()));
    assert_eq!((it.property("MainPID"), it.property("NRestarts")), (pid, "0".into()));
    it.do_systemctl("stop");
}

#[test]
fn a_wrong_config_is_not_tried_again() {
    let Some(it) = Instance::new("finn", seconds(3600)) else { return };
    it.person.put(&it.config(), "nonsense\n");
    assert_eq!(it.systemctl("start").code, Some(1));
    // Not "activating", which is what waits for a restart.
    assert_eq!((it.property("ActiveState"), it.property("NRestarts")), ("failed".into(), "0".into()));
    assert_eq!(it.property("ExecMainStatus"), "78");
    assert!(it.journal().contains("error: "), "{}", it.journal());
    it.configure("");
    it.do_systemctl("start");
    it.assert_live();
    it.do_systemctl("stop");
}

#[test]
fn without_the_server_it_starts_and_says_why_there_is_no_token() {
    let Some(it) = Instance::new("gus", seconds(3600)) else { return };
    it.configure("");
    it.world.outage(Some(Outage::Unavailable));
    it.do_systemctl("start");
    assert!(it.property("StatusText").contains("503"), "{}", it.property("StatusText"));
    it.world.outage(None);
    it.wait_for_grants(1);
    wait_until("that all is well", || it.property("StatusText").starts_with("the token is").then_some(()));
    it.assert_live();
    it.do_systemctl("stop");
}

#[test]
fn stopped_in_mid_exchange_it_finishes_however_short_the_unit_is_set() {
    // A daemon-reload, which other tests cause, makes systemd forget that it was asked for time.
    let Some(machine) = Machine::own() else { return };
    let it = Instance::on(&machine, "hugo", seconds(3600));
    it.configure("");
    // Far less than the exchange takes, and enough for systemd to hear of it on a busy machine.
    it.edit("[Service]\nTimeoutStopSec=5\n");
    it.do_systemctl("start");
    it.world.fault(Fault { delay_after_commit_ms: 9000, ..Fault::default() });
    it.do_systemctl("kill -s USR1");
    it.wait_for_grants(2);
    it.do_systemctl("stop");
    assert_eq!(it.property("Result"), "success", "{}", it.journal());
    assert_eq!(it.state()["generation"], 2);
    it.do_systemctl("start");
    it.refresh();
    audit::assert_one_post_per_epoch(&it.world.server.audit());
    it.do_systemctl("stop");
}

/// The credentials as the unit shows them.
fn with_credential(it: &Instance, kind: &str) {
    let unit = include_str!("../../../systemd/system/zg-tokend@.service");
    let line = unit.lines().find_map(|line| line.strip_prefix(&format!("#{kind}="))).unwrap();
    it.edit(&format!("[Service]\n{kind}={line}\n"));
    it.configure_login("{ credential = \"refresh_token\" }", "");
    it.do_systemctl("start");
    it.assert_live();
    it.refresh();
    it.do_systemctl("stop");
    audit::assert_one_post_per_epoch(&it.world.server.audit());
}

#[test]
fn a_credential_that_only_root_can_read() {
    let Some(it) = Instance::new("ida", seconds(3600)) else { return };
    let seed = it.world.seed();
    it.person.machine.put("/etc/zg-tokend/ida.refresh_token", seed.expose().as_bytes(), 0o600);
    with_credential(&it, "LoadCredential");
}

#[test]
fn an_encrypted_credential() {
    let Some(it) = Instance::new("jan", seconds(3600)) else { return };
    let encrypt =
        "systemd-creds encrypt --with-key=host --name=refresh_token - /etc/zg-tokend/jan.refresh_token.cred";
    it.person.machine.run(&format!("printf %s '{}' | {encrypt}", it.world.seed().expose()));
    with_credential(&it, "LoadCredentialEncrypted");
}

/// The service alone has the key, and seals by itself.
#[test]
fn a_state_is_sealed_with_an_encrypted_credential() {
    let Some(it) = Instance::new("kay", seconds(3600)) else { return };
    it.configure("");
    it.do_systemctl("start");
    it.assert_live();
    it.do_systemctl("stop");
    let machine = &it.person.machine;
    let state = || machine.shell("cat /var/lib/zg-tokend/kay/default/state").stdout;
    assert!(!state().contains("\"sealed\""), "{}", state());
    machine.run(
        "head -c 32 /dev/urandom | base64 | \
         systemd-creds encrypt --with-key=host --name=state_key - /etc/zg-tokend/kay.key.cred",
    );
    it.edit("[Service]\nLoadCredentialEncrypted=state_key:/etc/zg-tokend/kay.key.cred\n");
    // The login is in the state: the config needs none.
    it.person
        .put(&it.config(), &format!("{}state_key = {{ credential = \"state_key\" }}\n", it.world.client()));
    it.do_systemctl("start");
    for _ in 0..2 {
        it.refresh();
        assert!(state().contains("\"sealed\""), "{}", state());
    }
    it.do_systemctl("stop");
    audit::assert_one_post_per_epoch(&it.world.server.audit());
}

/// Root makes the key; the service alone has it.
#[test]
fn seal_makes_the_credential_that_the_unit_loads() {
    let Some(it) = Instance::new("gwen", seconds(3600)) else { return };
    it.configure("");
    it.do_systemctl("start");
    it.assert_live();
    it.do_systemctl("stop");
    let machine = &it.person.machine;
    // Root's now, and without the login, which is in the state.
    machine.put(&it.config(), it.world.client().as_bytes(), 0o644);
    let seal = format!("zg-tokend seal --with systemd-creds --config {} 2>&1", it.config());
    let shown = machine.run(&seal);
    let unit = include_str!("../../../systemd/system/zg-tokend@.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("#LoadCredentialEncrypted=state_key:"));
    let line = format!("LoadCredentialEncrypted=state_key:{}", line.unwrap().replace("%i", "gwen"));
    assert!(shown.contains(&line) && shown.contains("zg-tokend@gwen"), "{shown}");
    assert!(
        machine.run(&format!("cat {}", it.config())).contains("state_key = { credential = \"state_key\" }")
    );
    let key = machine.run("systemd-creds decrypt --name=state_key /etc/zg-tokend/gwen.key.cred -");
    assert!(key.trim().len() >= 43 && !shown.contains(key.trim()), "{shown}");
    // A state may be sealed with that key already.
    assert_eq!(machine.shell(&seal).code, Some(78));

    it.edit(&format!("[Service]\n{line}\n"));
    it.do_systemctl("start");
    for _ in 0..2 {
        it.refresh();
        let state = machine.shell("cat /var/lib/zg-tokend/gwen/default/state").stdout;
        assert!(state.contains("\"sealed\""), "{state}");
    }
    it.do_systemctl("stop");
    audit::assert_one_post_per_epoch(&it.world.server.audit());
}

/// A command that decrypts the key, where root runs the program for itself.
#[test]
fn root_seals_with_a_key_that_this_machine_decrypts() {
    let Some(it) = Instance::new("mia", seconds(3600)) else { return };
    let machine = &it.person.machine;
    machine.make("/srv/mia", 0o700);
    let config = format!(
        "{}refresh_token = \"{}\"\ntoken_file = \"token\"\nstate_dir = \"state\"\n",
        it.world.client(),
        it.world.seed().expose()
    );
    machine.put("/srv/mia/config.toml", config.as_bytes(), 0o600);
    let zg = |args: &str| machine.shell(&format!("zg-tokend {args} --config /srv/mia/config.toml"));
    assert_eq!(zg("once").code, Some(0));
    let output = zg("seal --with systemd-creds");
    assert_eq!(output.code, Some(0), "{output:?}");
    let state = || machine.shell("cat /srv/mia/state/default/state").stdout;
    assert!(state().contains("\"sealed\""), "{}", state());
    for args in ["once --force", "seal --secrets --yes", "once --force"] {
        let output = zg(args);
        assert_eq!(output.code, Some(0), "{args}: {output:?}");
    }
    let files = machine.run("cd /srv/mia; ls; cat config.toml");
    assert!(files.contains("config.refresh_token.sealed") && !files.contains("config.toml.plain"), "{files}");
    assert!(files.contains("\"systemd-creds\", \"decrypt\""), "{files}");
    assert_eq!(zg("seal --secrets --remove --yes").code, Some(0));
    assert_eq!(zg("seal --remove").code, Some(0));
    assert!(!state().contains("\"sealed\""), "{}", state());
    assert_eq!(machine.run("cat /srv/mia/config.toml"), config);
    audit::assert_one_post_per_epoch(&it.world.server.audit());
}

/// The drop-in that the recipe shows.
fn drop_in() -> &'static str {
    let recipe = include_str!("../../../docs/recipes/systemd.md");
    let (_, rest) = recipe.split_once("# systemctl edit zg-tokend@alice\n").unwrap();
    rest.split("```").next().unwrap()
}

#[test]
fn a_secret_command_that_needs_more_gets_it_by_the_drop_in_of_the_recipe() {
    let Some(it) = Instance::new("alice", seconds(3600)) else { return };
    // As gpg does: it writes beside its keys. As Node.js does: it makes code at run time.
    it.person.make(&it.person.home(".gnupg"));
    let seed = it.world.seed();
    it.person.put(
        &it.person.home("secret"),
        &format!(
            "import mmap\nmmap.mmap(-1, 4096, prot=7)\nopen('{}', 'w')\nprint('{}')\n",
            it.person.home(".gnupg/lock"),
            seed.expose()
        ),
    );
    let command = format!("{{ command = [\"/usr/bin/python3\", \"{}\"] }}", it.person.home("secret"));
    it.configure_login(&command, "");
    it.do_systemctl("start");
    assert_eq!(it.world.posts(), 0, "confined, the command fails");
    assert!(it.property("StatusText").contains("python3"), "{}", it.property("StatusText"));
    it.edit(drop_in());
    it.do_systemctl("restart");
    it.assert_live();
    it.refresh();
    it.do_systemctl("stop");
}

#[test]
fn a_hook_that_writes_elsewhere_fails_clearly_and_gets_the_room_by_the_drop_in_of_the_recipe() {
    let Some(it) = Instance::new("nina", seconds(3600)) else { return };
    it.person.make(&it.person.home(".gnupg"));
    let told = it.person.home(".gnupg/told");
    it.configure(&format!("on_refresh = [\"sh\", \"-c\", \"echo $ZG_TOKEND_EVENT >>{told}\"]"));
    it.do_systemctl("start");
    let of_hook = || it.journal().lines().find(|line| line.contains("on_refresh")).map(str::to_owned);
    let failed = wait_until("its failure in the journal", of_hook);
    assert!(failed.contains(&format!("{told}: Read-only file system")), "{failed}");
    it.assert_live();
    let room = drop_in().lines().find(|line| line.starts_with("ReadWritePaths=")).unwrap();
    it.edit(&format!("[Service]\n{}\n", room.replace("alice", it.person.name)));
    it.do_systemctl("restart");
    it.refresh();
    let written = || fs::read_to_string(it.person.machine.path(&told)).ok().filter(|text| !text.is_empty());
    assert_eq!(wait_until("what it writes", written), "refresh\n");
    it.do_systemctl("stop");
}

#[test]
fn a_group_reads_the_token_by_the_drop_in_of_the_recipe() {
    let Some(it) = Instance::new("lea", seconds(3600)) else { return };
    it.person.machine.run("groupadd readers && usermod -aG readers lea");
    it.configure("token_file = \"/run/zg-tokend/lea/token\"\ntoken_file_mode = \"0640\"\ntoken_file_group = \"readers\"");
    it.do_systemctl("start");
    assert!(it.property("StatusText").contains("group"), "{}", it.property("StatusText"));
    assert_eq!(it.world.posts(), 0, "no token is spent that cannot be published");
    let (_, lines) = drop_in().split_once("# token_file_group\n").unwrap();
    it.edit(&format!("[Service]\n{lines}"));
    it.do_systemctl("restart");
    assert_eq!(it.person.machine.run("stat -c %G:%a /run/zg-tokend/lea/token").trim(), "readers:640");
    it.do_systemctl("stop");
}

#[test]
fn it_starts_and_stops_quickly() {
    let Some(it) = Instance::new("kai", seconds(3600)) else { return };
    it.configure("");
    // Of a unit that nothing refers to, systemd forgets the times.
    it.do_systemctl("enable");
    // Between two changes of its state, as systemd has timed them, in microseconds.
    let took = |from: &str, to: &str| {
        let at = |name: &str| it.property(&format!("{name}TimestampMonotonic")).parse::<u64>().unwrap();
        Duration::from_micros(at(to) - at(from))
    };
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        it.do_systemctl("start");
        it.do_systemctl("stop");
        starts.push(took("InactiveExit", "ActiveEnter"));
        stops.push(took("ActiveExit", "InactiveEnter"));
    }
    for (what, times) in [("start to READY", &mut starts), ("stop", &mut stops)] {
        times.sort_unstable();
        figure(format!("{what}: min {:?}, median {:?}, max {:?} of 20", times[0], times[10], times[19]));
    }
    // Half of them: a machine that is busy for a while, or ten times slower, must not fail it.
    assert!(!stops[0].is_zero() && stops[10] < Duration::from_secs(1), "{stops:?}");
    assert_eq!(it.property("Result"), "success");
    it.do_systemctl("disable");
}
