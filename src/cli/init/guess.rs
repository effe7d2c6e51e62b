//! A URL is taken for an issuer or for a token endpoint. The guess is stated, and tried by a GET, which
//! spends nothing.

use std::time::Duration;

use url::Url;

use crate::cli::output::printable;
use crate::http::{HttpEndpoint, HttpOptions, discovery};
use crate::problem::chain;
use crate::runtime::event_loop;

/// Somebody waits for the next question.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The guess may be wrong.
pub(super) struct WrongGuess {
    pub(super) message: String,
    pub(super) cause: String,
    pub(super) hint: String,
}

/// Names the key of the config that the URL is taken for, with the answer of the server unless `offline`.
pub(super) fn prove(key: &str, url: &str, offline: bool) -> Result<String, WrongGuess> {
    if offline {
        return Ok(format!("taken as the {}", noun(key)));
    }
    let runtime = event_loop().map_err(|error| wrong(key, &error.to_string(), None))?;
    let endpoint = HttpEndpoint::new(HttpOptions { timeout: TIMEOUT, ..HttpOptions::default() });
    let said = runtime.block_on(async {
        if key == "issuer" {
            let found = discovery::fetch(&endpoint, url).await;
            let found = found.map_err(|error| wrong(key, &chain(&error), error.hint()))?;
            return Ok(format!("taken as the issuer: its token endpoint is {}", found.token_endpoint));
        }
        let url = Url::parse(url).map_err(|error| wrong(key, &error.to_string(), None))?;
        match endpoint.get(&url).await {
            Ok(reply) if reply.status != 404 => {
                Ok(format!("taken as the token endpoint: it answers (HTTP {})", reply.status))
            }
            Ok(_) => Err(wrong(key, "it answers HTTP 404", None)),
            Err(failure) => Err(wrong(key, &failure.detail, failure.kind.hint().map(str::to_owned))),
        }
    });
    // Do not wait for a name lookup that is still running.
    runtime.shutdown_background();
    said.map(|said| printable(&said))
}

fn wrong(key: &str, why: &str, hint: Option<String>) -> WrongGuess {
    let hint = hint.unwrap_or_else(|| "check the URL for mistakes".into());
    let message = format!("taken as the {}, which does not work", noun(key));
    WrongGuess { message, cause: why.to_owned(), hint }
}

fn noun(key: &str) -> &str {
    if key == "issuer" { "issuer" } else { "token endpoint" }
}
