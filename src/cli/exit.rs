//! Exit codes: those of sysexits(3) for `run` and `once`, those of monitoring plugins for `status`.

use std::process::ExitCode;

use crate::problem::Class;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Refreshed, or nothing was due; every token fresh.
    Success = 0,
    /// An unexpected failure.
    Failure = 1,
    /// Wrong usage.
    Usage = 2,
    /// The endpoint or a secret is unavailable, or a wait is in force; will be retried.
    Unavailable = 69,
    /// Could not read or write state or token.
    Io = 74,
    /// Another process held the lock for too long, or supervises already.
    Busy = 75,
    /// The user must log in again.
    NeedsLogin = 77,
    /// Config or client is wrong.
    Config = 78,
}

/// Of several outcomes, the first of these that applies is the whole's.
const BY_WEIGHT: [Exit; 7] =
    [Exit::Io, Exit::Config, Exit::NeedsLogin, Exit::Busy, Exit::Unavailable, Exit::Failure, Exit::Usage];

impl Exit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Unavailable,
        Self::Io,
        Self::Busy,
        Self::NeedsLogin,
        Self::Config,
    ];

    /// The code of several outcomes together.
    pub fn worst(codes: impl IntoIterator<Item = Self>) -> Self {
        let weight =
            |code: &Self| BY_WEIGHT.iter().position(|other| other == code).unwrap_or(BY_WEIGHT.len());
        codes.into_iter().min_by_key(weight).unwrap_or(Self::Success)
    }

    /// The one with this number.
    pub fn of_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::Unavailable => Self::Unavailable,
            Class::Io => Self::Io,
            Class::Busy => Self::Busy,
            Class::NeedsLogin => Self::NeedsLogin,
            Class::Config => Self::Config,
            Class::Unexpected => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::exit::*;

    #[test]
    fn the_gravest_outcome_speaks_for_all() {
        let cases: [(&[Exit], Exit); 5] = [
            (&[], Exit::Success),
            (&[Exit::Success, Exit::Unavailable], Exit::Unavailable),
            (&[Exit::Unavailable, Exit::NeedsLogin, Exit::Busy], Exit::NeedsLogin),
            (&[Exit::NeedsLogin, Exit::Config, Exit::Failure], Exit::Config),
            (&[Exit::Config, Exit::Io, Exit::Success], Exit::Io),
        ];
        for (codes, worst) in cases {
            assert_eq!(Exit::worst(codes.iter().copied()), worst, "{codes:?}");
        }
    }
}
