//! From the last byte of the reply to the new token file: some servers revoke the old token as they
//! answer, so that each millisecond is a 401 for somebody.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::measure::{Spread, finish};
use crate::site::Site;
use crate::table;

/// The time of an fsync on a slow disk, in microseconds.
const SLOW: u32 = 20_000;

/// The time from reply to readers over the time that its fsyncs take alone, at most.
const GOAL: f64 = 1.3;

/// One system call of a trace.
struct Call<'a> {
    /// When it began and how long it took, in seconds.
    at: f64,
    took: f64,
    text: &'a str,
}

pub fn reply_to_readers(site: &Site, rounds: usize) -> Result<()> {
    table::heading("From the last byte of the reply to the new token file (with strace)");
    if Command::new("strace").arg("-V").output().is_err() {
        table::left_out("reply to readers", "strace is not installed");
        return Ok(());
    }
    finish(&mut site.zg_tokend(&["once"]))?;
    // On a quick disk strace itself takes longer than an fsync, so that the ratio has no goal there.
    for (what, delay, goal) in [("quick disk", 0, None), ("20 ms for each fsync", SLOW, Some(GOAL))] {
        let measured = (0..rounds).map(|_| round(site, delay)).collect::<Result<Vec<_>>>()?;
        let spread = |of: fn(&(f64, f64)) -> f64| Spread::of(measured.iter().map(of));
        let (all, ratio) = (spread(|(all, _)| *all)?, spread(|(all, fsyncs)| all / fsyncs)?);
        table::figure(&format!("{what}: reply to readers"), all.median, "ms", None);
        table::figure(&format!("{what}: over its fsyncs alone"), ratio.median, "", goal);
    }
    Ok(())
}

/// Milliseconds from reply to readers, and those of the fsyncs in between.
fn round(site: &Site, delay: u32) -> Result<(f64, f64)> {
    site.log_in()?;
    let trace = site.path("trace");
    let once = site.zg_tokend(&["once"]);
    let mut strace = site.command("strace");
    strace.args([
        "-f",
        "-qq",
        "-ttt",
        "-T",
        "-e",
        "trace=read,readv,recvfrom,fsync,rename,renameat,renameat2",
    ]);
    if delay > 0 {
        strace.arg("-e").arg(format!("inject=fsync:delay_enter={delay}"));
    }
    strace.arg("-y").arg("-o").arg(&trace).arg("--").arg(once.get_program()).args(once.get_args());
    finish(&mut strace).context("is the process allowed to trace?")?;
    let text = fs::read_to_string(trace)?;
    let calls: Vec<Call<'_>> = text.lines().filter_map(call).collect();
    let is_token = |call: &&Call<'_>| call.text.starts_with("rename") && call.text.contains("tokens");
    let published = calls.iter().find(is_token).context("no token file was renamed")?;
    let reads = calls.iter().filter(|call| call.at < published.at && call.text.contains("<socket:["));
    let replied = reads.map(|call| call.at + call.took).fold(f64::MIN, f64::max);
    let between = calls.iter().filter(|call| call.at >= replied && call.at < published.at);
    let fsyncs = between.filter(|call| call.text.starts_with("fsync"));
    let delayed = f64::from(delay) / 1e3;
    let fsyncs: f64 = fsyncs.map(|call| (call.took * 1e3).max(delayed)).sum();
    Ok(((published.at + published.took - replied) * 1e3, fsyncs))
}

/// A line is `PID SECONDS CALL(...) = RESULT <SECONDS>`.
fn call(line: &str) -> Option<Call<'_>> {
    let (_, rest) = line.split_once(' ')?;
    let (at, text) = rest.trim_start().split_once(' ')?;
    let (_, took) = text.strip_suffix('>')?.rsplit_once('<')?;
    Some(Call { at: at.parse().ok()?, took: took.parse().ok()?, text })
}
