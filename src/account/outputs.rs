//! The files that an access token goes to: the token file, the info file beside it, and `outputs`.
//!
//! The token file is the one that decides: it is prepared before a request, and a pass fails with it.
//! Another output that fails is reported, and stops nothing.

use std::sync::Arc;

use crate::account::info_file::Info;
use crate::account::origin;
use crate::account::token_file::{Observation, Prepared, PublishError};
use crate::clock::{Clock, SystemClock};
use crate::config::{AccountConfig, NoIdToken, OutputConfig, TokenFile, TokenFormat, Values, WriteMode};
use crate::problem::{Class, Problem};
use crate::refresh::decide::{FileView, Origin};
use crate::refresh::record::{AccessToken, Record};
use crate::refresh::stored::StoredSecret;
use crate::secret::Secret;

#[derive(Debug)]
pub struct Outputs {
    account: Arc<AccountConfig>,
    /// The token file's next version, ready before the request is made.
    prepared: Option<Prepared>,
    /// The same of the outputs that could be prepared, each with its index.
    others: Vec<(usize, Prepared)>,
}

impl Outputs {
    pub fn new(account: &Arc<AccountConfig>) -> Self {
        Self { account: Arc::clone(account), prepared: None, others: Vec::new() }
    }

    /// Creates the next version of each file. An output that fails is tried again, and reported, when
    /// there is a token for it.
    pub fn prepare(&mut self) -> Result<(), Problem> {
        self.prepared = Some(self.account.token_file.prepare()?);
        let outputs = self.account.outputs.iter().enumerate();
        self.others =
            outputs.filter_map(|(index, output)| Some((index, output.file.prepare().ok()?))).collect();
        Ok(())
    }

    /// Removes the temporaries of killed processes, which do no harm: no reason to fail.
    pub fn sweep(&self) {
        for prepared in self.prepared.iter().chain(self.others.iter().map(|(_, prepared)| prepared)) {
            let _ = prepared.sweep();
        }
    }

    /// Removes the prepared files.
    pub fn forget(&mut self) {
        (self.prepared, self.others) = (None, Vec::new());
    }

    /// Writes the token into all files that do not hold it. Returns the problems of outputs.
    pub fn publish(
        &mut self,
        token: &AccessToken,
        generation: u64,
        origin: Option<Origin>,
    ) -> Result<Vec<Problem>, Problem> {
        let account = Arc::clone(&self.account);
        let prepared = self.prepared.take();
        if prepared.is_some() || !holds(&account, &account.token_file, &account.token_format, token) {
            let content = content(&account, &account.token_format, token)?;
            let note = origin.map(|origin| origin::note(&account, origin, &content));
            prepared.map_or_else(|| account.token_file.prepare(), Ok)?.publish(&content, note.as_deref())?;
        }
        let mut failed = Vec::new();
        for (index, output) in account.outputs.iter().enumerate() {
            let place = self.others.iter().position(|(prepared, _)| *prepared == index);
            let prepared = place.map(|place| self.others.swap_remove(place).1);
            if prepared.is_none() && holds(&account, &output.file, &output.format, token) {
                continue;
            }
            if let Err(problem) = write(&account, output, prepared, token) {
                let message = format!("cannot write the output {}", output.file.path.display());
                failed.push(Problem { kind: "output".into(), ..problem.within(message) });
            }
        }
        // Last: it has the hashes of the others.
        if let Some((file, info)) = self.info(token, generation)
            && !file.observe().holds(&info)
        {
            file.prepare()?.publish(&info, None)?;
        }
        Ok(failed)
    }

    /// Removes every file that holds this token.
    pub fn withdraw(&self, token: &AccessToken) -> Result<(), Problem> {
        let account = &self.account;
        let mut result = Ok(());
        for OutputConfig { file, format } in &account.outputs {
            if holds(account, file, format, token) {
                result = result.and(file.remove());
            }
        }
        if holds(account, &account.token_file, &account.token_format, token) {
            account.token_file.remove()?;
            self.info_file().as_ref().map_or(Ok(()), TokenFile::remove)?;
        }
        Ok(result?)
    }

    /// Removes every file, whatever it holds. One that is a mount point cannot be removed and becomes
    /// empty.
    pub fn remove(&self) -> Result<(), Problem> {
        let info_file = self.info_file();
        let outputs = self.account.outputs.iter().map(|output| &output.file);
        let files = outputs.chain([&self.account.token_file]).chain(&info_file);
        for file in files.filter(|file| file.path.symlink_metadata().is_ok()) {
            match file.write {
                WriteMode::Replace => file.remove()?,
                WriteMode::InPlace => file.prepare()?.publish(&Secret::new(""), None)?,
            }
        }
        Ok(())
    }

    /// The token file as it is.
    pub fn observe(&self) -> Observation {
        self.account.token_file.observe()
    }

    /// The token file that was seen, and the other files as they are, beside the newest token.
    pub fn view(&self, seen: &Observation, record: Option<&Record>, is_garbage: bool) -> FileView {
        let account = &self.account;
        let token = record.and_then(|record| record.access_token.as_ref());
        let generation = record.map_or(0, |record| record.generation);
        let Some(token) = token.filter(|token| matches(account, &account.token_format, token, seen)) else {
            return other(account, seen, record, is_garbage);
        };
        let is_complete =
            account.outputs.iter().all(|output| holds(account, &output.file, &output.format, token))
                && self.info(token, generation).is_none_or(|(file, info)| file.observe().holds(&info));
        if is_complete { FileView::Current } else { FileView::Incomplete }
    }

    fn info_file(&self) -> Option<TokenFile> {
        self.account.token_file_info.then(|| self.account.token_file.info_file())
    }

    /// The info file, and its content for the files as they are.
    fn info(&self, token: &AccessToken, generation: u64) -> Option<(TokenFile, Secret)> {
        let file = self.info_file()?;
        let account = &self.account;
        let outputs =
            account.outputs.iter().map(|output| (output.file.path.as_path(), output.file.observe()));
        let info = Info::new(account, generation, token, &account.token_file.observe(), outputs);
        Some((file, info.render()))
    }
}

/// A token file that does not hold the newest token.
pub fn other(
    account: &AccountConfig,
    seen: &Observation,
    record: Option<&Record>,
    is_garbage: bool,
) -> FileView {
    match seen {
        Observation::Missing => FileView::Missing,
        Observation::Holds { modified_at, .. } => {
            let generation = record.map_or(0, |record| record.generation);
            let ahead = origin::ahead(account, seen, record, generation).filter(|_| !is_garbage);
            ahead.map_or(FileView::Other { modified_at: *modified_at }, FileView::Ahead)
        }
        // The next publication reports the reason.
        Observation::Unreadable(_) => FileView::Other { modified_at: 0 },
    }
}

fn write(
    account: &AccountConfig,
    output: &OutputConfig,
    prepared: Option<Prepared>,
    token: &AccessToken,
) -> Result<(), Problem> {
    let content = content(account, &output.format, token)?;
    Ok(prepared.map_or_else(|| output.file.prepare(), Ok)?.publish(&content, None)?)
}

fn holds(account: &AccountConfig, file: &TokenFile, format: &TokenFormat, token: &AccessToken) -> bool {
    matches(account, format, token, &file.observe())
}

/// Whether a file with this content holds the token. The seconds left in it were right when it was
/// written, which the file's time shows, to the second.
pub fn matches(
    account: &AccountConfig,
    format: &TokenFormat,
    token: &AccessToken,
    seen: &Observation,
) -> bool {
    let Observation::Holds { modified_at, .. } = seen else { return false };
    let written_at = modified_at.div_euclid(1000);
    let steps = if format.is_timed() { -2..=1 } else { 0..=0 };
    let mut contents =
        steps.filter_map(|step| render(account, format, token, written_at.saturating_add(step)).ok());
    contents.any(|content| seen.holds(&content))
}

fn content(account: &AccountConfig, format: &TokenFormat, token: &AccessToken) -> Result<Secret, Problem> {
    Ok(render(account, format, token, SystemClock::new().now().wall / 1000)?)
}

/// The text of a format at `now`, Unix seconds.
pub fn render(
    account: &AccountConfig,
    format: &TokenFormat,
    token: &AccessToken,
    now: i64,
) -> Result<Secret, NoIdToken> {
    format.render(&values(account, token, now))
}

pub fn values<'a>(account: &'a AccountConfig, token: &'a AccessToken, now: i64) -> Values<'a> {
    Values {
        access_token: &token.value,
        token_type: &token.token_type,
        id_token: token.id_token.as_ref().and_then(StoredSecret::open),
        // A server that states no scope has granted the requested one (RFC 6749 section 5.1).
        scope: token.scope.as_deref().or(account.scope.as_deref()).unwrap_or_default(),
        account: account.name.as_str(),
        expires_at: token.expires_at().wall / 1000,
        now,
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        Self::new(&error, error.class(), "token_file", error.hint())
    }
}

impl From<NoIdToken> for Problem {
    fn from(error: NoIdToken) -> Self {
        Self::new(&error, Class::Config, "no_id_token", Some(NoIdToken::HINT.into()))
    }
}
