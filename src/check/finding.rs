//! The result of one check.

use std::error::Error;

use serde::Serialize;
use serde_with_macros::skip_serializing_none;

use crate::config::AccountConfig;
use crate::problem::{Problem, cause};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    Ok,
    /// It works, and should be looked at.
    Warning,
    /// It will not work.
    Problem,
}

/// The result of one check.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: FindingLevel,
    /// Name of the account; absent for what all accounts share.
    pub account: Option<String>,
    /// Mostly a key of the config.
    pub subject: &'static str,
    /// Without secrets.
    pub message: String,
    pub cause: Option<String>,
    pub hint: Option<String>,
}

impl Finding {
    pub fn new(
        level: FindingLevel,
        subject: &'static str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        Self { level, account: None, subject, message: message.into(), cause: None, hint }
    }

    pub fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(FindingLevel::Ok, subject, message, None)
    }

    pub fn warning(subject: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(FindingLevel::Warning, subject, message, Some(hint.into()))
    }

    pub fn problem(subject: &'static str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self::new(FindingLevel::Problem, subject, message, hint)
    }

    /// An error of a module, with its causes.
    pub fn error(subject: &'static str, error: &dyn Error, hint: Option<String>) -> Self {
        Self { cause: cause(error), ..Self::problem(subject, error.to_string(), hint) }
    }

    /// A problem of an account.
    pub fn of_problem(subject: &'static str, problem: Problem) -> Self {
        Self { cause: problem.cause, ..Self::problem(subject, problem.message, problem.hint) }
    }

    /// True if it tells this problem.
    pub fn tells(&self, problem: &Problem) -> bool {
        self.message == problem.message && self.cause == problem.cause
    }

    #[must_use]
    pub fn because(self, cause: Option<String>) -> Self {
        Self { cause, ..self }
    }

    pub fn of(self, account: &AccountConfig) -> Self {
        Self { account: Some(account.name.to_string()), ..self }
    }
}
