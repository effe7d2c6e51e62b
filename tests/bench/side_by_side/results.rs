//! Keeps the results of a whole bench in the repository: a table, and a picture of growth.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::table;
use crate::table::Growth;

/// Below the directory of the crate.
const RESULTS: &str = "tests/bench/RESULTS.md";
const PICTURE: &str = "docs/growth.svg";

const HEAD: &str = "# Results of the bench\n\nMedians, with minimum and maximum in brackets; ratios are medians of pairs.\n\
    [docs/PERFORMANCE.md](../../docs/PERFORMANCE.md) explains the rows. One table for each version, the newest first.\n\n";

/// The drawing, in pixels: one row of bars for each command.
const WIDTH: f64 = 720.0;
const BAR: f64 = 12.0;
const LABEL: f64 = 250.0;
/// Room for the figure behind the longest bar.
const FIGURE: f64 = 110.0;

/// Writes the rows of this run into the section of this version, above those of earlier versions, and draws
/// the picture anew. The section says when, on which machine and how it was made, since a figure without
/// them means nothing.
pub fn write(started_with_load: &str) -> Result<()> {
    let (rows, growth) = table::take();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let version = env!("CARGO_PKG_VERSION");
    let section = format!(
        "## {version}\n\n{date}. Machine: {machine}. Load average before and after: {started_with_load} and {load}; a \
         figure of a busy machine is worth little, a ratio more. Command: `cargo bench -- {arguments}`.\n{rows}",
        date = date()?,
        machine = machine()?,
        load = load()?,
        arguments = arguments.join(" "),
    );
    let path = root.join(RESULTS);
    let earlier = match fs::read_to_string(&path) {
        Ok(text) => other_versions(&text, version),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(RESULTS),
    };
    fs::write(&path, format!("{HEAD}{section}{earlier}")).context(RESULTS)?;
    if !growth.is_empty() {
        fs::write(root.join(PICTURE), picture(&growth)).context(PICTURE)?;
    }
    Ok(())
}

/// The sections of the other versions.
fn other_versions(text: &str, version: &str) -> String {
    let sections = text.split("\n## ").skip(1);
    let others = sections.filter(|section| section.lines().next() != Some(version));
    others.fold(String::new(), |text, section| format!("{text}\n## {section}"))
}

/// Of the last minute.
pub fn load() -> Result<String> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

/// By UTC.
#[expect(clippy::disallowed_methods, reason = "the date of a figure is no part of the program")]
fn date() -> Result<String> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let now = httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    Ok(now)
}

/// Processor, kernel and file system: the class of the machine, and no name.
fn machine() -> Result<String> {
    let cpus = std::thread::available_parallelism()?;
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{cpus} cores, {model}, Linux {}", kernel.trim()))
}

fn picture(growth: &[Growth]) -> String {
    let mut body = String::new();
    let mut y = 40.0;
    for Growth { what, costs } in growth {
        let most = costs.iter().map(|(_, cost)| *cost).fold(f64::MIN_POSITIVE, f64::max);
        let middle = y + BAR * costs.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(body, r#"<text x="8" y="{middle:.0}">{what}</text>"#);
        for (number, (accounts, cost)) in costs.iter().enumerate() {
            let width = (cost / most * (WIDTH - LABEL - FIGURE)).max(1.0);
            let opacity = 1.0 - 0.25 * number.min(3) as f64;
            let (text_x, text_y) = (LABEL + width + 6.0, y + BAR - 2.0);
            let _ = writeln!(
                body,
                r##"<rect x="{LABEL}" y="{y:.0}" width="{width:.0}" height="{BAR}" fill="#2a6fb0" fill-opacity="{opacity}"/>"##
            );
            let _ = writeln!(
                body,
                r#"<text x="{text_x:.0}" y="{text_y:.0}" font-size="10">{cost:.1} at {accounts}</text>"#
            );
            y += BAR + 2.0;
        }
        y += 12.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"20\" font-size=\"14\">The \
         cost of one account among more and more of them (microseconds of CPU, or KiB)</text>\n{body}</svg>\n"
    )
}
