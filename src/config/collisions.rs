//! The rules between accounts: they share no login and no file, and a file that is written is no input.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::settings::{AccountConfig, AccountName};
use crate::config::source::SecretSource;

/// An account with the places of the values that are compared between accounts.
pub(super) struct Checked {
    /// Of no other owner. The list of all accounts is small so: glibc keeps free memory of twice the largest
    /// piece that was ever given back.
    pub(super) account: Arc<AccountConfig>,
    pub(super) refresh_token: Range<usize>,
    pub(super) token_file: Range<usize>,
    /// Of the paths of `outputs`.
    pub(super) outputs: Vec<Range<usize>>,
}

/// Where a path leads to.
type Real<'a> = &'a dyn Fn(&Path) -> PathBuf;

/// Makes accounts of one refresh token use the login of the first: each would invalidate the other's. They
/// have the same client at the same server, and ask for different access tokens.
pub(super) fn share(checked: &mut [Checked], real: Real<'_>) {
    let mut shared = Vec::new();
    let mut seeds = HashMap::new();
    for (place, Checked { account, .. }) in checked.iter().enumerate() {
        let Some(seed) = account.refresh_token.as_ref().filter(|_| account.from.is_none()) else { continue };
        match seeds.entry(identity(seed, real)) {
            Entry::Vacant(first) => drop(first.insert((place, &**account))),
            Entry::Occupied(first) => {
                let (first, login) = *first.get();
                // Others are an error.
                if is_same_login(login, account) && !asks_for_the_same(login, account) {
                    shared.push((place, first));
                }
            }
        }
    }
    for (place, first) in shared {
        let from = checked[first].account.name.clone();
        Arc::make_mut(&mut checked[place].account).from = Some(from);
    }
}

fn is_same_login(one: &AccountConfig, other: &AccountConfig) -> bool {
    one.endpoint == other.endpoint
        && one.elsewhere == other.elsewhere
        && one.issuer == other.issuer
        && one.login == other.login
        && one.client_id == other.client_id
        && one.client_secret == other.client_secret
        && one.auth_method == other.auth_method
        && one.grant == other.grant
        && one.request_body == other.request_body
}

fn asks_for_the_same(one: &AccountConfig, other: &AccountConfig) -> bool {
    one.scope == other.scope
        && one.audience == other.audience
        && one.resource == other.resource
        && one.extra_params == other.extra_params
}

pub(super) fn refuse(
    checked: &[Checked],
    state_dir: &Path,
    config_file: &Path,
    real: Real<'_>,
) -> Result<(), ConfigProblem> {
    let (config_file, state_dir) = (real(config_file), real(state_dir));
    let inputs = input_files(checked, real);
    let mut token_files = HashMap::new();
    let mut seeds = HashMap::new();
    for Checked { account, refresh_token, token_file, outputs } in checked {
        let info_file = account.token_file_info.then(|| account.token_file.info_file().path);
        let own = [(Some(account.token_file.path.clone()), "is"), (info_file, "with .json after it is")];
        let own = own.into_iter().filter_map(|(path, what)| Some(("token_file", path?, what, token_file)));
        let outputs = account.outputs.iter().zip(outputs);
        let outputs = outputs.map(|(output, span)| ("outputs.path", output.file.path.clone(), "is", span));
        for (key, path, what, span) in own.chain(outputs) {
            let path = real(&path);
            let clash = |other: &str| {
                let hint = format!("choose another path than {} for the access token", path.display());
                Err(bad_value(key, span.clone(), format!("{what} also {other}"), hint))
            };
            if path == config_file {
                return clash("the config file");
            }
            if path.starts_with(&state_dir) {
                let hint = "choose a path outside state_dir, which only zg-tokend writes to";
                return Err(bad_value(key, span.clone(), "is inside state_dir", hint));
            }
            if let Some((input, other)) = inputs.get(&path) {
                return clash(&format!("the {input} of account `{other}`"));
            }
            if let Some((earlier, other)) = token_files.insert(path.clone(), (key, &account.name)) {
                return clash(&match (earlier, key) {
                    ("token_file", "token_file") => format!("that of account `{other}`"),
                    ("token_file", _) => format!("the token_file of account `{other}`"),
                    _ => format!("the path of an output of account `{other}`"),
                });
            }
        }
        if account.from.is_none()
            && let Some(seed) = &account.refresh_token
            && let Some(earlier) = seeds.insert(identity(seed, real), account)
        {
            let what = format!("is also that of account `{}`", earlier.name);
            let hint = if is_same_login(earlier, account) {
                "write one account, and the other files for its token as outputs; or another scope, audience or resource"
            } else {
                "log in once for each account: with one login they would invalidate each other's token"
            };
            return Err(bad_value("refresh_token", refresh_token.clone(), what, hint));
        }
    }
    Ok(())
}

/// The files that accounts read: by which key, and of which account.
fn input_files<'a>(
    checked: &'a [Checked],
    real: Real<'_>,
) -> HashMap<PathBuf, (&'static str, &'a AccountName)> {
    let mut files = HashMap::new();
    for Checked { account, .. } in checked {
        let secrets = account.secrets().filter_map(|(key, source)| Some((key, source.file()?)));
        for (key, file) in account.ca_file.iter().map(|file| ("ca_file", file.as_path())).chain(secrets) {
            files.entry(real(file)).or_insert((key, &account.name));
        }
    }
    files
}

/// Equal for sources of the same secret.
fn identity<'a>(source: &'a SecretSource, real: Real<'_>) -> Cow<'a, SecretSource> {
    match source {
        SecretSource::File(file) => Cow::Owned(SecretSource::File(real(file))),
        other => Cow::Borrowed(other),
    }
}
