//! The results: a plain table, each line as soon as it is known, and the same rows for a file.

use std::cell::RefCell;
use std::fmt::Write as _;

use crate::measure::{Comparison, Spread};

/// How the cost of one account grows.
pub struct Growth {
    pub what: &'static str,
    /// For each number of accounts the cost of one.
    pub costs: Vec<(usize, f64)>,
}

#[derive(Default)]
struct Rows {
    /// As Markdown.
    text: String,
    growth: Vec<Growth>,
}

thread_local! {
    static ROWS: RefCell<Rows> = RefCell::default();
}

/// All rows so far as Markdown, and those about growth.
pub fn take() -> (String, Vec<Growth>) {
    let Rows { text, growth } = ROWS.take();
    (text, growth)
}

fn keep(line: &str) {
    ROWS.with_borrow_mut(|rows| writeln!(rows.text, "{line}").ok());
}

pub fn heading(text: &str) {
    println!("\n{text}");
    println!(
        "{:44} {:>24} {:>24} {:>7} {:>7}  goal",
        "", "zg-tokend, ms (min..max)", "other, ms (min..max)", "ratio", "cpu"
    );
    keep(&format!(
        "\n### {text}\n\n| what | zg-tokend | other | ratio (min..max) | CPU ratio | goal |\n|---|---|---|---|---|---|"
    ));
}

/// Two programs; `goal` is the largest ratio of wall time that is wanted.
pub fn compared(what: &str, comparison: &Comparison, goal: Option<f64>) {
    let ours = spread(&comparison.ours);
    let theirs = spread(&comparison.theirs);
    let (wall, cpu) = (comparison.wall.median, comparison.cpu.median);
    let verdict = goal.map(|goal| verdict(wall, goal)).unwrap_or_default();
    println!("{what:44} {ours:>24} {theirs:>24} {wall:7.3} {cpu:7.3}  {verdict}");
    let walls = spread(&comparison.wall);
    keep(&format!("| {what} | {ours} ms | {theirs} ms | {walls} | {cpu:.2} | {verdict} |"));
}

fn spread(spread: &Spread) -> String {
    format!("{:.2} ({:.2}..{:.2})", spread.median, spread.min, spread.max)
}

/// The cost of one account among so many; `goal` is the largest growth that is wanted.
pub fn growth(what: &'static str, sizes: &[usize], costs: &[f64], goal: f64) {
    let columns = sizes.iter().zip(costs).map(|(size, cost)| format!("{cost:9.1} at {size}"));
    let columns = columns.collect::<Vec<_>>().join("  ");
    let growth = costs.last().zip(costs.first()).map_or(1.0, |(last, first)| last / first);
    println!("{what:44} {columns:>66} {growth:7.2}  {}", verdict(growth, goal));
    keep(&format!("| {what} | {} | | {growth:.2} | | {} |", columns.trim(), verdict(growth, goal)));
    let costs = sizes.iter().copied().zip(costs.iter().copied()).collect();
    ROWS.with_borrow_mut(|rows| rows.growth.push(Growth { what, costs }));
}

/// One figure; `goal` is the largest that is wanted.
pub fn figure(what: &str, value: f64, unit: &str, goal: Option<f64>) {
    let verdict = goal.map(|goal| verdict(value, goal)).unwrap_or_default();
    println!("{what:44} {:>24} {:41} {verdict}", format!("{value:.2} {unit}"), "");
    keep(&format!("| {what} | {value:.2} {unit} | | | | {verdict} |"));
}

/// A row that is left out, and why.
pub fn left_out(what: &str, why: &str) {
    println!("{what:44} left out: {why}");
    keep(&format!("| {what} | left out: {why} | | | | |"));
}

fn verdict(value: f64, goal: f64) -> String {
    format!("<= {goal}{}", if value <= goal { "" } else { "  MISSED" })
}
