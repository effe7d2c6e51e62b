//! A place for log entries that never blocks the writer.
//!
//! A reader that stands still (a paused pager, a stopped logger, a hung journal) must not stop the
//! refreshes. An entry that cannot be written is counted; the next one that can be written is
//! preceded by the count.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// Where the journal takes entries, systemd-journald.service(8).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where entries go.
#[derive(Debug)]
enum Stream {
    /// A pipe or terminal that was opened once more, since O_NONBLOCK on the inherited description
    /// would be everybody's.
    Reopened(File),
    /// A socket, which takes MSG_DONTWAIT.
    Socket(OwnedFd),
    /// A stream that cannot be opened once more: asked before each write whether it has room.
    Polled(OwnedFd),
    /// The journal's own protocol.
    Journal(UnixDatagram),
}

/// The sink, with what it could not write so far.
#[derive(Debug)]
pub struct Sink {
    target: Stream,
    /// The rest of an entry of which the beginning was written.
    rest: Vec<u8>,
    lost: u64,
}

impl Sink {
    /// Standard error.
    pub fn stderr() -> io::Result<Self> {
        Self::of(io::stderr().as_fd(), "/proc/self/fd/2")
    }

    /// The journal; entries have its format.
    pub fn journal() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(JOURNAL)?;
        socket.set_nonblocking(true)?;
        Ok(Self { target: Stream::Journal(socket), rest: Vec::new(), lost: 0 })
    }

    fn of(fd: BorrowedFd<'_>, path: impl AsRef<Path>) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(fstat(fd)?.st_mode);
        let duplicate = || fd.try_clone_to_owned();
        let target = match kind {
            FileType::Socket => Stream::Socket(duplicate()?),
            FileType::Fifo | FileType::CharacterDevice => {
                let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed();
                match OpenOptions::new().write(true).custom_flags(flags).open(path) {
                    Ok(file) => Stream::Reopened(file),
                    Err(_) => Stream::Polled(duplicate()?),
                }
            }
            _ => Stream::Polled(duplicate()?),
        };
        Ok(Self { target, rest: Vec::new(), lost: 0 })
    }

    /// Writes an entry if that is possible at once. `lost` makes the entry that tells how many were
    /// lost before this one.
    pub fn write(&mut self, entry: &[u8], lost: impl FnOnce(u64) -> Vec<u8>) {
        if !self.write_rest() {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let note = lost(self.lost);
            if !self.put(&note) {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if !self.put(entry) {
            self.lost += 1;
        }
    }

    /// True if nothing is left of an earlier entry.
    fn write_rest(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        rest.is_empty() || self.put(&rest) && self.rest.is_empty()
    }

    /// True if the entry, or the beginning of it, was written; the rest is kept. A reader that has
    /// gone away takes everything.
    fn put(&mut self, entry: &[u8]) -> bool {
        let mut written = 0;
        while written < entry.len() {
            match self.put_some(&entry[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if written > 0 || !self.rest.is_empty() {
                        self.rest = entry[written..].to_vec();
                        return true;
                    }
                    return false;
                }
                Err(_) => return true,
            }
        }
        true
    }

    fn put_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Stream::Reopened(file) => file.write(bytes),
            Stream::Socket(socket) => Ok(send(&*socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
            Stream::Polled(fd) => {
                let mut fds = [PollFd::new(fd, PollFlags::OUT)];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                if poll(&mut fds, Some(&now))? == 0 {
                    return Err(Errno::AGAIN.into());
                }
                // No more than what a pipe with room is sure to take.
                Ok(rustix::io::write(fd, &bytes[..bytes.len().min(4096)])?)
            }
            Stream::Journal(socket) => socket.send(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use crate::sink::*;

    fn lost(count: u64) -> Vec<u8> {
        format!("lost {count}\n").into_bytes()
    }

    #[test]
    fn a_full_pipe_loses_entries_and_says_how_many() {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let mut sink = Sink::of(writer.as_fd(), path).unwrap();
        let entry = [b'x'; 1023].iter().copied().chain([b'\n']).collect::<Vec<_>>();
        for _ in 0..200 {
            sink.write(&entry, lost);
        }
        let missing = sink.lost;
        assert!(missing > 100, "{missing}");
        let mut read = vec![0; 64 * 1024];
        reader.read_exact(&mut read).unwrap();
        assert!(read.chunks(1024).all(|chunk| chunk == entry), "whole entries");
        sink.write(b"after\n", lost);
        drop((sink, writer));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("lost {missing}\nafter\n"));
    }

    #[test]
    fn the_rest_of_an_entry_that_was_cut_is_written_first() {
        let (mut reader, writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let mut sink = Sink::of(writer.as_fd(), path).unwrap();
        // Longer than the pipe: only its beginning fits.
        let long = vec![b'y'; 100_000];
        sink.write(&long, lost);
        let mut read = vec![0; 60_000];
        reader.read_exact(&mut read).unwrap();
        sink.write(b"\nafter\n", lost);
        drop((sink, writer));
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest.len(), 40_000 + "\nafter\n".len());
        assert!(rest.ends_with("y\nafter\n"), "{}", rest.len());
    }

    #[test]
    fn a_socket_that_nobody_reads_does_not_block() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut sink = Sink::of(writer.as_fd(), "/nowhere").unwrap();
        for _ in 0..10_000 {
            sink.write(&[b'z'; 1000], lost);
        }
        assert!(sink.lost > 0);
        drop(reader);
        sink.write(b"gone\n", lost);
    }
}
