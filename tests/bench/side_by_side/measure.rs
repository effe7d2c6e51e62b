//! Whole processes, timed from outside, in pairs.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::time::{ClockId, clock_gettime};

/// Lowest, middle and highest of some figures.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (figures.first(), figures.last()) else { bail!("no figures") };
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Ok(Self { min, median: f64::midpoint(low, high), max })
    }
}

/// The cost of one run.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall_ms: f64,
    cpu_ms: f64,
}

/// Two programs against each other.
#[derive(Debug)]
pub struct Comparison {
    /// Milliseconds from start to end.
    pub ours: Spread,
    pub theirs: Spread,
    /// Ours over theirs, pair by pair.
    pub wall: Spread,
    pub cpu: Spread,
}

/// Runs both in turn, in random order within each pair, as the speed of a machine drifts. One
/// pair before the first is not counted: it fills caches.
pub fn pairs(
    count: usize,
    ours: impl FnMut() -> Result<()>,
    theirs: impl FnMut() -> Result<()>,
) -> Result<Comparison> {
    prepared_pairs(count, || Ok(()), ours, theirs)
}

/// The same with something to do before each pair, which is not measured.
pub fn prepared_pairs(
    count: usize,
    mut prepare: impl FnMut() -> Result<()>,
    mut ours: impl FnMut() -> Result<()>,
    mut theirs: impl FnMut() -> Result<()>,
) -> Result<Comparison> {
    let mut costs = Vec::with_capacity(count);
    for pair in 0..=count {
        prepare()?;
        let (our, their) = if getrandom::u32()? & 1 == 0 {
            let our = cost(&mut ours)?;
            (our, cost(&mut theirs)?)
        } else {
            let their = cost(&mut theirs)?;
            (cost(&mut ours)?, their)
        };
        if pair > 0 {
            costs.push((our, their));
        }
    }
    Ok(Comparison {
        ours: Spread::of(costs.iter().map(|(our, _)| our.wall_ms))?,
        theirs: Spread::of(costs.iter().map(|(_, their)| their.wall_ms))?,
        wall: Spread::of(costs.iter().map(|(our, their)| our.wall_ms / their.wall_ms))?,
        cpu: Spread::of(costs.iter().map(|(our, their)| our.cpu_ms / their.cpu_ms))?,
    })
}

/// Whatever `run` starts must have ended, and been waited for, when it returns.
fn cost(run: &mut impl FnMut() -> Result<()>) -> Result<Cost> {
    let (wall_ms, cpu_ms) = (now_ms(), cpu_of_children_ms()?);
    run()?;
    Ok(Cost { wall_ms: now_ms() - wall_ms, cpu_ms: cpu_of_children_ms()? - cpu_ms })
}

/// Runs a command to its end, its output thrown away; it must succeed.
pub fn finish(command: &mut Command) -> Result<()> {
    finish_all(std::iter::once(command))
}

/// Starts all commands, then waits for all of them.
pub fn finish_all<'a>(commands: impl IntoIterator<Item = &'a mut Command>) -> Result<()> {
    let mut children = Vec::new();
    for command in commands {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        children.push((child.with_context(|| format!("{command:?}"))?, command));
    }
    for (mut child, command) in children {
        let status = child.wait()?;
        if !status.success() {
            bail!("{command:?}: {status}");
        }
    }
    Ok(())
}

/// Time by the monotonic clock.
fn now_ms() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// CPU time of all children that were waited for, and of theirs.
pub fn cpu_of_children_ms() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e3)
}
