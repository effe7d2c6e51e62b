//! The user unit: for each test a user, who has never logged in.

use super::home::Home;
use crate::common::{audit, figure, wait_until};

const UNIT: &str = "zg-tokend";

#[test]
fn a_lingering_user_has_a_fresh_token_from_boot_on() {
    let Some(home) = Home::new("uma", 6) else { return };
    home.person.linger();
    home.person.run("systemctl --user enable --now zg-tokend");
    home.assert_live();
    let grants = home.world.grants();
    home.wait_for_grants(grants + 2);
    assert!(home.property(UNIT, "StatusText").starts_with("the token is fresh; "));
    home.person.run("systemctl --user reload zg-tokend");
    // The user's other programs cannot look into it.
    let spied = home.person.shell(&format!("cat /proc/{}/environ", home.property(UNIT, "MainPID")));
    assert_eq!(spied.code, Some(1), "{spied:?}");

    home.person.run("systemctl --user kill -s KILL --kill-whom=main zg-tokend");
    wait_until("a restart", || (home.property(UNIT, "NRestarts") == "1").then_some(()));
    wait_until("that it is up", || (home.property(UNIT, "ActiveState") == "active").then_some(()));
    let grants = home.world.grants();
    home.wait_for_grants(grants + 1);
    let log = home.person.run(
        "journalctl --user --sync; \
         journalctl --user -o cat -u zg-tokend ACCOUNT=default EVENT=refreshed GENERATION=1",
    );
    assert!(log.contains("default: refreshed: token 1 "), "{log}");

    // As at the next boot: the user's manager starts, and with it what is enabled.
    home.person.machine.run("systemctl restart user@$(id -u uma)");
    home.person.wait_for_manager();
    wait_until("that it is up", || (home.property(UNIT, "ActiveState") == "active").then_some(()));
    home.assert_live();
    let before = home.property(UNIT, "MainPID");
    home.person.run("systemctl --user stop zg-tokend");
    assert!(before != "0" && home.property(UNIT, "Result") == "success");
    audit::assert_one_post_per_epoch(&home.world.server.audit());
}

#[test]
fn installed_by_cargo_it_runs_from_the_users_own_directory() {
    let Some(home) = Home::new("vera", 3600) else { return };
    home.person.linger();
    let machine = &home.person.machine;
    let unit = machine.run("cat /usr/lib/systemd/user/zg-tokend.service");
    for directory in [".cargo/bin", "source/systemd/user"] {
        home.person.make(&home.person.home(directory));
    }
    home.person.put(&home.person.home("source/systemd/user/zg-tokend.service"), &unit);
    home.person.run("cp /usr/bin/zg-tokend ~/.cargo/bin/");
    let recipe = include_str!("../../../docs/recipes/systemd.md");
    let commands = recipe.split("```").find(|block| block.contains("%h/.cargo/bin")).unwrap();
    home.person.run(&format!("cd source; {}", commands.strip_prefix("sh\n").unwrap()));
    home.assert_live();
    let program = machine.run(&format!("readlink /proc/{}/exe", home.property(UNIT, "MainPID")));
    assert_eq!(program.trim(), home.person.home(".cargo/bin/zg-tokend"));
    home.person.run("systemctl --user reload zg-tokend && systemctl --user stop zg-tokend");
}

#[test]
fn a_group_reads_the_token() {
    let Some(home) = Home::new("wes", 3600) else { return };
    home.person.machine.run("groupadd family && usermod -aG family wes");
    home.configure("token_file = \"~/token\"\ntoken_file_mode = \"0640\"\ntoken_file_group = \"family\"");
    home.person.linger();
    home.person.run("systemctl --user start zg-tokend");
    assert_eq!(home.person.run("stat -c %G:%a ~/token").trim(), "family:640");
    home.person.run("systemctl --user stop zg-tokend");
}

#[test]
fn a_credential_comes_by_the_line_that_the_unit_shows() {
    let Some(home) = Home::new("xena", 3600) else { return };
    let unit = include_str!("../../../systemd/user/zg-tokend.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("#LoadCredential=")).unwrap();
    let file = home.person.home(line.split_once(":%h/").unwrap().1);
    home.person.put(&file, home.world.seed().expose());
    home.configure_login("{ credential = \"refresh_token\" }", "");
    let drop_in = home.person.home(".config/systemd/user/zg-tokend.service.d");
    home.person.make(&drop_in);
    home.person.put(&format!("{drop_in}/override.conf"), &format!("[Service]\nLoadCredential={line}\n"));
    home.person.linger();
    home.person.run("systemctl --user start zg-tokend");
    home.assert_live();
    assert_eq!(home.world.posts(), 1);
    home.person.run("systemctl --user stop zg-tokend");
}

#[test]
fn a_user_seals_login_and_config_under_the_service() {
    let Some(home) = Home::new("yara", 3600) else { return };
    home.person.linger();
    home.person.run("systemctl --user start zg-tokend");
    home.assert_live();
    // Before systemd 256 only root can decrypt.
    let version =
        home.person.machine.run("systemd-creds --version | sed -n 's/^systemd \\([0-9]*\\).*/\\1/p'");
    let can_decrypt = version.trim().parse::<u32>().unwrap() >= 256;
    let with_creds = home.person.shell("zg-tokend seal --with systemd-creds");
    figure(format!(
        "systemd {}: a user's `seal --with systemd-creds` gives {:?}",
        version.trim(),
        with_creds.code
    ));
    if can_decrypt {
        assert_eq!(with_creds.code, Some(0), "{with_creds:?}");
    } else {
        assert_eq!(with_creds.code, Some(69), "{with_creds:?}");
        assert!(with_creds.stderr.contains("needs systemd 256"), "{with_creds:?}");
        home.person.run("zg-tokend seal --with file");
    }
    home.person.run("zg-tokend seal --secrets --yes");
    home.person.run("test -e ~/.config/zg-tokend/config.toml.plain");
    wait_until("the new config", || {
        let log = home.person.run("journalctl --user --sync; journalctl --user -o cat -u zg-tokend");
        log.contains("the new config is in use").then_some(())
    });
    let grants = home.world.grants();
    home.person.run("systemctl --user kill -s USR1 --kill-whom=main zg-tokend");
    home.wait_for_grants(grants + 1);
    wait_until("the end of the copy", || {
        (home.person.shell("test -e ~/.config/zg-tokend/config.toml.plain").code == Some(1)).then_some(())
    });
    let state = home.person.run("cat ~/.local/state/zg-tokend/default/state");
    assert!(state.contains("\"sealed\""), "{state}");
    home.assert_live();
    home.person.run("systemctl --user stop zg-tokend");
    audit::assert_one_post_per_epoch(&home.world.server.audit());
}
