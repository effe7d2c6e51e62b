//! PostgreSQL of the distribution: clusters of the test's own, in a temporary directory, on a Unix socket.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::unistd::User;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::proxy::Proxy;
use crate::common::{finish, leave_out, wait_until, write_private};

/// Where Debian puts the programs, in a directory for each version.
const PROGRAMS: &str = "/usr/lib/postgresql";

/// The port is only a part of the socket's name: no cluster listens on a network.
const PORT: &str = "5432";

/// The superuser, also the one of the operating system where the tests run as root.
pub const ADMIN: &str = "postgres";

/// The database of the tests.
pub const DATABASE: &str = "zg";

/// Ends the server with this process, however that ends: its end closes the pipe that `read` waits for. A
/// server that is frozen ends as well.
const KEEPER: &str = r#""$@" & pid=$!; read -r _; kill -QUIT $pid; kill -CONT $pid; wait $pid"#;

/// Whether PostgreSQL is here; if not, that is noted as left out.
pub fn available() -> bool {
    let found = Command::new(program("postgres")).arg("--version").stdout(Stdio::null()).status().is_ok()
        && Command::new("psql").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        leave_out("a fleet: postgresql-15 is not installed");
    }
    found
}

/// A program of the newest version that is installed; elsewhere than on Debian the one in PATH.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: &Path| path.file_name().unwrap().to_string_lossy().parse::<u32>().unwrap_or_default();
    let newest = versions.max_by_key(|path| number(path));
    newest.map(|path| path.join("bin").join(name)).filter(|path| path.exists()).unwrap_or_else(|| name.into())
}

/// The command as the user that PostgreSQL runs as: it refuses root.
pub fn as_server(command: &mut Command) -> &mut Command {
    if let Some(user) = server_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.stdin(Stdio::null()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default())
}

fn server_user() -> Option<User> {
    geteuid().is_root().then(|| User::from_name(ADMIN).unwrap().expect("Debian's user postgres"))
}

/// A directory that belongs to the user of the server.
pub fn server_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("zg-tokend-test-").tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
    if let Some(user) = server_user() {
        chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    directory
}

/// The files of a cluster with an empty database, which all clusters begin with: initdb takes a second.
fn template() -> PathBuf {
    static MADE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let version = finish(Command::new(program("postgres")).arg("--version")).stdout;
    let version = version.trim().replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(version);
    if !place.exists() {
        let cluster = Cluster::init();
        // Another test process may do the same.
        let new = place.with_extension(std::process::id().to_string());
        let copied = finish(Command::new("cp").arg("-a").arg(cluster.data()).arg(&new));
        assert_eq!(copied.code, Some(0), "{copied:?}");
        if fs::rename(&new, &place).is_err() {
            fs::remove_dir_all(&new).unwrap();
        }
    }
    place
}

/// A cluster, running or not, until this is dropped.
pub struct Cluster {
    directory: TempDir,
    keeper: Option<Child>,
    /// Settings that come on the command line, so that they win over what a base backup brings along.
    settings: Vec<String>,
}

impl Cluster {
    /// A new cluster with the database [`DATABASE`], which runs.
    pub fn new() -> Self {
        let mut cluster = Self { directory: server_directory(), keeper: None, settings: Vec::new() };
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(template()).arg(cluster.data());
        let copied = finish(&mut copy);
        assert_eq!(copied.code, Some(0), "{copied:?}");
        cluster.start();
        cluster
    }

    /// An empty one.
    fn init() -> Self {
        let mut cluster = Self { directory: server_directory(), keeper: None, settings: Vec::new() };
        // Commits are synced as ever; only the files of the empty cluster need no sync.
        let mut initdb = Command::new(program("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--no-locale", "--encoding=UTF8", "--wal-segsize=1"]);
        initdb.args(["-U", ADMIN, "-D"]).arg(cluster.data());
        let made = finish(as_server(&mut initdb));
        assert_eq!(made.code, Some(0), "{made:?}");
        cluster.start();
        cluster.sql_in("postgres", &format!("CREATE DATABASE {DATABASE}"));
        cluster.stop();
        cluster
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The Unix socket that clients connect to.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(format!(".s.PGSQL.{PORT}"))
    }

    /// A setting from the next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Sets the rules for connections. They must let the tests in.
    pub fn set_client_rules(&self, rules: &str) {
        // The session of each statement has the rules of its beginning.
        let loaded = || self.sql("SELECT pg_conf_load_time()");
        let before = loaded();
        fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
        self.sql("SELECT pg_reload_conf()");
        wait_until("the rules", || (loaded() != before).then_some(()));
    }

    /// A file in its directory, which it alone can read.
    pub fn write_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        write_private(&path, content.as_bytes());
        if let Some(user) = server_user() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        path
    }

    /// Starts it, and waits until it takes connections.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.keeper.is_none(), "it runs already");
        let log = File::create(self.directory.path().join("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "sh"]).arg(program("postgres")).arg("-D").arg(self.data());
        command.arg("-k").arg(self.directory.path()).args(["-p", PORT, "-c", "listen_addresses="]);
        let settings = [
            "shared_buffers=16MB",
            "fsync=on",
            "max_connections=200",
            "wal_keep_size=64MB",
            // When a commit was made, for figures.
            "track_commit_timestamp=on",
        ];
        for setting in settings.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        as_server(&mut command).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut keeper = command.spawn().unwrap();
        wait_until("PostgreSQL", || {
            assert!(keeper.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            (self.psql("postgres", "SELECT 1").code == Some(0)).then_some(())
        });
        self.keeper = Some(keeper);
    }

    /// The server's log since its start.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        File::open(self.directory.path().join("log")).unwrap().read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The first process of the server.
    fn postmaster(&self) -> Pid {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        Pid::from_raw(file.lines().next().unwrap().trim().parse().unwrap()).unwrap()
    }

    /// All its processes, the first one first.
    fn processes(&self) -> Vec<Pid> {
        let postmaster = self.postmaster();
        let mut processes = vec![postmaster];
        for entry in fs::read_dir("/proc").unwrap() {
            let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap();
            if parent == postmaster.as_raw_nonzero().to_string() {
                processes.extend(Pid::from_raw(pid));
            }
        }
        processes
    }

    /// Ends it in an orderly way: what it has acknowledged stays.
    pub fn stop(&mut self) {
        // SIGINT ends connections; without it a stop would wait for the clients.
        kill_process(self.postmaster(), Signal::INT).unwrap();
        self.ended();
    }

    /// Ends it as a power failure would.
    pub fn kill(&mut self) {
        let processes = self.processes();
        // The first one is stopped, so that it cannot start others meanwhile.
        for signal in [Signal::STOP, Signal::KILL] {
            for process in &processes {
                // Connections end by themselves meanwhile.
                let _ = kill_process(*process, signal);
            }
        }
        self.ended();
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
    }

    fn ended(&mut self) {
        let mut keeper = self.keeper.take().unwrap();
        let postmaster = self.postmaster_alive();
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
        if let Some(pid) = postmaster {
            wait_until("the end of PostgreSQL", || {
                (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
            });
        }
    }

    fn postmaster_alive(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Stops all its processes in the midst of what they do.
    pub fn freeze(&self) {
        let mut seen = BTreeSet::new();
        loop {
            let fresh: Vec<Pid> =
                self.processes().into_iter().filter(|pid| seen.insert(pid.as_raw_nonzero())).collect();
            if fresh.is_empty() {
                return;
            }
            for process in fresh {
                let _ = kill_process(process, Signal::STOP);
            }
        }
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        for process in self.processes() {
            let _ = kill_process(process, Signal::CONT);
        }
    }

    fn psql(&self, database: &str, sql: &str) -> crate::common::Output {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-p", PORT, "-U", ADMIN]);
        command.arg("-h").arg(self.directory.path()).args(["-d", database, "-c", sql]);
        // These statements are the test's: none of them waits for a standby.
        finish(command.env("PGOPTIONS", "-c synchronous_commit=local").stdin(Stdio::null()))
    }

    fn sql_in(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert_eq!(output.code, Some(0), "{sql}: {output:?} {}", self.log());
        output.stdout.trim_end().to_owned()
    }

    /// Runs statements as the superuser, each of their rows a line, its columns separated by `|`.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in(DATABASE, sql)
    }

    /// Runs statements as another role; the words of the error if they fail.
    pub fn sql_as(&self, role: &str, sql: &str) -> Result<String, String> {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-p", PORT, "-U", role]);
        command.arg("-h").arg(self.directory.path()).args(["-d", DATABASE, "-c", sql]);
        let output = finish(command.stdin(Stdio::null()));
        if output.code == Some(0) { Ok(output.stdout.trim_end().to_owned()) } else { Err(output.stderr) }
    }

    /// From now on a COMMIT waits for a standby of this name; with an empty one it waits no longer.
    pub fn require_standby(&self, name: &str) {
        // Each in a transaction of its own. The setting must not wait for the standby itself.
        self.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
        self.sql("SELECT pg_reload_conf()");
        wait_until("the setting", || (self.sql("SHOW synchronous_standby_names") == name).then_some(()));
    }

    /// Cancels a COMMIT that waits for a standby, once there is one.
    #[track_caller]
    pub fn cancel_wait_for_standby(&self) {
        wait_until("a COMMIT that waits for a standby", || {
            let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            (self.sql(cancel).contains('t')).then_some(())
        });
    }

    /// A running standby of this one, whose replication goes through `link`.
    pub fn standby(&self, link: &Proxy) -> Self {
        let mut standby = Self { directory: server_directory(), keeper: None, settings: Vec::new() };
        let source = format!(
            "host=127.0.0.1 port={} user={ADMIN} sslmode=disable application_name=standby",
            link.port()
        );
        let mut backup = Command::new(program("pg_basebackup"));
        backup
            .args(["--no-sync", "-X", "stream", "-c", "fast", "-R", "-d", &source, "-D"])
            .arg(standby.data());
        let made = finish(as_server(&mut backup));
        assert_eq!(made.code, Some(0), "{made:?} {}", self.log());
        standby.set("hot_standby=on");
        standby.start();
        standby
    }

    /// Waits until the standby has replayed all that this one has written.
    #[track_caller]
    pub fn wait_for_replay(&self, standby: &Self) {
        let written = self.sql("SELECT pg_current_wal_lsn()");
        wait_until("the standby's replay", || {
            let replayed = standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"));
            (replayed == "t").then_some(())
        });
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        assert_eq!(self.sql("SELECT pg_promote(true, 100)"), "t", "{}", self.log());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The keeper ends the server.
        if let Some(mut keeper) = self.keeper.take() {
            self.thaw();
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}
