//! pgbouncer in transaction mode: each transaction may go to another connection of the server.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::postgres::{Cluster, DATABASE, as_server, server_directory};
use crate::common::{Background, leave_out, wait_until};

/// A running pgbouncer, until this is dropped.
pub struct Pooler {
    _process: Background,
    directory: TempDir,
}

impl Pooler {
    /// Before this cluster. `None` where it is not installed and need not be.
    pub fn start(cluster: &Cluster) -> Option<Self> {
        if Command::new("pgbouncer").arg("--version").output().is_err() {
            leave_out("a fleet behind a pooler: pgbouncer is not installed");
            return None;
        }
        let directory = server_directory();
        let socket = cluster.socket();
        let config = format!(
            "[databases]\n{DATABASE} = host={} port=5432 dbname={DATABASE}\n[pgbouncer]\nlisten_addr =\n\
             listen_port = 5432\nunix_socket_dir = {}\nauth_type = trust\nauth_file = {}\n\
             pool_mode = transaction\ndefault_pool_size = 4\n",
            socket.parent().unwrap().display(),
            directory.path().display(),
            directory.path().join("users").display(),
        );
        fs::write(directory.path().join("users"), "\"zg_refresh\" \"\"\n\"zg_read\" \"\"\n").unwrap();
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg(&file);
        let process = Background::start(as_server(&mut command), directory.path().join("log"));
        let pooler = Self { _process: process, directory };
        wait_until("pgbouncer", || pooler.socket().exists().then_some(()));
        Some(pooler)
    }

    /// The Unix socket that clients connect to.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(".s.PGSQL.5432")
    }
}
