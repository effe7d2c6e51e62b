//! The machine that a state was used on. A copy on another one (a clone of a disk, a backup) may mean that
//! two machines use one login, and the server would end it for both: that is told before it is used.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::message::{Level, Message};
use crate::secret::Fingerprint;
use crate::store::note::Note;
use crate::store::state::Store;

/// The id of this machine, machine-id(5). Containers most often have none.
const MACHINE_ID: &str = "/etc/machine-id";

#[derive(Debug, Default, Serialize, Deserialize)]
struct MachineNote {
    /// Hashed, as machine-id(5) asks.
    machine: Option<Fingerprint>,
}

impl Note for MachineNote {
    const FILE: &'static str = "machine";
}

/// Notes this machine; true if the state was used on another one before.
pub fn note_machine(store: &mut Store) -> bool {
    let Some(here) = here() else { return false };
    let known: MachineNote = store.note();
    if known.machine == Some(here) {
        return false;
    }
    // Without the note the next pass says it again.
    store.update_note(|note: &mut MachineNote| note.machine = Some(here));
    known.machine.is_some()
}

/// This machine. Its id stays while it runs.
fn here() -> Option<Fingerprint> {
    static HERE: OnceLock<Fingerprint> = OnceLock::new();
    let here = HERE.get().copied().or_else(read_id);
    here.map(|here| *HERE.get_or_init(|| here))
}

fn read_id() -> Option<Fingerprint> {
    let id = fs::read_to_string(MACHINE_ID).ok()?;
    let id = id.trim();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| Fingerprint::of(["zg-tokend".as_bytes(), id.as_bytes()]))
}

/// The name of this machine among those that share a login. Two directories on it are two of them.
pub fn host(state_dir: &Path) -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let machine = here().map(|machine| machine.to_string()).unwrap_or_default();
    let id = Fingerprint::of([name.as_bytes(), machine.as_bytes(), state_dir.as_os_str().as_encoded_bytes()]);
    format!("{name}/{}", id.to_string().chars().take(8).collect::<String>())
}

/// The state directory as this boot of the machine has it: no copy of the directory has the same. Nothing else
/// tells a container that starts again, with a new name, from a second one with a copy of the state.
pub fn place(state_dir: &Path) -> Option<Fingerprint> {
    let directory = fs::metadata(state_dir).ok()?;
    let boot = SystemClock::new().now().boot_id.to_string();
    let (device, number) = (directory.dev().to_be_bytes(), directory.ino().to_be_bytes());
    Some(Fingerprint::of([boot.as_bytes(), &device, &number]))
}

/// The warning.
pub fn moved() -> Message {
    let text = "the state was used on another machine before: it was moved or copied here";
    let hint = "make sure that zg-tokend does not use this login there any more, or log in here again: where the \
                server replaces refresh tokens, two machines end each other's login";
    Message::new(Level::Warn, "state_moved", text).hint(hint)
}
