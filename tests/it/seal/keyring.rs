//! The key in a real keyring: gnome-keyring on a bus of its own, as root or not, without a desktop.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::world::World;
use crate::common::{Output, finish, leave_out};
use crate::seal::is_sealed;

const PROGRAMS: [&str; 3] = ["gnome-keyring-daemon", "secret-tool", "dbus-run-session"];

/// Runs a script on a bus with an open keyring; its own `XDG_RUNTIME_DIR` keeps it from the machine's.
fn in_session(world: &World, script: &str) -> Output {
    let command = world.sandbox.command(["status"]);
    let home = world.sandbox.path("keyring");
    let runtime = home.join("run");
    fs::create_dir_all(&runtime).unwrap();
    let bus = PathBuf::from(&home).join("script");
    let open =
        "eval \"$(printf 'password\\n' | gnome-keyring-daemon --unlock --components=secrets 2>/dev/null)\"";
    fs::write(
        &bus,
        format!("set -u\n{open}\nzg() {{ '{}' \"$@\"; }}\n{script}", command.get_program().display()),
    )
    .unwrap();
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "bash"]).arg(&bus).env_clear();
    session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    session.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    session.env("XDG_DATA_HOME", home.join("data")).env("XDG_RUNTIME_DIR", &runtime);
    finish(&mut session)
}

fn available() -> bool {
    let missing = PROGRAMS.iter().find(|program| {
        !Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success()
    });
    if let Some(missing) = missing {
        leave_out(&format!("the keyring: there is no {missing}"));
    }
    missing.is_none()
}

const LOCK: &str = "dbus-send --session --print-reply --dest=org.freedesktop.secrets /org/freedesktop/secrets \
     org.freedesktop.Secret.Service.Lock array:objpath:/org/freedesktop/secrets/collection/login >/dev/null";

#[test]
fn a_keyring_holds_the_key_and_may_be_locked_or_gone() {
    if !available() {
        return;
    }
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let script = format!(
        "zg seal --with secret-tool || exit 10\n\
         zg once --force || exit 11\n\
         zg seal --with secret-tool && exit 12\n\
         {LOCK} || exit 13\n\
         zg once --force; [ $? = 69 ] || exit 14\n\
         zg status >/dev/null || exit 15\n"
    );
    let output = in_session(&world, &script);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(is_sealed(&world));
    assert_eq!(world.posts(), 2);
    // No bus and no keyring, as from cron: an error at once, and the token stays.
    let output = world.once_gives(69, ["--force"]);
    assert!(output.stderr.contains("state_key"), "{output:?}");
    world.assert_live();
    assert_eq!(world.posts(), 2);
    // The keyring comes back, and so does the refresh.
    let output = in_session(&world, "zg once --force || exit 20\nzg seal --remove || exit 21\n");
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(!is_sealed(&world));
    world.once_gives(0, ["--force"]);
}
