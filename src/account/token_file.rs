//! The token file, from which programs read the access token.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::config::{TokenFile, WriteMode};
use crate::files::owner::{self, Principal};
use crate::files::{
    Attributes, Contents, FileError, FileWarning, InPlace, Missing, PlaceError, Readers, Rules, Step, Target,
    Temporary, is_mounted,
};
use crate::problem::Class;
use crate::secret::{Fingerprint, Secret};

/// Directories of token files in which the temporaries of killed processes were removed, each with the
/// owner of the files.
static SWEPT: Mutex<BTreeSet<(u64, u64, Option<u32>)>> = Mutex::new(BTreeSet::new());

/// The room that is reserved before a refresh, in bytes: the longest access token that is accepted.
const RESERVE: u64 = 16 * 1024;

/// The longest token file that is read, in bytes: four times the longest token, which is enough for
/// any sensible token_format. This program did not write a longer one.
const MAX_LEN: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A user or group in the config that this system does not know.
    #[error("there is no {what} {name:?}")]
    Unknown { what: &'static str, name: String },
    /// The name service did not answer.
    #[error("cannot look up the {what} {name:?}")]
    Lookup { what: &'static str, name: String, source: io::Error },
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl PublishError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { what, .. } => Some(format!("correct the name, or create the {what}")),
            Self::Lookup { .. } => Some("use its number instead of its name".into()),
            Self::Place(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Self::Unknown { .. } => Class::Config,
            Self::Lookup { .. } => Class::Io,
            Self::Place(error) => error.class(),
            Self::File(error) => error.class(),
        }
    }
}

/// The token file as a reader sees it.
#[derive(Debug)]
pub enum Observation {
    Missing,
    Holds {
        /// The SHA-256 of the content.
        fingerprint: Fingerprint,
        /// Wall clock, in milliseconds since 1970.
        modified_at: i64,
    },
    /// It cannot be read, or is not a regular file.
    Unreadable(PublishError),
}

impl Observation {
    /// Whether both found the same: the same content, no file, or one that cannot be read.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Holds { fingerprint: one, .. }, Self::Holds { fingerprint: other, .. }) => one == other,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }

    /// Whether the file has exactly this content.
    pub fn holds(&self, content: &Secret) -> bool {
        matches!(self, Self::Holds { fingerprint, .. } if *fingerprint == content.fingerprint())
    }
}

/// A place where the token file can be written.
#[derive(Debug)]
pub struct Placement {
    /// The real path, symlinks resolved; the configured path if its directory does not exist yet.
    pub path: PathBuf,
    pub warnings: Vec<FileWarning>,
}

impl TokenFile {
    /// Resolves and checks the path, and creates the next file, so that nothing can fail after the
    /// request.
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

    /// Removes the file durably, but not a symlink to it. A missing file is no error.
    pub fn remove(&self) -> Result<(), PublishError> {
        let target = Target::resolve(&self.path, &self.rules(self.attributes()?, Missing::Refuse))?;
        Ok(target.remove()?)
    }

    /// Checks the place like [`TokenFile::prepare`], without any change.
    pub fn check(&self) -> Result<Placement, PublishError> {
        let attributes = self.attributes()?;
        self.check_chown(attributes)?;
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

    /// The most common problem of a place, for `status`, which must be quick. The next refresh reports
    /// the others, see [`TokenFile::check`].
    pub fn obstacle(&self) -> Option<PublishError> {
        let mounted = self.write == WriteMode::Replace && is_mounted(&self.path);
        mounted.then(|| PlaceError::MountPoint { path: self.path.clone() }.into())
    }

    pub fn observe(&self) -> Observation {
        match Contents::of_path(&self.path, MAX_LEN) {
            Ok(None) => Observation::Missing,
            Ok(Some(contents)) => Observation::Holds {
                fingerprint: Fingerprint::of([&contents.bytes]),
                modified_at: contents.modified_at,
            },
            Err(error) => Observation::Unreadable(error.into()),
        }
    }

    fn rules(&self, attributes: Attributes, missing: Missing) -> Rules {
        let readers = Readers {
            group: self.mode & 0o040 != 0,
            group_id: attributes.group,
            all: self.mode & 0o004 != 0,
        };
        Rules { owner: attributes.owner, missing, in_place: self.write == WriteMode::InPlace, readers }
    }

    fn attributes(&self) -> Result<Attributes, PublishError> {
        Ok(Attributes {
            mode: self.mode,
            owner: look_up("user", self.owner.as_ref(), owner::user_id)?,
            group: look_up("group", self.group.as_ref(), owner::group_id)?,
        })
    }

    /// Fails where fchown(2) would fail.
    fn check_chown(&self, attributes: Attributes) -> Result<(), FileError> {
        let error =
            |errno: Errno| FileError::Io { step: Step::Own, path: self.path.clone(), source: errno.into() };
        let other_owner = attributes.owner.is_some_and(|id| id != rustix::process::geteuid().as_raw());
        let other_group = match attributes.group {
            Some(id) if id != rustix::process::getegid().as_raw() => {
                let groups = rustix::process::getgroups().map_err(error)?;
                !groups.iter().any(|group| group.as_raw() == id)
            }
            _ => false,
        };
        if (other_owner || other_group)
            && !rustix::thread::capabilities(None).map_err(error)?.effective.contains(CapabilitySet::CHOWN)
        {
            return Err(error(Errno::PERM));
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
        // Linux before 5.8 knows only the access of the real user, which proves nothing. A file that
        // will be written in place may still be missing.
        Err(Errno::NOSYS | Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

/// A token file without its token. Dropped, it changes nothing.
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
    /// Removes the temporaries of killed processes beside the token file, unless this process has done
    /// so: a thousand accounts may have their token files in one directory, and each look lists it.
    pub fn sweep(&self) -> Result<(), PublishError> {
        let (directory, owner) = (self.target.directory(), self.attributes.owner);
        let place = (directory.stat().st_dev, directory.stat().st_ino, owner);
        if SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(place) {
            directory.sweep(owner)?;
        }
        Ok(())
    }

    /// Writes the content durably, with a note on the file. After an error readers see the old content, unless the file is
    /// written in place or only the fsync(2) of the directory failed.
    pub fn publish(self, content: &Secret, mark: Option<&str>) -> Result<(), PublishError> {
        let bytes = content.expose().as_bytes();
        match self.file {
            Ready::Replace(mut temporary) => {
                temporary.write_all(bytes)?;
                if let Some(mark) = mark {
                    temporary.mark(mark);
                }
                temporary.commit()?;
            }
            Ready::InPlace(file) => {
                if let Some(mark) = mark {
                    file.mark(mark);
                }
                file.write(bytes)?;
            }
        }
        Ok(())
    }
}

pub(super) fn look_up(
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
