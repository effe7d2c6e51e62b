//! `zg-tokend set`

use super::args::{Args, Once, Set};
use super::{once, prompt, report, settings, the_account, voice};
use crate::exit::Exit;
use crate::secret::Secret;
use crate::shell::set::{Given, set as store};
use crate::shell::words::duration;

/// Stores a token from stdin, then refreshes what is due by it.
pub(super) fn set(args: &Args, flags: &Set) -> Exit {
    let Some(settings) = settings(args) else { return Exit::Config };
    let account = match the_account(&settings, args) {
        Ok(account) => account,
        Err(exit) => return exit,
    };
    let token = match read(if flags.access_token { "access token" } else { "refresh token" }) {
        Ok(token) => token,
        Err(problem) => {
            voice::failure(problem, Some("give the token on stdin, and nothing else"));
            return Exit::Usage;
        }
    };
    let given = match flags.expires_in {
        Some(expires_in) => Given { access_token: Some((token, expires_in)), ..Given::default() },
        None => Given { refresh_token: Some(token), ..Given::default() },
    };
    if let Err(trouble) = store(&settings, account, given) {
        return report(account, &trouble);
    }
    if let Some(expires_in) = flags.expires_in {
        let left = duration(expires_in);
        voice::say(format!(
            "{}: the token is in {}, for {left}",
            account.name,
            account.token_file.path.display()
        ));
        return Exit::Success;
    }
    once::pass(&settings, Some(account.name.as_str()), &Once::default())
}

/// The token on stdin, without the white space around it. On a terminal it is not shown.
pub(super) fn read(what: &str) -> Result<Secret, String> {
    if prompt::can_ask() {
        return prompt::hidden(what)?.ok_or_else(|| format!("the {what} is empty"));
    }
    prompt::piped(what)
}
