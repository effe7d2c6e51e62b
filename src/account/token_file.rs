//! The file that readers take the access token from.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::config::{TokenFile, WriteMode};
use crate::files::owner::{self, Principal};
use crate::files::{
    Attributes, Contents, FileError, FileWarning, InPlace, Missing, PlaceError, Rules, Step, Target,
    Temporary, is_mounted,
};
use crate::problem::Class;
use crate::secret::{Fingerprint, Secret};

/// The room that is made sure of before a refresh, in bytes: the longest access token that is
/// accepted.
const RESERVE: u64 = 16 * 1024;

/// The most that is read of a token file, in bytes: four times the longest token leaves room for
/// any sensible token_format; what is longer was not written by this program.
const MAX_LEN: usize = 64 * 1024;

/// Why the token cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// token_file_owner or token_file_group is unknown to this system.
    #[error("there is no {what} {name:?}")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name in config.
        name: String,
    },
    /// The name service did not answer.
    #[error("cannot look up the {what} {name:?}")]
    Lookup {
        /// `user` or `group`.
        what: &'static str,
        /// The name in config.
        name: String,
        /// How it failed.
        source: io::Error,
    },
    /// The place will not do.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl PublishError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { what, .. } => Some(format!("correct the name, or create the {what}")),
            Self::Lookup { .. } => Some("use its number instead of its name".into()),
            Self::Place(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    /// Its meaning for the exit code.
    pub fn class(&self) -> Class {
        match self {
            Self::Unknown { .. } => Class::Config,
            Self::Lookup { .. } => Class::Io,
            Self::Place(error) => error.class(),
            Self::File(error) => error.class(),
        }
    }
}

/// The result of a look at the token file.
#[derive(Debug)]
pub enum Observation {
    /// No file.
    Missing,
    /// A file, with something in it or nothing.
    Holds {
        /// The SHA-256 of its content.
        fingerprint: Fingerprint,
        /// Its length in bytes.
        len: usize,
        /// When it was last written: milliseconds since 1970 by the wall clock.
        modified_at: i64,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be read, or is no file.
    Unreadable(PublishError),
}

/// A place that will do.
#[derive(Debug)]
pub struct Placement {
    /// The real path, symlinks resolved; as configured if the directory is still to be created.
    pub path: PathBuf,
    /// Warnings about the place.
    pub warnings: Vec<FileWarning>,
}

impl TokenFile {
    /// Walks the path, checks it, and gets everything ready that can fail without a token: to be
    /// done before the request is sent.
    pub fn prepare(&self) -> Result<Prepared, PublishError> {
        let attributes = self.attributes()?;
        let target = Target::resolve(&self.path, &self.rules(attributes, self.missing))?;
        if self.write == WriteMode::InPlace
            && let Some(file) = InPlace::open(target.clone(), attributes, RESERVE)?
        {
            return Ok(Prepared { target, attributes, file: Ready::InPlace(file) });
        }
        let mut temporary = Temporary::create(&target, attributes)?;
        temporary.reserve(RESERVE)?;
        Ok(Prepared { target, attributes, file: Ready::Replace(temporary) })
    }

    /// Removes the file, durably; a link to it stays. No file is no error.
    pub fn remove(&self) -> Result<(), PublishError> {
        let target = Target::resolve(&self.path, &self.rules(self.attributes()?, Missing::Refuse))?;
        Ok(target.remove()?)
    }

    /// Checks the place as [`TokenFile::prepare`] would, and changes nothing.
    pub fn check(&self) -> Result<Placement, PublishError> {
        let attributes = self.attributes()?;
        self.check_giving(attributes)?;
        let target = match Target::resolve(&self.path, &self.rules(attributes, Missing::Refuse)) {
            Err(PlaceError::MissingDirectory { path, whole })
                if path == whole || self.missing == Missing::CreateAll =>
            {
                may_create(path)?;
                return Ok(Placement { path: self.path.clone(), warnings: Vec::new() });
            }
            resolved => resolved?,
        };
        let path = target.path();
        let (name, access) = match self.write {
            WriteMode::InPlace => (Path::new(target.name()), Access::WRITE_OK),
            WriteMode::Replace => (Path::new("."), Access::WRITE_OK | Access::EXEC_OK),
        };
        if let Err(error) = allowed(target.directory().as_fd(), name, access) {
            return Err(FileError::Io { step: Step::Write, path, source: error.into() }.into());
        }
        Ok(Placement { path, warnings: target.directory().warnings().to_vec() })
    }

    /// The problem of a place, as far as a quick look shows it, for `status`; what
    /// [`TokenFile::check`] finds besides, the next refresh says.
    pub fn obstacle(&self) -> Option<PublishError> {
        let mounted = self.write == WriteMode::Replace && is_mounted(&self.path);
        mounted.then(|| PlaceError::MountPoint { path: self.path.clone() }.into())
    }

    /// Looks at the file as a reader would, and changes nothing.
    pub fn observe(&self) -> Observation {
        match Contents::of_path(&self.path, MAX_LEN) {
            Ok(None) => Observation::Missing,
            Ok(Some(contents)) => Observation::Holds {
                fingerprint: Fingerprint::of([&contents.bytes]),
                len: contents.bytes.len(),
                modified_at: contents.modified_at,
                mode: contents.mode,
            },
            Err(error) => Observation::Unreadable(error.into()),
        }
    }

    fn rules(&self, attributes: Attributes, missing: Missing) -> Rules {
        Rules { owner: attributes.owner, missing, in_place: self.write == WriteMode::InPlace }
    }

    fn attributes(&self) -> Result<Attributes, PublishError> {
        Ok(Attributes {
            mode: self.mode,
            owner: look_up("user", self.owner.as_ref(), owner::user_id)?,
            group: look_up("group", self.group.as_ref(), owner::group_id)?,
        })
    }

    /// Says what fchown(2) would say.
    fn check_giving(&self, wanted: Attributes) -> Result<(), FileError> {
        let failed = |source| FileError::Io { step: Step::Own, path: self.path.clone(), source };
        let given = wanted.owner.is_some_and(|id| id != rustix::process::geteuid().as_raw());
        let regrouped = match wanted.group {
            Some(id) if id != rustix::process::getegid().as_raw() => {
                let groups = rustix::process::getgroups().map_err(|error| failed(error.into()))?;
                !groups.iter().any(|group| group.as_raw() == id)
            }
            _ => false,
        };
        if given || regrouped {
            let have = rustix::thread::capabilities(None).map_err(|error| failed(error.into()))?;
            if !have.effective.contains(CapabilitySet::CHOWN) {
                return Err(failed(Errno::PERM.into()));
            }
        }
        Ok(())
    }
}

/// Whether a refresh could create this directory.
fn may_create(path: PathBuf) -> Result<(), PlaceError> {
    let parent = path.parent().unwrap_or(&path);
    allowed(CWD, parent, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| PlaceError::Io {
        doing: "create the directory",
        path,
        source: error.into(),
    })
}

/// Whether the effective user has this access, access(2).
fn allowed(directory: BorrowedFd<'_>, path: &Path, access: Access) -> Result<(), Errno> {
    match accessat(directory, path, access, AtFlags::EACCESS) {
        // Before Linux 5.8 only the real user can be asked about, which proves nothing; and a
        // file that is to be written in place may still be missing.
        Err(Errno::NOSYS | Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

/// A token file that only waits for its token. Dropped, it leaves everything as it was.
#[derive(Debug)]
pub struct Prepared {
    target: Target,
    attributes: Attributes,
    file: Ready,
}

#[derive(Debug)]
enum Ready {
    Replace(Temporary),
    InPlace(InPlace),
}

impl Prepared {
    /// Where the token will be: the real path, symlinks resolved.
    pub fn path(&self) -> PathBuf {
        self.target.path()
    }

    /// Warnings about the place.
    pub fn warnings(&self) -> &[FileWarning] {
        self.target.directory().warnings()
    }

    /// Removes temporaries that killed runs left beside the token file, and says how many; once
    /// per process and directory is enough. See [`sweep`](crate::files::Directory::sweep).
    pub fn sweep(&self) -> Result<usize, PublishError> {
        Ok(self.target.directory().sweep(self.attributes.owner)?)
    }

    /// Gives readers the new content, durably. On an error they keep the old one, unless it is
    /// written in place or only the fsync(2) of the directory failed.
    pub fn publish(self, content: &Secret) -> Result<(), PublishError> {
        let bytes = content.expose().as_bytes();
        match self.file {
            Ready::Replace(mut temporary) => {
                temporary.write_all(bytes)?;
                temporary.commit()?;
            }
            Ready::InPlace(file) => file.write(bytes)?,
        }
        Ok(())
    }
}

fn look_up(
    what: &'static str,
    principal: Option<&Principal>,
    find: fn(&str) -> io::Result<Option<u32>>,
) -> Result<Option<u32>, PublishError> {
    let name = match principal {
        None => return Ok(None),
        Some(Principal::Id(id)) => return Ok(Some(*id)),
        Some(Principal::Name(name)) => name,
    };
    match find(name) {
        Ok(Some(id)) => Ok(Some(id)),
        Ok(None) => Err(PublishError::Unknown { what, name: name.clone() }),
        Err(source) => Err(PublishError::Lookup { what, name: name.clone(), source }),
    }
}

#[cfg(test)]
mod tests;
