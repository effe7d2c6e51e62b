//! A real terminal for the binary: a pane of tmux, whose screen can be read.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Output, Sandbox, finish, wait_until};

/// A terminal with one command in it, gone when this is dropped.
pub struct Pane {
    socket: PathBuf,
}

impl Pane {
    /// Opens one of so many columns and rows, and runs the binary in it: `environment` is added
    /// to the sandbox's. When it has ended, its exit code is on the last line.
    pub fn open(
        sandbox: &Sandbox,
        (columns, rows): (u16, u16),
        environment: &[(&str, &str)],
        args: &str,
    ) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // A server that is just ending would take a new session along.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pane = Self { socket: sandbox.path(format!("tmux-{number}")) };
        let command = sandbox.command([]);
        let variables: Vec<String> = command
            .get_envs()
            .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value?.to_str()?)))
            .chain(["TERM=tmux-256color".to_owned(), "LANG=C.UTF-8".to_owned()])
            .chain(environment.iter().map(|(name, value)| format!("{name}={value}")))
            .map(|variable| format!("'{variable}'"))
            .collect();
        let script = format!(
            "trap : INT; echo before; env -i {} {} {args}; echo code $?; exec sleep 1000",
            variables.join(" "),
            command.get_program().to_str().unwrap()
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let opened =
            pane.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, &script]);
        assert_eq!(opened.code, Some(0), "{opened:?}");
        pane
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").arg("-S").arg(&self.socket).args(args);
        finish(&mut command)
    }

    /// The screen, line by line.
    pub fn screen(&self) -> Vec<String> {
        let text = self.tmux(&["capture-pane", "-p"]).stdout;
        text.trim_end().lines().map(str::to_owned).collect()
    }

    /// The same with its colours, as escape sequences.
    pub fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"]).stdout
    }

    /// Whether there is a cursor, and whether it is the alternate screen.
    pub fn modes(&self) -> (bool, bool) {
        let modes = self.tmux(&["display", "-p", "#{cursor_flag}#{alternate_on}"]).stdout;
        (modes.starts_with('1'), modes.trim_end().ends_with('1'))
    }

    /// Types a key, as tmux names it.
    pub fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a text as it is.
    pub fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Gives the pane another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// How the terminal is set, in stty's words.
    pub fn stty(&self) -> String {
        let tty = self.tmux(&["display", "-p", "#{pane_tty}"]).stdout.trim().to_owned();
        finish(Command::new("stty").args(["-a", "-F", &tty])).stdout.replace(['\n', ';'], " ")
    }

    /// Waits until a line of the screen contains this, and gives the screen.
    #[track_caller]
    pub fn wait_for(&self, words: &str) -> Vec<String> {
        wait_until(&format!("{words:?} on the screen"), || {
            let screen = self.screen();
            screen.iter().any(|line| line.contains(words)).then_some(screen)
        })
    }

    /// The process that runs the binary.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let shell = self.tmux(&["display", "-p", "#{pane_pid}"]).stdout.trim().to_owned();
        wait_until("the binary in the pane", || {
            let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
            let child = children.split_whitespace().next()?;
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim() == "zg-tokend").then(|| child.parse().unwrap())
        })
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
