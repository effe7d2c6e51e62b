//! Mounts that only the program under test sees.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::leave_out;

/// A mount namespace. It ends, and with it every mount, when this is dropped or the test dies.
pub struct Mounts {
    /// Waits for the end of its stdin.
    holder: Child,
}

impl Mounts {
    /// A new namespace, with what the shell commands mount in it; `None`, noted as left out,
    /// without root.
    pub fn new(commands: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            leave_out("tests on file systems of their own: mounting needs root");
            return None;
        }
        let script = format!("set -e\n{commands}\necho mounted\nexec cat");
        let mut holder = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "{commands}");
        Some(Self { holder })
    }

    /// A command in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string(), "--", program]);
        command
    }

    /// Runs shell commands in the namespace; they must not fail.
    #[track_caller]
    pub fn run(&self, commands: &str) {
        let status = self.command("sh").args(["-ec", commands]).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{status}: {commands}");
    }

    /// A path in the namespace, as it can be opened from outside.
    pub fn path(&self, path: &Path) -> PathBuf {
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
