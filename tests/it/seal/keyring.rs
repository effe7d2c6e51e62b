//! The key in a real keyring: gnome-keyring on a bus of its own, as root or not, without a desktop.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::world::World;
use crate::common::{Output, finish, leave_out};
use crate::seal::is_sealed;

const PROGRAMS: [&str; 5] =
    ["gnome-keyring-daemon", "secret-tool", "dbus-run-session", "dbus-send", "python3"];

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

/// Takes the name of the prompter on the session's bus, and never answers: a dialog that nobody sees.
const SILENT_PROMPTER: &str = r#"
import os, socket, struct, sys

def string(text):
    return struct.pack("<I", len(text)) + text.encode() + b"\0"

def pad(data, to):
    return data + b"\0" * (-len(data) % to)

def call(serial, member, signature="", body=b""):
    fields = b""
    header = [(1, "o", "/org/freedesktop/DBus"), (3, "s", member), (2, "s", "org.freedesktop.DBus"), (6, "s", "org.freedesktop.DBus")]
    for code, kind, value in header:
        fields = pad(fields, 8) + bytes([code, 1]) + kind.encode() + b"\0" + string(value)
    if signature:
        fields = pad(fields, 8) + bytes([8, 1]) + b"g\0" + bytes([len(signature)]) + signature.encode() + b"\0"
    start = b"l\1\0\1" + struct.pack("<III", len(body), serial, len(fields))
    return pad(start + fields, 8) + body

address = os.environ["DBUS_SESSION_BUS_ADDRESS"].split(",")[0].split("=", 1)
bus = socket.socket(socket.AF_UNIX)
bus.connect("\0" + address[1] if address[0].endswith("abstract") else address[1])
bus.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
bus.recv(100)
bus.sendall(b"BEGIN\r\n" + call(1, "Hello") + call(2, "RequestName", "su", pad(string("org.gnome.keyring.SystemPrompter"), 4) + struct.pack("<I", 4)))
asked = b""
while True:
    data = bus.recv(65536)
    if not data:
        break
    asked += data
    if b"BeginPrompting" in asked:
        open(sys.argv[1], "w").close()
"#;

/// The keyring asks a person who does not answer, and then it dies.
#[test]
fn a_keyring_that_waits_for_a_person_or_dies_keeps_nobody_waiting() {
    if !available() {
        return;
    }
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let prompter = world.sandbox.path("prompter.py");
    fs::write(&prompter, SILENT_PROMPTER).unwrap();
    let asked = world.sandbox.path("asked");
    let (prompter, asked) = (prompter.display(), asked.display());
    let bus = "dbus-send --session --print-reply=literal --dest=org.freedesktop.DBus / org.freedesktop.DBus";
    let locked = format!(
        "{LOCK} || exit 11\n\
         rm -f '{asked}'; python3 '{prompter}' '{asked}' & prompter=$!\n\
         until {bus}.NameHasOwner string:org.gnome.keyring.SystemPrompter | grep -q true; do sleep 0.05; done\n"
    );
    let script = format!(
        "zg seal --with secret-tool || exit 10\n\
         {locked}\
         zg once --force & refresh=$!\n\
         until [ -e '{asked}' ]; do kill -0 $refresh || {{ zg once --force & refresh=$!; }}; sleep 0.05; done\n\
         zg token >/dev/null || exit 13\n\
         kill -KILL $({bus}.GetConnectionUnixProcessID string:org.freedesktop.secrets | grep -o '[0-9]*$') || exit 14\n\
         wait $refresh; [ $? = 69 ] || exit 15\n\
         kill $prompter\n"
    );
    let output = in_session(&world, &script);
    assert_eq!(output.code, Some(0), "{output:?}");
    let output =
        in_session(&world, &format!("{locked}zg once --force; code=$?; kill $prompter; exit $code\n"));
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.stderr.contains("unlock the password store"), "{output:?}");
    assert!(world.sandbox.path("asked").exists(), "the keyring has asked for its password");
    assert!(is_sealed(&world));
    world.assert_live();
    assert_eq!(world.posts(), 1);
    // A new daemon has the key.
    let output = in_session(&world, "zg once --force || exit 20\n");
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(world.posts(), 2);
}
