//! What goes wrong outside the core, as the shell tells it.

/// The kinds of failure that the exit code tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The token endpoint or a secret cannot be had now; will be retried.
    Unavailable,
    /// State or token file could not be read or written.
    Io,
    /// Another process held the lock for too long.
    Busy,
    /// Only the user can help, by logging in again.
    NeedsLogin,
    /// Config, client or placement is wrong; only a change of them helps.
    Config,
    /// A mistake of this program.
    Unexpected,
}

/// Something that went wrong outside the core, in words that hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What it means for the exit code.
    pub class: Class,
    /// A short name for machines.
    pub kind: String,
    /// The whole story: what, which path, and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
