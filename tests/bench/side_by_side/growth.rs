//! The cost of one account among more and more of them. It is processor time of the program alone, since
//! the disk and the server are shared by all.

use std::path::Path;

use anyhow::Result;
use rustix::process::Signal;
use zg_tokend::testing::demo;
use zg_tokend::testing::demo::{Plain, Server};

use crate::measure::{cpu_of_children_ms, finish};
use crate::resident::Resident;
use crate::site::Site;
use crate::table;

/// The largest growth of the cost of one account that is wanted, from the least to the most accounts.
const GROWTH: f64 = 1.5;

pub fn growth(sizes: &[usize], ca_file: &Path) -> Result<()> {
    table::heading("Growth: microseconds of CPU, and KiB, for each account");
    let columns = sizes.iter().map(|size| measured(*size, ca_file)).collect::<Result<Vec<_>>>()?;
    for (place, (what, _)) in columns.first().into_iter().flatten().enumerate() {
        let costs: Vec<f64> = columns.iter().map(|column| column[place].1).collect();
        table::growth(what, sizes, &costs, GROWTH);
    }
    Ok(())
}

/// The rows, each with the cost of one account.
fn measured(accounts: usize, ca_file: &Path) -> Result<Vec<(&'static str, f64)>> {
    let server = Server::spawn_thread(0, Plain, demo::IssuerOptions::default())?;
    let site = Site::new(&server, ca_file, accounts)?;
    let each = |milliseconds: f64| milliseconds * 1000.0 / accounts as f64;
    let mut rows = Vec::new();
    for (what, args) in [
        ("once, a first pass", &["once", "--quiet"][..]),
        ("once, nothing due", &["once", "--quiet"]),
        ("status", &["status"]),
        ("check", &["check"]),
    ] {
        let before = cpu_of_children_ms()?;
        finish(&mut site.zg_tokend(args))?;
        rows.push((what, each(cpu_of_children_ms()? - before)));
    }
    let mut run = Resident::start(&site)?;
    rows.push(("run, start", each(run.settled_ms()?)));
    let idle = run.look()?.anonymous as f64 / accounts as f64;
    for (what, signal) in [("run, reload", Signal::HUP), ("run, a wave", Signal::USR1)] {
        let before = run.settled_ms()?;
        run.signal(signal)?;
        rows.push((what, each(run.settled_ms()? - before)));
    }
    let after_wave = run.look()?.anonymous as f64 / accounts as f64;
    let before = cpu_of_children_ms()? + run.settled_ms()?;
    run.stop()?;
    rows.push(("run, stop", each(cpu_of_children_ms()? - before)));
    rows.push(("memory, idle (KiB, with the program's own)", idle));
    rows.push(("memory, after a wave (the same)", after_wave));
    Ok(rows)
}
