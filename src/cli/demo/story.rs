//! What happens, in words, and what it comes to. Pure.

use std::time::Duration;

use crate::cli::demo::outage::Change;
use crate::cli::demo::stage::Read;
use crate::message::{Level, duration, words};
use crate::refresh::outcome::{Outcome, Report};

/// How an event is to be felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it comes.
    Plain,
    /// All is well.
    Good,
    /// Something to look at.
    Care,
    /// What must not be.
    Bad,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// How it feels.
    pub(super) tone: Tone,
    /// In a sentence, lower case, without secrets.
    pub(super) text: String,
}

impl Event {
    /// An event in words.
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    refreshes: u64,
    /// Failed refreshes since the last good one.
    failures: u32,
    survived: u32,
    reads: u64,
    refused: u64,
    /// The last read was refused.
    refusing: bool,
    /// The number of the present token, and when it expires: milliseconds since the start.
    token: Option<(u64, i64)>,
}

impl Story {
    /// The supervisor has said something; what is only worth a debug line is not told.
    pub(super) fn hear(&mut self, report: &Report, now: i64) -> Option<Event> {
        match report {
            Report::TookSeed(_) => {
                Some(Event::new(Tone::Plain, "the supervisor found a refresh token in the config"))
            }
            Report::Finished(Outcome::Refreshed { generation, remaining, .. }) => {
                self.refreshes += 1;
                self.token = Some((*generation, now + remaining.as_millis() as i64));
                let lives = format!("token {generation} is in the file and lives {}", up(*remaining));
                let recovered = std::mem::take(&mut self.failures) > 0;
                self.survived += u32::from(recovered);
                let how = if recovered { "recovered" } else { "refreshed" };
                Some(Event::new(Tone::Good, format!("{how}: {lives}")))
            }
            Report::Finished(Outcome::Failed(problem)) => {
                self.failures += 1;
                let left = self.token.map(|(generation, expires_at)| {
                    let left = Duration::from_millis((expires_at - now).max(0).cast_unsigned());
                    format!("; token {generation} lives on for {}", up(left))
                });
                let left = left.unwrap_or_default();
                Some(Event::new(Tone::Care, format!("refresh failed: {}{left}", problem.message)))
            }
            report => {
                let words = words(report);
                let tone = if words.level > Level::Warn { Tone::Plain } else { Tone::Bad };
                (words.level <= Level::Info).then(|| Event::new(tone, words.text))
            }
        }
    }

    /// The server goes down or comes back.
    pub(super) fn weather(change: Change) -> Event {
        match change {
            Change::Down => {
                Event::new(Tone::Care, "the server is down, on purpose: what becomes of the token?")
            }
            Change::Up => Event::new(Tone::Plain, "the server is up again: the next try will find out"),
        }
    }

    /// A client has read the token file and used the token.
    pub(super) fn read(&mut self, read: Read) -> Option<Event> {
        let why = match read {
            // Before the first token there is nothing to be read.
            Read::Missing if self.reads == 0 => return None,
            Read::Missing => Some("the token file is gone"),
            Read::Refused(why) => Some(why),
            Read::Accepted => None,
        };
        self.reads += 1;
        self.refused += u64::from(why.is_some());
        let first = why.is_some() && !self.refusing;
        self.refusing = why.is_some();
        why.filter(|_| first).map(|why| Event::new(Tone::Bad, format!("a read was refused: {why}")))
    }

    /// How many reads were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// The count of reads, for the reader.
    pub(super) fn reads_in_words(&self) -> String {
        format!("{} reads of the token file, {} refused", self.reads, self.refused)
    }

    /// What it came to.
    pub(super) fn summary(&self) -> Vec<String> {
        let counted = |count: u64, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let outages = match self.survived {
            0 if self.failures > 0 => "1 outage, not over yet".to_owned(),
            0 => "no outage: that takes a demo of 12 s or more".to_owned(),
            survived => counted(
                survived.into(),
                "outage survived: the token in the file stayed live",
                "outages survived: the token in the file stayed live",
            ),
        };
        vec![
            counted(self.refreshes, "refresh", "refreshes"),
            outages,
            format!("{} reads by a client, {} refused", self.reads, self.refused),
        ]
    }
}

/// In whole seconds, rounded up: a token of 12 s is not called one of 11 s a moment after.
fn up(left: Duration) -> String {
    duration(Duration::from_secs(left.as_millis().div_ceil(1000) as u64))
}

#[cfg(test)]
mod tests {
    use crate::cli::demo::story::*;
    use crate::problem::{Class, Problem};
    use crate::secret::Secret;

    fn refreshed(generation: u64) -> Report {
        let (remaining, took) = (Duration::from_secs(12), Duration::from_millis(3));
        Report::Finished(Outcome::Refreshed { generation, remaining, took })
    }

    fn failed() -> Report {
        Report::Finished(Outcome::Failed(Problem {
            class: Class::Unavailable,
            kind: "http_503".into(),
            message: "HTTP 503".into(),
            hint: None,
        }))
    }

    #[test]
    fn an_outage_is_told_and_counted() {
        let mut story = Story::default();
        let mut tell = |report: &Report, now| story.hear(report, now).unwrap().text;
        assert_eq!(tell(&refreshed(1), 0), "refreshed: token 1 is in the file and lives 12 s");
        assert_eq!(tell(&failed(), 6000), "refresh failed: HTTP 503; token 1 lives on for 6 s");
        assert_eq!(story.summary()[1], "1 outage, not over yet");
        let mut tell = |report: &Report, now| story.hear(report, now).unwrap().text;
        assert_eq!(tell(&refreshed(2), 8000), "recovered: token 2 is in the file and lives 12 s");
        assert_eq!(
            story.summary(),
            [
                "2 refreshes",
                "1 outage survived: the token in the file stayed live",
                "0 reads by a client, 0 refused"
            ]
        );
    }

    #[test]
    fn a_refused_read_is_told_once_and_counted_always() {
        let mut story = Story::default();
        assert_eq!(story.read(Read::Missing), None);
        assert_eq!(story.read(Read::Accepted), None);
        let told = story.read(Read::Missing).unwrap();
        assert_eq!(
            (told.tone, told.text.as_str()),
            (Tone::Bad, "a read was refused: the token file is gone")
        );
        assert_eq!(story.read(Read::Refused("dead")), None);
        assert_eq!(story.reads_in_words(), "3 reads of the token file, 2 refused");
    }

    #[test]
    fn no_fingerprint_is_shown() {
        let report = Report::TookSeed(Secret::new("rt").fingerprint());
        assert_eq!(
            Story::default().hear(&report, 0).unwrap().text,
            "the supervisor found a refresh token in the config"
        );
    }
}
