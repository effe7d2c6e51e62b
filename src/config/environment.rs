//! The surroundings of a config.

use std::path::{Path, PathBuf};

/// Everything besides the text that the config depends on.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `$ZG_TOKEND_CONFIG`, unless empty.
    pub config_file: Option<PathBuf>,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, else `~/.config` (XDG Base Directory Specification).
    pub config_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, else `~/.local/state`.
    pub state_home: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let base = directories::BaseDirs::new();
        Self {
            config_file: std::env::var_os("ZG_TOKEND_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            home: base.as_ref().map(|base| base.home_dir().to_owned()),
            config_home: base.as_ref().map(|base| base.config_dir().to_owned()),
            state_home: base.as_ref().and_then(|base| base.state_dir().map(Path::to_owned)),
        }
    }

    /// The token file of ZeroGravity, and the default of a flat config.
    pub fn zerogravity_token(&self) -> Option<PathBuf> {
        self.config_home.as_ref().map(|home| home.join("zerogravity/token"))
    }
}
