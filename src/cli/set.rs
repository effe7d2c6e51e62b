//! `zg-tokend set`

use std::io::{BufRead, Read};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::args::{Args, Once, Set};
use super::{once, report, settings, the_account, voice};
use crate::config::SecretSource;
use crate::exit::Exit;
use crate::secret::Secret;
use crate::shell::set::{Given, set as store};
use crate::shell::words::duration;

/// The longest token that is read.
const TOKEN_MAX: u64 = 64 * 1024;

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
        Some(expires_in) => Given::AccessToken { value: token, expires_in },
        None => Given::RefreshToken(token),
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
    let stdin = std::io::stdin();
    let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_MAX as usize + 1));
    let hidden = Hidden::begin(what);
    let mut input = stdin.lock().take(TOKEN_MAX + 1);
    let read = match hidden {
        Some(_) => input.read_until(b'\n', &mut bytes),
        None => input.read_to_end(&mut bytes),
    };
    drop(hidden);
    read.map_err(|error| format!("cannot read the {what}: {error}"))?;
    if bytes.len() as u64 > TOKEN_MAX {
        return Err(format!("the {what} is longer than any token"));
    }
    SecretSource::secret_from(&bytes).map_err(|unusable| format!("the {what} {unusable}"))
}

/// A terminal that does not show what is typed, until it is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    /// Asks for it; `None` if stdin is no terminal.
    fn begin(what: &str) -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        voice::ask(format!("{what} (not shown): "));
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).ok()?;
        Some(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
        voice::ask("\n");
    }
}
