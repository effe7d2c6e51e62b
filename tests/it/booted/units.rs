//! The units as systemd reads them.

use super::machine::Machine;
use crate::common::golden::compare;

/// Each unit, and which manager it is for.
const UNITS: [(&str, &str); 4] = [
    ("/lib/systemd/system/zg-tokend@.service", "--system"),
    ("/usr/lib/systemd/user/zg-tokend.service", "--user"),
    ("/usr/lib/systemd/user/zg-tokend-once.service", "--user"),
    ("/usr/lib/systemd/user/zg-tokend-once.timer", "--user"),
];

#[test]
fn they_are_sound() {
    let Some(machine) = Machine::shared() else { return };
    for (unit, manager) in UNITS {
        let verify = "XDG_RUNTIME_DIR=/tmp systemd-analyze verify --recursive-errors=one";
        let found = machine.shell(&format!("{verify} {manager} {unit}"));
        assert_eq!((found.code, found.stdout + &found.stderr), (Some(0), String::new()), "{unit}");
    }
}

/// The lines of systemd's judgement that begin with `mark`, and the last; it must be `limit` at
/// most, which is the exposure times ten.
fn judgement(machine: &Machine, unit: &str, mark: char, limit: u32) -> String {
    let analyze = format!("systemd-analyze --no-pager security --offline=true --threshold={limit}");
    let table = machine.run(&format!("cp {unit} /tmp/; cd /tmp; {analyze} $(basename {unit})"));
    let lines = table.lines().filter(|line| line.starts_with([mark, '→'])).map(|line| {
        let name = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let level = line.strip_prefix('→').and_then(|level| level.rsplit(": ").next());
        level.map_or(name, |level| format!("→ {level}")) + "\n"
    });
    lines.collect()
}

#[test]
fn they_are_confined() {
    let Some(machine) = Machine::shared() else { return };
    let [system, user, once] = [UNITS[0].0, UNITS[1].0, UNITS[2].0];
    let open = judgement(&machine, system, '✗', 12);
    // A user's unit is judged as if it were root's, and most of what is asked for needs namespaces
    // or capabilities, which a user's manager may not be able to give: it is shorter to say what is
    // closed.
    let closed = judgement(&machine, user, '✓', 63);
    assert_eq!(judgement(&machine, once, '✓', 63), closed);
    compare("booted-confinement", &format!("{open}\n{closed}"));
}
