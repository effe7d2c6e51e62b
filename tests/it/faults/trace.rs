//! strace: what the program asks of the kernel, and the kernel made to answer otherwise.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::leave_out;

/// The system calls that touch files, the network or the lock.
const TRACED: &str = "%file,%desc,%network";

/// One system call of a traced program.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// It is the so-manieth of its name, counted from 1.
    pub nth: usize,
    /// Its place among all calls.
    pub place: usize,
    /// The file that it concerns; of a rename the new name.
    pub path: Option<PathBuf>,
    /// The line in the trace; of a call that another thread interrupted both parts of it.
    pub line: String,
}

impl Call {
    /// `fsync 3 (temporary in default)`
    pub fn describe(&self) -> String {
        let last = |path: &Path| path.file_name().unwrap_or("/".as_ref()).display().to_string();
        let on = match &self.path {
            Some(path) if is_temporary(path) => format!(" (temporary in {})", last(path.parent().unwrap())),
            Some(path) => format!(" ({})", last(path)),
            None => String::new(),
        };
        format!("{} {}{on}", self.name, self.nth)
    }

    /// Whether it sends the request.
    pub fn is_post(&self) -> bool {
        self.line.contains("\"POST /token ")
    }

    /// Whether the kernel came to its end.
    pub fn is_complete(&self) -> bool {
        !self.line.ends_with("= ?") && !self.line.ends_with("<unfinished ...>")
    }
}

/// Whether a path is that of a temporary file of the program.
fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".zg-tokend-"))
}

/// Whether strace is here; if not, that is noted as left out.
pub fn available() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        leave_out("faults at each system call: strace is not installed");
    }
    found
}

/// The command under strace, which writes everything of interest to `log`. `injection` is strace's
/// `SYSCALL:WHAT:when=N`.
///
/// strace is the program's grandchild (-D), so that whoever starts the command sees the
/// program's own end. It holds the program's stderr, and has ended when that is closed.
pub fn traced(command: &Command, injection: Option<&str>, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qq", "-y", "-o"]).arg(log);
    options(&mut strace, injection);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    strace.env_clear();
    for (name, value) in command.get_envs() {
        strace.env(name, value.unwrap_or_default());
    }
    strace.current_dir(command.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    strace
}

/// strace on a running process; calls are counted from here on. It is at work once `log` exists
/// and its stderr says "attached".
pub fn attached(pid: u32, injection: Option<&str>, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-o"]).arg(log);
    options(&mut strace, injection);
    strace.args(["-p", &pid.to_string()]);
    strace
}

fn options(strace: &mut Command, injection: Option<&str>) {
    strace.args(["-e", &format!("trace={TRACED}")]);
    if let Some(injection) = injection {
        strace.args(["-e", &format!("inject={injection}")]);
    }
}

/// Reads a trace. Panics if more than one thread is in it: strace counts for each thread, and
/// (call, n) would be ambiguous.
#[track_caller]
pub fn parse(log: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).unwrap();
    let threads = text.lines().filter_map(|line| line.split_once(' ')).map(|(pid, _)| pid);
    assert_eq!(threads.collect::<std::collections::HashSet<_>>().len(), 1, "more than one thread: {text}");
    parse_threads(log)
}

/// The same for several threads: strace injects where the first of them makes its so-manieth call.
#[track_caller]
pub fn parse_threads(log: &Path) -> Vec<Call> {
    let text = fs::read_to_string(log).unwrap();
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    let mut calls: Vec<Call> = Vec::new();
    let mut interrupted: HashMap<&str, usize> = HashMap::new();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if rest.starts_with('<')
            && let Some(place) = interrupted.remove(pid)
        {
            let line = &mut calls[place].line;
            line.truncate(line.len() - "<unfinished ...>".len());
            line.push_str(rest);
        }
        if rest.starts_with(['-', '+', '<']) {
            continue;
        }
        let (name, arguments) = rest.split_once('(').unwrap();
        // The dynamic loader maps its libraries; that is the kernel's memory, not a file's. And
        // before execve(2) there is no program to be killed.
        if matches!(name, "mmap" | "execve") {
            continue;
        }
        let nth = seen.entry((pid.to_owned(), name.to_owned())).or_default();
        *nth += 1;
        if rest.ends_with("<unfinished ...>") {
            interrupted.insert(pid, calls.len());
        }
        calls.push(Call {
            name: name.to_owned(),
            nth: *nth,
            place: calls.len(),
            path: path_of(name, arguments),
            line: rest.to_owned(),
        });
    }
    assert!(calls.len() > 20, "{text}");
    calls
}

/// The files on which a call was made to fail; of a temporary its directory.
pub fn injected(log: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().filter(|line| line.ends_with("(INJECTED)"));
    let paths = lines.filter_map(|line| {
        let (name, arguments) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        let path = path_of(name, arguments)?;
        Some(if is_temporary(&path) { path.parent()?.to_owned() } else { path })
    });
    paths.collect()
}

/// Of `3</dir>, "name", …` the file in the directory, of `3</file>, …` the file; of two such pairs
/// the last.
fn path_of(call: &str, arguments: &str) -> Option<PathBuf> {
    let takes_a_name = call.ends_with("at") || call == "statx";
    let mut path: Option<PathBuf> = None;
    for (place, argument) in arguments.split(", ").enumerate() {
        let quoted = argument.strip_prefix('"').and_then(|text| text.split('"').next());
        // The result comes after the parenthesis.
        let argument = argument.split(") = ").next()?;
        if let Some((_, opened)) = argument.split_once("</") {
            path = Some(Path::new("/").join(opened.split('>').next()?));
        } else if let Some(name) = quoted.filter(|_| takes_a_name || place == 0) {
            path = Some(path.unwrap_or_default().join(name));
        }
    }
    // Anew from its components: "/dir/." and "/file/" are what opening . and "" looks like.
    path.filter(|path| path.is_absolute()).map(|path| path.components().collect())
}
