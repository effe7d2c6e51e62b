//! The results, as a plain table. Each line is printed as soon as it is known.

use crate::measure::Comparison;

pub fn heading(text: &str) {
    println!("\n{text}");
    println!(
        "{:44} {:>24} {:>24} {:>7} {:>7}  goal",
        "", "zg-tokend, ms (min..max)", "other, ms (min..max)", "ratio", "cpu"
    );
}

/// Two programs; `goal` is the largest ratio of wall time that is wanted.
pub fn compared(what: &str, comparison: &Comparison, goal: Option<f64>) {
    let ours = spread(&comparison.ours);
    let theirs = spread(&comparison.theirs);
    let (wall, cpu) = (comparison.wall.median, comparison.cpu.median);
    let verdict = goal.map(|goal| verdict(wall, goal)).unwrap_or_default();
    println!("{what:44} {ours:>24} {theirs:>24} {wall:7.3} {cpu:7.3}  {verdict}");
}

fn spread(spread: &crate::measure::Spread) -> String {
    format!("{:.2} ({:.2}..{:.2})", spread.median, spread.min, spread.max)
}

/// The cost of one account among so many; `goal` is the largest growth that is wanted.
pub fn growth(what: &str, sizes: &[usize], costs: &[f64], goal: f64) {
    let columns = sizes.iter().zip(costs).map(|(size, cost)| format!("{cost:9.1} at {size}"));
    let columns = columns.collect::<Vec<_>>().join("  ");
    let growth = costs.last().zip(costs.first()).map_or(1.0, |(last, first)| last / first);
    println!("{what:44} {columns:>66} {growth:7.2}  {}", verdict(growth, goal));
}

/// One figure; `goal` is the largest that is wanted.
pub fn figure(what: &str, value: f64, unit: &str, goal: Option<f64>) {
    let verdict = goal.map(|goal| verdict(value, goal)).unwrap_or_default();
    println!("{what:44} {:>24} {:41} {verdict}", format!("{value:.2} {unit}"), "");
}

fn verdict(value: f64, goal: f64) -> String {
    format!("<= {goal}{}", if value <= goal { "" } else { "  MISSED" })
}
