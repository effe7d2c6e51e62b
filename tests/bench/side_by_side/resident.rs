//! The cost of a process that stays: memory, threads, wake-ups.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

use crate::site::Site;

/// How long to wait for READY=1; a thousand accounts take seconds on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// After this nothing that began with the refresh still goes on; a thread that looked up the
/// host's name stays for a second.
pub const SETTLING: Duration = Duration::from_secs(3);

/// A process that uses less than so many nanoseconds in that time has nothing to do.
const QUIET: u64 = 2_000_000;

/// A running `run`, at rest; it ends when this is dropped.
pub struct Resident(Child);

/// Its cost at one moment.
pub struct Snapshot {
    /// Proportional set size, in KiB.
    pub pss: u64,
    /// Memory of no file, in KiB: heap and stacks.
    pub anonymous: u64,
    pub threads: usize,
    /// Voluntary and other, of all threads.
    pub context_switches: u64,
    /// On a CPU, in nanoseconds, of all threads.
    pub cpu: u64,
}

impl Resident {
    /// Starts `run`, and waits until it says that everything overdue is refreshed.
    pub fn start(site: &Site) -> Result<Self> {
        let socket = site.path("notify");
        let manager = UnixDatagram::bind(&socket)?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let mut command = site.zg_tokend(&["run"]);
        let started = Self::spawn(command.env("NOTIFY_SOCKET", &socket))?;
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).context("run does not get ready")?;
            if buffer[..length].starts_with(b"READY=1") {
                break;
            }
        }
        fs::remove_file(socket)?;
        sleep(SETTLING);
        Ok(started)
    }

    /// Starts any program that stays, as after a boot: the kernel maps more of a file that was written or
    /// read as a whole.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let program = File::open(command.get_program())?;
        program.sync_data()?;
        fadvise(&program, 0, None, Advice::DontNeed)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    /// The processor time that it has used once it uses no more, in milliseconds.
    pub fn settled_ms(&self) -> Result<f64> {
        loop {
            let before = self.look()?.cpu;
            sleep(SETTLING);
            if self.look()?.cpu - before < QUIET {
                return Ok(before as f64 / 1e6);
            }
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        ensure!(self.0.wait()?.success(), "run does not stop well");
        Ok(())
    }

    pub fn look(&self) -> Result<Snapshot> {
        let process = format!("/proc/{}", self.0.id());
        let memory = fs::read_to_string(format!("{process}/smaps_rollup"))?;
        let mut now = Snapshot {
            pss: number(&memory, "Pss:")?,
            anonymous: number(&memory, "Anonymous:")?,
            threads: 0,
            context_switches: 0,
            cpu: 0,
        };
        for thread in fs::read_dir(format!("{process}/task"))? {
            let thread = thread?.path();
            let status = fs::read_to_string(thread.join("status"))?;
            now.threads += 1;
            now.context_switches += number(&status, "voluntary_ctxt_switches:")?
                + number(&status, "nonvoluntary_ctxt_switches:")?;
            let schedule = fs::read_to_string(thread.join("schedstat"))?;
            now.cpu += schedule.split(' ').next().context("schedstat is empty")?.parse::<u64>()?;
        }
        Ok(now)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        // It holds nothing that would have to be put in order.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The number in the line that begins with `name`.
fn number(text: &str, name: &str) -> Result<u64> {
    let Some(value) = text.lines().find_map(|line| line.strip_prefix(name)) else { bail!("no {name}") };
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
