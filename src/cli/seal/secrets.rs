//! `zg-tokend seal --secrets`: takes the secrets out of the config, into sealed files beside it.
//!
//! First the sealed files are written and read back as a refresh reads them, then a copy of the config is
//! kept, then the config is replaced. Wherever that is interrupted, there is the old config or the new one,
//! and each works.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::account::plain_copy;
use crate::account::sealing::read_state_key;
use crate::cipher::{NoRandom, StateKey};
use crate::cli::config_file::{ConfigFile, ReplaceError, parse, replace, show};
use crate::cli::exit::Exit;
use crate::cli::seal::key::{KEY, no_key};
use crate::cli::settings::report;
use crate::cli::{output, prompt};
use crate::config::addition::LineChange;
use crate::config::edit::{quoted, replaced};
use crate::config::inline::{PlacedSecret, SecretForm, secrets};
use crate::config::{self, AccountConfig, AccountName, SealedFile, SecretSource, Settings};
use crate::files::{Attributes, Contents};
use crate::problem::{Class, Problem};
use crate::secret::Secret;
use crate::secrets::{SealedError, SecretError, sealed};

/// Shown for a secret.
const HIDDEN: &str = "\"…\"";

/// Where a secret may have several lines.
const PEM_KEYS: [&str; 2] = ["private_key", "tls_private_key"];

/// A secret that moves.
struct Move {
    span: Range<usize>,
    /// `None` for all accounts.
    account: Option<String>,
    /// The key, with the name in its table.
    purpose: String,
    /// Beside the config.
    file: PathBuf,
    plain: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
}

pub(super) fn seal(settings: &Settings, yes: bool) -> Result<Exit, Problem> {
    let opener = Opener::new(settings)?;
    let Some(key) = read_state_key(opener.account)? else { return Err(no_key()) };
    let file = ConfigFile::read(&settings.path)?;
    let found = secrets(&file.text, AccountName::flat().as_str());
    let moves = plan(settings, &key, &file.text, found)?;
    if moves.is_empty() {
        output::print_line(format!("{} has no secrets in plain", settings.path.display()));
        return Ok(Exit::Success);
    }
    let copy = plain_copy::path(&settings.path);
    let old_copy = Contents::of_path(&copy, config::MAX_LEN).map_err(ReplaceError::from)?;
    if old_copy.is_some_and(|old| old.bytes.as_slice() != file.text.as_bytes()) {
        return Err(Problem::of(Class::Config, "plain_copy", format!("{} exists already", copy.display()))
            .cause("the last change has not proved good yet")
            .hint(format!(
                "refresh each account, which removes it: zg-tokend once --force; or remove it: rm '{}'",
                copy.display()
            )));
    }
    let source = |one: &Move| format!("{{ sealed = {} }}", quoted(&file_name(&one.file)));
    let changes: Vec<_> = moves.iter().map(|one| (one.span.clone(), source(one))).collect();
    let text = replaced(&file.text, &changes);
    let sealed = parse(settings, &text)?;
    keep_together(settings, &sealed)?;
    let masked: Vec<_> = moves.iter().map(|one| (one.span.clone(), HIDDEN.to_owned())).collect();
    if !is_agreed(&settings.path, &replaced(&file.text, &masked), &text, yes) {
        return Ok(Exit::Usage);
    }

    // The service reads them as it reads the config.
    let attributes = Attributes { mode: file.attributes.mode & 0o640 | 0o600, ..file.attributes };
    for one in &moves {
        replace(&one.file, attributes, &one.sealed)?;
    }
    prove(&sealed, &moves, &opener)?;
    // A copy of a broken-off try is written anew: what it is worth counts from now on.
    replace(&copy, Attributes { mode: 0o600, ..file.attributes }, file.text.as_bytes())?;
    file.replace(&text, file.attributes)?;
    for one in &moves {
        output::print_line(format!(
            "{}: sealed in {}",
            named(one.account.as_deref(), &one.purpose),
            one.file.display()
        ));
    }
    for line in still_there(&text, &moves) {
        output::warning(
            format!("line {line} of {} has one of these secrets as well", settings.path.display()),
            "look at the line, and take it out",
        );
    }
    output::hint(format!(
        "{} keeps the config as it was; a refresh of each account removes it",
        copy.display()
    ));
    Ok(Exit::Success)
}

/// Accounts of one refresh token use one login. Two sealed files would make two of it, which end each other.
fn keep_together(settings: &Settings, sealed: &Settings) -> Result<(), Problem> {
    let mut pairs = settings.accounts.iter().zip(&sealed.accounts);
    let Some((parted, _)) = pairs.find(|(old, new)| old.from != new.from) else { return Ok(()) };
    let (name, login) = (&parted.name, parted.login_account());
    let message = format!(
        "account {name} has the refresh_token of account {login}, and two sealed files would make two logins of it"
    );
    let hint =
        format!("in account {name}, write from = \"{login}\" in place of refresh_token, client and server");
    Err(Problem::of(Class::Config, KEY, message).hint(hint))
}

/// A secret, for people.
fn named(account: Option<&str>, purpose: &str) -> String {
    account.map_or_else(|| purpose.to_owned(), |account| format!("{account}: {purpose}"))
}

/// The lines of the new config that have one of the secrets all the same, in a comment or a URL.
fn still_there(text: &str, moves: &[Move]) -> Vec<usize> {
    let secrets: Vec<_> = moves.iter().map(|one| String::from_utf8_lossy(&one.plain)).collect();
    let has_one = |line: &str| secrets.iter().any(|secret| secret.len() > 5 && line.contains(&**secret));
    text.lines().enumerate().filter(|(_, line)| has_one(line)).map(|(place, _)| place + 1).collect()
}

/// Whether a config has secrets in plain.
pub(super) fn has_plain_secrets(text: &str) -> bool {
    let found = secrets(text, AccountName::flat().as_str());
    found.iter().any(|secret| matches!(secret.form, SecretForm::Inline(_)))
}

/// The inline secrets, each with the file for it.
fn plan(
    settings: &Settings,
    key: &StateKey,
    config: &str,
    found: Vec<PlacedSecret>,
) -> Result<Vec<Move>, Problem> {
    let mut moves: Vec<Move> = Vec::new();
    for PlacedSecret { account, key: purpose, span, form } in found {
        let SecretForm::Inline(secret) = form else { continue };
        let text = secret.expose();
        // A header or a parameter may be a text that would be another one from elsewhere.
        let read = SecretSource::secret_from(text.as_bytes());
        let is_same = read.is_ok_and(|read| !purpose.contains('.') || read == secret);
        if !is_same && !PEM_KEYS.contains(&purpose.as_str()) {
            output::warning(
                format!(
                    "{} stays in the config: only ASCII on one line can be sealed",
                    named(account.as_deref(), &purpose)
                ),
                "keep it elsewhere, if it is a secret",
            );
            continue;
        }
        let plain = Zeroizing::new(text.as_bytes().to_vec());
        let is_taken =
            |name: &str| config.contains(name) || moves.iter().any(|one: &Move| file_name(&one.file) == name);
        let path = free_path(settings, account.as_deref(), &purpose, is_taken);
        let sealed = sealed::seal(key, account.as_deref(), &purpose, &plain)
            .map_err(|NoRandom| Problem::no_random())?;
        moves.push(Move { span, account, purpose, file: path, plain, sealed });
    }
    Ok(moves)
}

/// A path beside the config that the config does not name yet. A file there is one of a broken-off try.
fn free_path(
    settings: &Settings,
    account: Option<&str>,
    purpose: &str,
    is_taken: impl Fn(&str) -> bool,
) -> PathBuf {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._@-".contains(c) { c } else { '_' }).collect()
    };
    let of = account.filter(|_| settings.accounts.len() > 1).map(|account| format!("{}.", plain(account)));
    let stem = format!("{}{}", of.unwrap_or_default(), plain(purpose));
    let mut path = settings.path.with_extension(format!("{stem}.sealed"));
    let mut number = 1_u64;
    while is_taken(&file_name(&path)) {
        number += 1;
        path = settings.path.with_extension(format!("{stem}-{number}.sealed"));
    }
    path
}

fn file_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Opens sealed files as a refresh does, but reads each key once: somebody may have to unlock it.
struct Opener<'a> {
    /// Any: the keys are the same for all.
    account: &'a AccountConfig,
    keys: RefCell<BTreeMap<&'static str, Secret>>,
}

impl<'a> Opener<'a> {
    fn new(settings: &'a Settings) -> Result<Self, Problem> {
        let account = settings.accounts.first().ok_or_else(|| Problem::bug("a config without accounts"))?;
        Ok(Self { account, keys: RefCell::default() })
    }

    fn read_key(&self, name: &'static str, source: &SecretSource) -> Result<Secret, SecretError> {
        if let Some(key) = self.keys.borrow().get(name) {
            return Ok(key.clone());
        }
        let key = crate::secrets::read(name, source, &self.account.secret_variables)?;
        self.keys.borrow_mut().insert(name, key.clone());
        Ok(key)
    }

    fn open(&self, file: &SealedFile) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let opened = sealed::open(file, |name, source| self.read_key(name, source));
        opened.map_err(|source| problem(file, source))
    }

    /// Seals a file with the present key. False if it is so already.
    fn renew(&self, file: &SealedFile) -> Result<bool, Problem> {
        let renewed = sealed::renewed(file, |name, source| self.read_key(name, source));
        let Some(bytes) = renewed.map_err(|source| problem(file, source))? else { return Ok(false) };
        let old = ConfigFile::read(&file.path)?;
        old.replace(&String::from_utf8_lossy(&bytes), old.attributes)?;
        Ok(true)
    }
}

fn problem(file: &SealedFile, source: SealedError) -> Problem {
    SecretError::Sealed { key: "secret in the", path: file.path.clone(), source }.into()
}

/// Shows the change, and asks. The texts are as they may be shown, and have the same lines.
fn is_agreed(path: &Path, before: &str, after: &str, yes: bool) -> bool {
    let lines = before.split_inclusive('\n').zip(after.split_inclusive('\n'));
    let lines = lines.flat_map(|(before, after)| {
        if before == after {
            vec![LineChange::Kept(before)]
        } else {
            vec![LineChange::Removed(before), LineChange::Added(after.to_owned())]
        }
    });
    show(path, &lines.collect::<Vec<_>>());
    let agrees = yes || (prompt::can_ask() && prompt::agree("Make this change? [Y/n] ").unwrap_or(false));
    if !agrees {
        let hint = "pass --yes to make the change without a question";
        output::error("nothing was written: the change was not confirmed", Some(hint));
    }
    agrees
}

/// Reads the sealed files, and those that the new config names, as a refresh reads them.
fn prove(settings: &Settings, moves: &[Move], opener: &Opener<'_>) -> Result<(), Problem> {
    let differs = |path: &Path| {
        Problem::of(Class::Io, KEY, format!("the sealed file {} reads differently", path.display()))
            .hint("check its file system: df, dmesg; the config was not changed")
    };
    for one in moves {
        let stored = Contents::of_path(&one.file, config::MAX_LEN).map_err(ReplaceError::from)?;
        if stored.is_none_or(|stored| *stored.bytes != one.sealed) {
            return Err(differs(&one.file));
        }
    }
    for (_, file) in sealed_files(settings) {
        let read = opener.open(file)?;
        if moves.iter().any(|one| one.file == file.path && *one.plain != *read) {
            return Err(differs(&file.path));
        }
    }
    Ok(())
}

/// The sealed files of a config, each with an account that reads it.
fn sealed_files(settings: &Settings) -> impl Iterator<Item = (&AccountConfig, &SealedFile)> {
    let all = settings.accounts.iter().flat_map(|account| {
        account.secrets().filter_map(move |(_, source)| match source {
            SecretSource::Sealed(file) => Some((&**account, &**file)),
            _ => None,
        })
    });
    let mut seen = BTreeSet::new();
    all.filter(move |(_, file)| seen.insert(file.path.as_path()))
}

/// Seals the files with the present key that are sealed with the one before it.
pub(super) fn reseal(settings: &Settings) -> Exit {
    let Ok(opener) = Opener::new(settings) else { return Exit::Success };
    let exits = sealed_files(settings).map(|(account, file)| match opener.renew(file) {
        Ok(is_new) => {
            if is_new {
                output::print_line(format!("{}: sealed with state_key", file.path.display()));
            }
            Exit::Success
        }
        Err(problem) => report(account, &problem),
    });
    Exit::worst(exits.collect::<Vec<_>>())
}

/// Takes the secrets back into the config. The sealed files stay.
pub(super) fn remove(settings: &Settings, yes: bool) -> Result<Exit, Problem> {
    let file = ConfigFile::read(&settings.path)?;
    let opener = Opener::new(settings)?;
    let known: BTreeMap<_, _> = sealed_files(settings).map(|(_, file)| (&*file.path, file)).collect();
    let (mut changes, mut shown, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for secret in secrets(&file.text, AccountName::flat().as_str()) {
        let SecretForm::Sealed { file: name, is_inline_table } = secret.form else { continue };
        let path = settings.path.parent().unwrap_or(Path::new("")).join(&name);
        let odd = |what: &str, hint: &str| {
            Problem::of(
                Class::Config,
                KEY,
                format!("{} {what}", named(secret.account.as_deref(), &secret.key)),
            )
            .hint(hint)
        };
        let Some(file) = known.get(&*path) else {
            return Err(odd("is read by no account", "remove its line from the config"));
        };
        if !is_inline_table {
            let hint = "write it as KEY = { sealed = \"FILE\" }, and run the command again";
            return Err(odd("is not written as an inline table", hint));
        }
        let plain = opener.open(file)?;
        changes.push((secret.span.clone(), quoted(&String::from_utf8_lossy(&plain))));
        shown.push((secret.span, HIDDEN.to_owned()));
        left.push(path);
    }
    if changes.is_empty() {
        output::print_line(format!("{} has no sealed secrets", settings.path.display()));
        return Ok(Exit::Success);
    }
    let text = replaced(&file.text, &changes);
    parse(settings, &text)?;
    if !is_agreed(&settings.path, &file.text, &replaced(&file.text, &shown), yes) {
        return Ok(Exit::Usage);
    }
    file.replace(&text, Attributes { mode: file.attributes.mode & 0o770, ..file.attributes })?;
    for path in left {
        output::print_line(format!(
            "took the secret of {} back; the file is not used any more",
            path.display()
        ));
    }
    // The config itself has these secrets again.
    let copy = plain_copy::path(&settings.path);
    if std::fs::remove_file(&copy).is_ok() {
        output::print_line(format!("removed {}", copy.display()));
    }
    Ok(Exit::Success)
}
