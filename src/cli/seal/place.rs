//! The places where `seal --with` keeps a new key. Each is read back before anything is sealed.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::cipher::StateKey;
use crate::cli::args::KeyPlace;
use crate::cli::config_file::replace;
use crate::config::edit::quoted;
use crate::config::{SecretSource, Settings};
use crate::files::Attributes;
use crate::problem::{Class, Problem, chain};
use crate::process;
use crate::redact::scrub;
use crate::secret::Secret;
use crate::secrets;

/// A keyring may ask the person who runs this to unlock it.
const DEADLINE: Duration = Duration::from_secs(120);

/// The most that such a command may print, in bytes.
const OUTPUT_MAX: usize = 64 * 1024;

/// The name of the credential.
const CREDENTIAL: &str = "state_key";

/// A key that was kept.
pub(super) struct KeptKey {
    /// The source, as the config writes it.
    pub(super) source: String,
    /// The place, for people.
    pub(super) place: String,
    /// The next step of the user.
    pub(super) next: Option<String>,
    /// This process can read it as the config names it.
    pub(super) is_here: bool,
}

pub(super) fn keep(settings: &Settings, place: KeyPlace, key: &StateKey) -> Result<KeptKey, Problem> {
    match place {
        KeyPlace::File => in_file(settings, key),
        KeyPlace::SecretTool => in_keyring(settings, key),
        KeyPlace::SystemdCreds => encrypted(settings, key),
    }
}

fn in_file(settings: &Settings, key: &StateKey) -> Result<KeptKey, Problem> {
    let path = settings.path.with_extension("key");
    refuse_existing(&path)?;
    replace(&path, Attributes::PRIVATE, format!("{}\n", key.expose()).as_bytes())?;
    read_back(&SecretSource::File(path.clone()), key)?;
    let next = format!(
        "keep {} out of the backups that have {}: whoever has both has the login",
        path.display(),
        settings.state_dir.display()
    );
    let source = format!("{{ file = {} }}", quoted(&path.to_string_lossy()));
    Ok(KeptKey { source, place: format!("{}, mode 0600", path.display()), next: Some(next), is_here: true })
}

fn in_keyring(settings: &Settings, key: &StateKey) -> Result<KeptKey, Problem> {
    let config = settings.path.to_string_lossy();
    let attributes = ["service", "zg-tokend", "config", &config];
    let lookup = argv(&[&["secret-tool", "lookup"], &attributes[..]].concat());
    if secrets::read(CREDENTIAL, &SecretSource::Command(lookup.clone()), &[]).is_ok() {
        return Err(exists(&format!("the keyring has a key for {config}")));
    }
    let store = argv(&[&["secret-tool", "store", "--label=zg-tokend state key"], &attributes[..]].concat());
    run(&store, key)?;
    read_back(&SecretSource::Command(lookup.clone()), key)?;
    Ok(KeptKey { source: command(&lookup), place: "the keyring".into(), next: None, is_here: true })
}

fn encrypted(settings: &Settings, key: &StateKey) -> Result<KeptKey, Problem> {
    let path = settings.path.with_extension("key.cred");
    refuse_existing(&path)?;
    let file = path.to_string_lossy();
    let is_root = rustix::process::geteuid().is_root();
    let scope = if is_root { &[][..] } else { &["--user"][..] };
    let name = format!("--name={CREDENTIAL}");
    let encrypt = argv(&[&["systemd-creds"], scope, &["encrypt", &name, "-", &file]].concat());
    run(&encrypt, key).map_err(|problem| {
        let elsewhere = "for a user it needs systemd 256: choose another place, such as --with secret-tool";
        let hint = if is_root { problem.hint } else { Some(elsewhere.into()) };
        Problem { hint, ..problem }
    })?;
    // The user of a system service may not decrypt it: its service manager does.
    if is_root && settings.path.parent() == Some(Path::new("/etc/zg-tokend")) {
        let unit = settings.path.file_stem().unwrap_or_default().to_string_lossy();
        let next = format!(
            "systemctl edit zg-tokend@{unit}, add under [Service]: LoadCredentialEncrypted={CREDENTIAL}:{file} and restart it: its next refresh seals"
        );
        let (source, place) = (format!("{{ credential = \"{CREDENTIAL}\" }}"), format!("{file}, encrypted"));
        return Ok(KeptKey { source, place, next: Some(next), is_here: false });
    }
    let decrypt = argv(&[&["systemd-creds"], scope, &["decrypt", &name, &file, "-"]].concat());
    read_back(&SecretSource::Command(decrypt.clone()), key)?;
    let place = format!("{file}, which this machine alone decrypts");
    Ok(KeptKey { source: command(&decrypt), place, next: None, is_here: true })
}

/// Another key there may be the only one that opens another state.
fn refuse_existing(path: &Path) -> Result<(), Problem> {
    match path.symlink_metadata() {
        Ok(_) => Err(exists(&format!("{} exists", path.display()))),
        Err(_) => Ok(()),
    }
}

fn exists(what: &str) -> Problem {
    Problem::of(
        Class::Config,
        CREDENTIAL,
        format!("{what} already, and is not replaced: a state may be sealed with it"),
    )
    .hint("set state_key to it, or move it away if nothing needs it")
}

fn read_back(source: &SecretSource, key: &StateKey) -> Result<(), Problem> {
    let read = secrets::read(CREDENTIAL, source, &[])?;
    if read.expose() == key.expose() {
        return Ok(());
    }
    Err(Problem::of(
        Class::Config,
        CREDENTIAL,
        format!("the key that was just stored reads differently from {source}"),
    )
    .hint("keep the key in another place; nothing was sealed"))
}

/// Runs a command with the key on its standard input.
fn run(argv: &[String], key: &StateKey) -> Result<(), Problem> {
    let program = argv.first().map_or("", String::as_str);
    let failed = |why: &str, hint: &str| {
        Problem::of(Class::Unavailable, CREDENTIAL, format!("cannot keep the key with {program}"))
            .cause(why)
            .hint(hint)
    };
    let by_hand = "run it by hand to see what it says; nothing was sealed";
    let mut command = process::command(argv, &[]).map_err(|error| failed(&chain(&error), by_hand))?;
    // A pipe has room for it, so that nobody waits.
    let (reader, mut writer) = std::io::pipe().map_err(|error| failed(&error.to_string(), by_hand))?;
    writer.write_all(key.expose().as_bytes()).map_err(|error| failed(&error.to_string(), by_hand))?;
    drop(writer);
    command.stdin(Stdio::from(reader));
    let output = process::run(&mut command, DEADLINE, OUTPUT_MAX, None).map_err(|error| {
        failed(&chain(&error), error.hint().unwrap_or("install it, or choose another place for the key"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let said = scrub(said, &[&Secret::new(key.expose())]);
    Err(failed(&format!("{} {said}", output.status), by_hand))
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A command as the config writes it.
fn command(argv: &[String]) -> String {
    let words: Vec<_> = argv.iter().map(|word| quoted(word)).collect();
    format!("{{ command = [{}] }}", words.join(", "))
}
