//! The certificates of a client: read, and their days judged.

use std::path::Path;
use std::time::Duration;

use crate::files;
use crate::message::duration;
use crate::problem::{Class, Problem};
use crate::signing::certificate::{Certificate, NotACertificate};

/// The longest file: a chain of a dozen.
const MAX_LEN: usize = 256 << 10;

/// How long before its end a certificate is worth a warning, in seconds: authorities take days.
const NOTICE: i64 = 14 * 86_400;

/// The next step after [`certificate_fault`].
pub const RENEW: &str =
    "renew it, and register it if the server wants that: a new one is used as soon as it is there";

/// The text of a file of certificates, and the first one in it.
pub fn read_certificate(key: &str, path: &Path) -> Result<(String, Certificate), Problem> {
    let problem =
        |class, message: String, hint: String| Problem::of(class, "certificate", message).hint(hint);
    let contents = files::read::read(path, MAX_LEN).map_err(|error| {
        let hint = format!("check that `cat {}` can read it", path.display());
        let problem = problem(Class::Unavailable, format!("cannot read {key} {}", path.display()), hint);
        Problem { cause: Some(error.to_string()), ..problem }
    })?;
    let found = Certificate::from_pem(&contents.bytes).map_err(|error| {
        let message = format!("{key} {} {error}", path.display());
        problem(Class::Config, message, NotACertificate::HINT.into())
    })?;
    Ok((String::from_utf8_lossy(&contents.bytes).into_owned(), found))
}

/// The problem with the dates of a certificate, if there is one; `now` is in Unix seconds.
pub fn certificate_fault(key: &str, path: &Path, certificate: &Certificate, now: i64) -> Option<String> {
    let span = |seconds: i64| duration(Duration::from_secs(seconds.unsigned_abs()));
    let path = path.display();
    let left = certificate.ends_at - now;
    Some(match certificate.starts_at - now {
        wait @ 1.. => format!("the {key} {path} is not valid yet: it begins in {}", span(wait)),
        _ if left <= 0 => format!("the {key} {path} ended {} ago", span(left)),
        _ if left <= NOTICE => format!("the {key} {path} ends in {}", span(left)),
        _ => return None,
    })
}
