//! The cost of zg-tokend, beside programs that do the same work: `cargo bench`.
//!
//! Whole processes are measured, in one run and in pairs, since absolute times drift with the
//! machine and ratios do not. Every opponent comes along: [`bare.rs`](../opponents/bare.rs), the
//! shell script, and a program that prints a line. The server is the embedded one, over TLS; all
//! clients read the same CA bundle. The files are below target/, so on its disk.
//!
//! `cargo bench -- --help` tells the options; `cargo bench -- --idle 60` watches an idle `run`
//! for a minute. A goal that is missed is marked, and is no failure: a busy machine misses some.

#![expect(unreachable_pub, reason = "pub marks what a module offers to the others")]

mod growth;
mod measure;
mod reply;
mod resident;
mod results;
mod site;
mod table;
#[path = "../../it/common/tls.rs"]
#[expect(clippy::unwrap_used, reason = "shared with the tests, which may panic")]
mod tls;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use zg_tokend::testing::demo;
use zg_tokend::testing::demo::{Plain, Server};

use measure::{finish, finish_all, pairs, prepared_pairs};
use resident::Resident;
use site::{Site, opponent, script};

/// Measures zg-tokend beside other programs that do the same.
#[derive(Parser)]
#[command(bin_name = "cargo bench --")]
struct Options {
    /// Pairs of runs for each row that takes milliseconds; other rows take fewer
    #[arg(long, value_name = "N", default_value_t = 200)]
    pairs: usize,
    /// Seconds for which an idle `run` is watched
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    idle: u64,
    /// Accounts of the rows about many of them
    #[arg(long, value_name = "N", default_value_t = 1000)]
    accounts: usize,
    /// The numbers of accounts among which the cost of one is compared
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    growth: Vec<usize>,
    /// Write the results into tests/bench/RESULTS.md and docs/growth.svg
    #[arg(long)]
    write: bool,
    /// Only this part of the table
    #[arg(value_enum)]
    part: Option<Part>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One account: refresh, nothing due, status
    One,
    /// A refused token, and a live one: `rejected` and `token`, alone and beside a `run`
    Refused,
    /// A hundred processes at once
    Race,
    /// A `run` with nothing to do
    Idle,
    /// Many accounts in one process
    Many,
    /// The cost of one account among more and more of them
    Growth,
    /// From the reply to the new token file
    Reply,
    /// The nearest relative, if the variable PIZAUTH names its program
    Pizauth,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let load = results::load()?;
    build_programs()?;
    let directory = tempfile::tempdir()?;
    let ca_file = directory.path().join("ca.pem");
    let server = tls::serve(demo::IssuerOptions::default(), &ca_file);
    site::add_to_bundle(&ca_file)?;

    println!("Medians of whole processes; ratios are medians of pairs, wall time and CPU time.");
    let wanted = |part| options.part.is_none_or(|only| only == part);
    if wanted(Part::One) {
        one_account(&options, &server, &ca_file)?;
    }
    if wanted(Part::Refused) {
        refused(&options, &ca_file)?;
    }
    if wanted(Part::Race) {
        race(&options, &server, &ca_file)?;
    }
    if wanted(Part::Idle) {
        idle(&options, &server, &ca_file)?;
    }
    if wanted(Part::Many) {
        many_accounts(&options, &server, &ca_file)?;
    }
    if wanted(Part::Growth) {
        growth::growth(&options.growth, &ca_file)?;
    }
    if wanted(Part::Reply) {
        reply::reply_to_readers(&Site::new(&server, &ca_file, 1)?, options.pairs.div_ceil(10))?;
    }
    if wanted(Part::Pizauth) {
        pizauth(&options, &server, &ca_file)?;
    }
    if options.write {
        results::write(&load)?;
    }
    Ok(())
}

/// Cargo builds no examples for a bench.
fn build_programs() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = || {
        let mut command = Command::new(&cargo);
        command.args(["build", "--release", "--quiet"]);
        // Set by the cargo that runs this. ring is built anew, and all that needs it, whenever one of these changes.
        let set = std::env::vars_os().map(|(name, _)| name);
        let set = set.filter(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.to_string_lossy().starts_with(begin))
        });
        set.for_each(|name| _ = command.env_remove(name));
        command
    };
    finish(build().arg("--examples"))?;
    finish(build().args(["--bin", "zg-tokend", "--target-dir"]).arg(site::released()))
}

fn one_account(options: &Options, server: &Server, ca_file: &Path) -> Result<()> {
    let site = Site::new(server, ca_file, 1)?;
    let plain = Server::spawn_thread(0, Plain, demo::IssuerOptions::default())?;
    let plain = Site::new(&plain, ca_file, 1)?;
    let mut script = site.command(script());
    script.arg(site.token_endpoint()).arg(site.path("bare/account-0"));
    let mut hello = site.command(opponent("hello"));
    let once = ["once", "--force"];

    table::heading("One account");
    let row = |what, count, ours: &mut Command, theirs: &mut Command, goal| -> Result<()> {
        table::compared(what, &pairs(count, || finish(ours), || finish(theirs))?, goal);
        Ok(())
    };
    let refreshes = |what, count, site: &Site<'_>, theirs: &mut Command, goal| -> Result<()> {
        let posts = site.posts();
        let mut ours = site.zg_tokend(&once);
        let done = prepared_pairs(count, || site.forget_forced(), || finish(&mut ours), || finish(theirs))?;
        table::compared(what, &done, goal);
        // One pair is not counted, but was run.
        ensure!(site.posts() - posts >= 2 * (count + 1), "{what}: a program made no request");
        Ok(())
    };
    finish(&mut site.zg_tokend(&["once"]))?;
    finish(&mut plain.zg_tokend(&["once"]))?;
    let mut bare = site.bare_client("once", "bare/account-0");
    refreshes("once, refresh over HTTPS / bare client", options.pairs, &site, &mut bare, Some(1.25))?;
    let scripts = options.pairs.div_ceil(10);
    refreshes("once, refresh over HTTPS / shell script", scripts, &site, &mut script, Some(0.08))?;
    let mut bare = plain.bare_client("once", "bare/account-0");
    refreshes("once, refresh over HTTP / bare client", options.pairs, &plain, &mut bare, None)?;
    let posts = site.posts();
    row("once, nothing due / hello", options.pairs, &mut site.zg_tokend(&["once"]), &mut hello, Some(1.35))?;
    row("status / hello", options.pairs, &mut site.zg_tokend(&["status"]), &mut hello, Some(1.35))?;
    ensure!(site.posts() == posts, "a request was made when nothing was due");
    let binary = fs::metadata(site::zg_tokend())?.len();
    table::figure("the binary", binary as f64 / 1e6, "MB", Some(5.0));
    Ok(())
}

/// The wait of a consumer whose token was refused. Plain HTTP, so that the exchange is
/// no more than it must be.
fn refused(options: &Options, ca_file: &Path) -> Result<()> {
    for supervised in [false, true] {
        let server = Server::spawn_thread(0, Plain, demo::IssuerOptions::default())?;
        let site = Site::new(&server, ca_file, 1)?;
        finish(&mut site.zg_tokend(&["once"]))?;
        let older = site.token_sha256()?;
        finish(&mut site.zg_tokend(&["rejected", "--sha256", &older]))?;
        let run = supervised.then(|| Resident::start(&site)).transpose()?;
        table::heading(&format!("A refused token, {}", if supervised { "beside a run" } else { "no run" }));
        let posts = site.posts();
        let mut hello = site.command(opponent("hello"));
        for (what, args) in [
            ("token, a live one / hello", &["token"][..]),
            ("rejected, replaced already / hello", &["rejected", "--sha256", &older]),
        ] {
            let mut ours = site.zg_tokend(args);
            let pairs = pairs(options.pairs, || finish(&mut ours), || finish(&mut hello))?;
            table::compared(what, &pairs, None);
        }
        ensure!(site.posts() == posts, "a request was made for a token that had been replaced");
        let replaced = prepared_pairs(
            options.pairs,
            || site.forget_rejection(),
            || finish(&mut site.zg_tokend(&["rejected", "--sha256", &site.token_sha256()?])),
            || finish(&mut hello),
        )?;
        table::compared("rejected, one refresh over HTTP / hello", &replaced, None);
        // One pair is not counted, but was run.
        ensure!(site.posts() - posts == options.pairs + 1, "each refused token is worth one request");
        drop(run);
    }
    Ok(())
}

fn race(options: &Options, server: &Server, ca_file: &Path) -> Result<()> {
    const RACERS: usize = 100;
    let site = Site::new(server, ca_file, 1)?;
    let mut once: Vec<_> = (0..RACERS).map(|_| site.zg_tokend(&["once"])).collect();
    let mut hello: Vec<_> = (0..RACERS).map(|_| site.command(opponent("hello"))).collect();

    table::heading("A hundred processes at the same instant, one account, due");
    let posts = site.posts();
    let rounds = options.pairs.div_ceil(20);
    let race = || {
        site.log_in()?;
        finish_all(&mut once)
    };
    table::compared("100 once / 100 hello", &pairs(rounds, race, || finish_all(&mut hello))?, Some(1.4));
    // One round is not counted, but was run.
    let per_round = (site.posts() - posts) as f64 / (rounds + 1) as f64;
    table::figure("requests in each round", per_round, "", Some(1.0));
    Ok(())
}

fn idle(options: &Options, server: &Server, ca_file: &Path) -> Result<()> {
    let site = Site::new(server, ca_file, 1)?;
    table::heading("An idle run, after a refresh over HTTPS");
    let run = Resident::start(&site)?;
    let before = run.look()?;
    sleep(Duration::from_secs(options.idle));
    let after = run.look()?;
    table::figure("PSS", after.pss as f64 / 1024.0, "MiB", Some(3.6));
    table::figure("anonymous memory", after.anonymous as f64 / 1024.0, "MiB", None);
    table::figure("threads", after.threads as f64, "", Some(1.0));
    let switches = after.context_switches - before.context_switches;
    table::figure(&format!("context switches in {} s", options.idle), switches as f64, "", Some(0.0));
    table::figure("CPU in that time", (after.cpu - before.cpu) as f64 / 1e6, "ms", None);
    Ok(())
}

fn many_accounts(options: &Options, server: &Server, ca_file: &Path) -> Result<()> {
    let count = options.accounts;
    let site = Site::new(server, ca_file, count)?;
    table::heading(&format!("{count} accounts"));
    finish(&mut site.zg_tokend(&["once", "--quiet"]))?;
    let (waves, posts) = (options.pairs.div_ceil(60), site.posts());
    let wave = prepared_pairs(
        waves,
        || site.forget_forced(),
        || finish(&mut site.zg_tokend(&["once", "--force", "--quiet"])),
        || finish(&mut site.bare_client("wave", "bare")),
    )?;
    ensure!(site.posts() - posts >= 2 * (waves + 1) * count, "an account was not refreshed");
    table::compared("once, all due, HTTPS / bare client, 8 threads", &wave, Some(1.5));
    let mut read = site.command(opponent("bare"));
    read.arg("read").arg(site.path("state"));
    let status =
        pairs(options.pairs.div_ceil(10), || finish(&mut site.zg_tokend(&["status"])), || finish(&mut read))?;
    table::compared("status / reading the states", &status, Some(2.0));

    let one = Site::new(server, ca_file, 1)?;
    let (one_refreshed, one_idle) = (anonymous(&one)?, anonymous(&one)?);
    site.log_in()?;
    let (all_refreshed, all_idle) = (anonymous(&site)?, anonymous(&site)?);
    let each = |all: u64, one: u64| all.saturating_sub(one) as f64 / (count - 1) as f64;
    table::figure("memory of one more, in run", each(all_idle, one_idle), "KiB", Some(2.0));
    table::figure("the same after all were refreshed", each(all_refreshed, one_refreshed), "KiB", Some(3.0));
    Ok(())
}

/// The peer, where the variable `PIZAUTH` names its program, since no registry has it: a daemon with
/// one account, which has no token yet, so that it is at its smallest.
fn pizauth(options: &Options, server: &Server, ca_file: &Path) -> Result<()> {
    table::heading("pizauth");
    let Some(program) = std::env::var_os("PIZAUTH") else {
        table::left_out(
            "pizauth",
            "set PIZAUTH to the path of its program, built with `cargo build --release`",
        );
        return Ok(());
    };
    let site = Site::new(server, ca_file, 1)?;
    let pizauth = |args: &[&str]| {
        let mut command = site.command(&program);
        command.args(args);
        command
    };
    fs::write(
        site.path("pizauth.conf"),
        r#"account "a" { auth_uri = "http://localhost/"; token_uri = "http://localhost/"; client_id = "demo"; scopes = ["api"]; }"#,
    )?;
    finish(&mut pizauth(&["info", "-c", "pizauth.conf"]))?;
    let daemon = Resident::spawn(&mut pizauth(&["server", "-d", "-c", "pizauth.conf"]))?;
    sleep(resident::SETTLING);
    let mut status = pizauth(&["status"]);
    finish(&mut site.zg_tokend(&["once"]))?;
    let ours = &mut site.zg_tokend(&["status"]);
    table::compared(
        "status / pizauth status",
        &pairs(options.pairs, || finish(ours), || finish(&mut status))?,
        Some(0.95),
    );
    let (ours, theirs) = (Resident::start(&site)?.look()?.pss, daemon.look()?.pss);
    table::figure("PSS of an idle run / of pizauth", ours as f64 / theirs as f64, "", Some(0.75));
    Ok(())
}

/// The anonymous memory of `run`, in KiB, after it has done what was due.
fn anonymous(site: &Site) -> Result<u64> {
    Ok(Resident::start(site)?.look()?.anonymous)
}
