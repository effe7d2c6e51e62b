//! A secret of the config in a file of its own, sealed with the state_key.
//!
//! The file is JSON: the account and the key of the config that it was sealed for, and the seal, which is
//! bound to both. It may lie beside the config, and in backups.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cipher::{NoRandom, StateKey};
use crate::config::{SealedFile, SecretSource};
use crate::files::read;
use crate::secret::Secret;
use crate::secrets::error::{MAX_LEN, SealedError, SecretError};

/// The format, for the binding of a seal.
const FORMAT: &str = "zg-tokend secret 1";

/// The longest sealed file: base64 takes a third more.
const FILE_MAX: usize = 2 * MAX_LEN;

/// The content of a sealed file.
#[derive(Serialize, Deserialize)]
struct Content {
    format: String,
    /// Absent if it is for all accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    key: String,
    sealed: String,
}

impl Content {
    fn binding(&self) -> String {
        binding(self.account.as_deref(), &self.key)
    }
}

/// The name of an account is never empty, so that the empty one stands for all accounts.
fn binding(account: Option<&str>, key: &str) -> String {
    format!("{FORMAT}\0{}\0{key}", account.unwrap_or_default())
}

/// The bytes of a sealed file. `account` is `None` for a secret of all accounts; `key` is the key in the
/// config, with the name in its table.
pub fn seal(key: &StateKey, account: Option<&str>, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, NoRandom> {
    let content = Content {
        format: FORMAT.to_owned(),
        account: account.map(str::to_owned),
        key: purpose.to_owned(),
        sealed: key.seal(FORMAT, &binding(account, purpose), plain)?,
    };
    let mut bytes = serde_json::to_vec_pretty(&content).unwrap_or_default();
    bytes.push(b'\n');
    Ok(bytes)
}

/// The plain text. `read_key` reads the keys of the config, as far as they are needed.
pub fn open(file: &SealedFile, read_key: impl ReadKey) -> Result<Zeroizing<Vec<u8>>, SealedError> {
    Ok(open_with(file, read_key)?.plain)
}

/// The file sealed anew with the first of the keys; `None` if it is sealed with that.
pub fn renewed(file: &SealedFile, read_key: impl ReadKey) -> Result<Option<Vec<u8>>, SealedError> {
    let Opened { content, plain, is_first } = open_with(file, &read_key)?;
    let first = file.state_keys.first().filter(|_| !is_first);
    let renew = |(name, source): &(&'static str, SecretSource)| {
        let key = key(name, source, &read_key)?;
        seal(&key, content.account.as_deref(), &content.key, &plain).map_err(|NoRandom| SealedError::Random)
    };
    first.map(renew).transpose()
}

/// Reads a key of the config.
pub trait ReadKey: Fn(&'static str, &SecretSource) -> Result<Secret, SecretError> {}

impl<F: Fn(&'static str, &SecretSource) -> Result<Secret, SecretError>> ReadKey for F {}

struct Opened {
    content: Content,
    plain: Zeroizing<Vec<u8>>,
    /// By the first key.
    is_first: bool,
}

fn open_with(file: &SealedFile, read_key: impl ReadKey) -> Result<Opened, SealedError> {
    let contents = read::read(&file.path, FILE_MAX).map_err(SealedError::Read)?;
    let content: Content = serde_json::from_slice(&contents.bytes).map_err(|_| SealedError::NotSealed)?;
    if content.format != FORMAT {
        return Err(SealedError::NotSealed);
    }
    let is_for_it = content.account.as_ref().is_none_or(|account| file.accounts.contains(account));
    if !is_for_it || content.key != file.purpose {
        let account = content.account.map_or_else(String::new, |account| format!(" of account {account}"));
        return Err(SealedError::OtherPurpose { purpose: format!("{}{account}", content.key) });
    }
    if file.state_keys.is_empty() {
        return Err(SealedError::NoKey);
    }
    for (place, (name, source)) in file.state_keys.iter().enumerate() {
        let key = key(name, source, &read_key)?;
        if let Some(plain) = key.open(FORMAT, &content.binding(), &content.sealed) {
            return Ok(Opened { content, plain, is_first: place == 0 });
        }
    }
    Err(SealedError::WrongKey)
}

fn key(name: &'static str, source: &SecretSource, read_key: &impl ReadKey) -> Result<StateKey, SealedError> {
    let text = read_key(name, source).map_err(|error| SealedError::KeyUnread(Box::new(error)))?;
    StateKey::new(text).map_err(|source| SealedError::NotAKey { name, source })
}
