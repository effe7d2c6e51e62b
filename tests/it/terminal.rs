//! The output on a real terminal.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::pane::Pane;
use crate::common::world::World;
use crate::common::{settled, wait_until};

fn with_token() -> World {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(15 * 60));
    world
}

#[test]
fn status_is_a_table() {
    let world = with_token();
    let pane = Pane::open(&world.sandbox, (80, 24), &[], "status");
    let screen = pane.wait_for("code 0");
    let header: Vec<_> = screen[1].split_whitespace().collect();
    assert_eq!(header, ["ACCOUNT", "STATE", "LIFE", "LEFT", "EXPIRES", "REFRESH"]);
    assert!(screen[2].starts_with("● default  fresh        ━━━━"), "{screen:#?}");
    assert!(screen[2].contains("┿") && screen[2].contains("──  44 min  "), "{screen:#?}");
    assert!(screen[4].starts_with("  token file     /"), "{screen:#?}");
    assert!(screen.iter().any(|line| line == "  supervisor     none"), "{screen:#?}");
    assert!(pane.colours().contains("\u{1b}[32mfresh"), "{}", pane.colours());
}

#[test]
fn colour_and_characters_follow_the_environment() {
    let world = with_token();
    for (variables, has_colour, has_unicode) in [
        (&[("NO_COLOR", "1")][..], false, true),
        (&[("LC_ALL", "C")], true, false),
        (&[("LC_ALL", "C"), ("NO_COLOR", "1")], false, false),
    ] {
        let pane = Pane::open(&world.sandbox, (80, 24), variables, "status");
        let text = pane.wait_for("code 0").join("\n");
        assert_eq!(pane.colours().contains('\u{1b}'), has_colour, "{variables:?}: {:?}", pane.colours());
        assert_eq!(!text.is_ascii(), has_unicode, "{variables:?}: {text}");
        assert!(has_unicode || text.contains("=====|===="), "{text}");
    }
    // A terminal that can do nothing gets what a pipe gets.
    let pane = Pane::open(&world.sandbox, (200, 24), &[("TERM", "dumb")], "status");
    assert!(pane.wait_for("code 0")[1].starts_with("default: fresh, expires in 44 min"));
}

#[test]
fn a_narrow_terminal_breaks_no_line() {
    let world = with_token();
    fs::write(world.token_file(), "something else").unwrap();
    for columns in [60, 80, 90, 200] {
        let pane = Pane::open(&world.sandbox, (columns, 40), &[], "status");
        let screen = pane.wait_for("code 1");
        // A line that was too wide would have made the terminal begin one in the first column.
        let begins = |line: &&String| !line.is_empty() && !line.starts_with("  ");
        let first: Vec<_> =
            screen.iter().filter(begins).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(first, ["before", "▲", "▲", "code"], "{columns}: {screen:#?}");
    }
}

#[test]
fn watch_shows_what_happens_and_leaves_the_screen_as_it_was() {
    let world = with_token();
    let pane = Pane::open(&world.sandbox, (80, 24), &[], "status --watch");
    pane.wait_for("fresh");
    assert_eq!(pane.modes(), (false, true), "no cursor, a screen of its own");
    fs::remove_file(world.token_file()).unwrap();
    pane.wait_for("not in file");
    world.once_gives(0, []);
    pane.wait_for("● default  fresh");
    let mut run = world.run();
    pane.wait_for(&format!("process {}", run.id()));
    run.signal(Signal::KILL);
    pane.wait_for("supervisor     none");
    pane.text("typed");
    pane.resize(60, 24);
    let screen = pane.wait_for("token file");
    assert!(screen.iter().all(|line| !line.contains("typed") && line.chars().count() <= 60), "{screen:#?}");
    pane.key("C-c");
    assert_eq!(pane.wait_for("code 0"), ["before", "code 0"]);
    assert_eq!(pane.modes(), (true, false));
}

#[test]
fn watch_gives_the_screen_back_to_signals_and_to_the_shell() {
    let world = with_token();
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT] {
        let pane = Pane::open(&world.sandbox, (80, 24), &[], "status --watch");
        pane.wait_for("fresh");
        let pid = Pid::from_raw(pane.pid().cast_signed()).unwrap();
        // Stopped and continued, as by Ctrl-Z and `fg`.
        kill_process(pid, Signal::TSTP).unwrap();
        wait_until("the screen given back", || (pane.modes() == (true, false)).then_some(()));
        // It stops a moment later, and SIGCONT before that would be lost.
        wait_until("the process stopped", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pane.pid())).ok()?;
            stat.contains(") T ").then_some(())
        });
        kill_process(pid, Signal::CONT).unwrap();
        pane.wait_for("fresh");
        kill_process(pid, signal).unwrap();
        assert_eq!(pane.wait_for("code 0"), ["before", "code 0"], "{signal:?}");
        assert_eq!(pane.modes(), (true, false));
    }
}

#[test]
fn watch_sees_the_first_token_come() {
    let world = World::new();
    world.configure("");
    let pane = Pane::open(&world.sandbox, (80, 24), &[], "status --watch");
    pane.wait_for("no token");
    world.once_gives(0, []);
    // The hint has the word "refreshed" in it.
    pane.wait_for("● default  fresh");
}

#[test]
fn watch_follows_the_config() {
    let world = with_token();
    let pane = Pane::open(&world.sandbox, (80, 24), &[], "status --watch");
    pane.wait_for("● default  fresh");
    let good = fs::read_to_string(world.sandbox.config_path()).unwrap();
    // Another token file.
    let elsewhere = format!("token_file = \"{}\"\n", world.token_file_of("elsewhere").display());
    world.sandbox.write_config(&format!("{good}{elsewhere}"));
    pane.wait_for("not in file");
    world.once_gives(0, []);
    pane.wait_for("● default  fresh");
    assert!(pane.screen().join("").contains("elsewhere.token"), "{:#?}", pane.screen());
    // A config that cannot be used leaves the last good one in sight, and what it watches.
    world.sandbox.write_config(&format!("{good}{elsewhere}token_fiel = \"x\"\n"));
    let screen = pane.wait_for("✗ the changed config is not used");
    let text = screen.join("\n");
    for words in [
        "● default  fresh",
        "\n  6 | token_fiel = \"…\"\n    | ^^^^^^^^^^\n",
        "  → did you mean `token_file`?",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    fs::remove_file(world.token_file_of("elsewhere")).unwrap();
    assert!(pane.wait_for("not in file").iter().any(|line| line.contains("is not used")));
    // More accounts, in a file that an editor renames to its place.
    let (work, mail) = (world.seed(), world.seed());
    let config = world.sandbox.config_path();
    let beside = config.with_extension("new");
    world.configure_accounts(&[("work", &work), ("mail", &mail)]);
    fs::rename(&config, &beside).unwrap();
    pane.wait_for("there is no config file");
    fs::rename(&beside, &config).unwrap();
    let screen = pane.wait_for("✗ mail");
    assert!(screen.iter().all(|line| !line.contains("is not used")), "{screen:#?}");
    pane.key("C-c");
    pane.wait_for("code 2");
}

/// Of all that it shows, what came of pushes and probes is in files of their own.
#[test]
fn watch_sees_what_comes_of_pushes_and_probes() {
    // Of a token that lives so long, time alone changes what is shown once an hour.
    let world = World::with_lifetime(30 * 86_400);
    let url = "http://127.0.0.1:1/me";
    let seed = world.configure("");
    world.once_gives(0, []);
    // Only now: `once` would send the token itself.
    world.configure_seed(&seed, &format!("push = [{{ url = \"{url}\" }}]\nprobe = {{ url = \"{url}\" }}"));
    let pane = Pane::open(&world.sandbox, (100, 24), &[], "status --watch");
    pane.wait_for("● default  fresh");
    let note = |name: &str, note: &Value| {
        fs::write(world.state_path("default", name), note.to_string()).unwrap();
    };
    let at = world.server.now() / 1000;
    note("pushed", &json!({ url: { "generation": 1, "at": at, "problem": "it answered HTTP 503" } }));
    pane.wait_for("cannot send the token to http://127.0.0.1:1/me");
    pane.wait_for("cause: it answered HTTP 503");
    note("pushed", &json!({ url: { "generation": 1, "at": at } }));
    pane.wait_for("● default  fresh");
    note("probed", &json!({ "url": url, "generation": 1, "at": at, "status": 401, "refused": 0 }));
    pane.wait_for("refuses the token, and a refresh has not helped");
    pane.key("C-c");
    pane.wait_for("code 1");
}

#[test]
fn a_variable_that_masks_the_file_is_told_on_a_terminal_too() {
    let world = with_token();
    let pane = Pane::open(&world.sandbox, (100, 24), &[("ZEROGRAVITY_TOKEN", "ya29.SECRET")], "status");
    let screen = pane.wait_for("code 0");
    let about = screen.iter().position(|line| line == "▲ default").unwrap_or_else(|| panic!("{screen:#?}"));
    let way_out = screen.iter().position(|line| line.starts_with("  → ")).unwrap();
    let cause: Vec<_> = screen[about + 1..way_out].iter().map(|line| line.trim()).collect();
    assert_eq!(
        cause.join(" "),
        format!(
            "{} is masked by ZEROGRAVITY_TOKEN, which is set in this environment: \
             what is started from here never reads the file",
            world.token_file().display()
        )
    );
    assert_eq!(screen[way_out], "  → unset ZEROGRAVITY_TOKEN");
    let text = screen.join("\n");
    assert!(!text.contains("SECRET") && text.matches("masked by").count() == 1, "{text}");
}

/// How often a process was woken.
fn wakes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn watch_sleeps_while_nothing_that_is_shown_changes() {
    let world = with_token();
    let pane = Pane::open(&world.sandbox, (80, 24), &[], "status --watch");
    pane.wait_for("fresh");
    let pid = pane.pid();
    let before = settled(Duration::from_secs(1), || wakes(pid));
    std::thread::sleep(Duration::from_secs(5));
    // Minutes are shown of two spans, and either may have come to its next one.
    assert!(wakes(pid) - before <= 2, "{} times in 5 s", wakes(pid) - before);
    // Once it is seconds that are shown, it is drawn every second.
    world.pass_time(Duration::from_secs(36 * 60));
    // Nine minutes but for what has passed.
    wait_until("seconds on the screen", || {
        let is_shown = |line: &String| line.contains(" min ") && line.contains(" s  ");
        pane.screen().iter().any(is_shown).then_some(())
    });
    let before = wakes(pid);
    wait_until("four wakes", || (wakes(pid) >= before + 4).then_some(()));
}

#[test]
fn watch_counts_what_does_not_fit() {
    let world = World::new();
    let seeds: Vec<_> = (0..30).map(|_| world.seed()).collect();
    let names: Vec<_> = (0..30).map(|number| format!("a{number}")).collect();
    let accounts: Vec<_> = names.iter().map(String::as_str).zip(&seeds).collect();
    world.configure_accounts(&accounts);
    let pane = Pane::open(&world.sandbox, (80, 20), &[], "status --watch");
    let screen = pane.wait_for("Ctrl-C ends this");
    assert_eq!(screen.len(), 20);
    assert!(screen[0].contains("ACCOUNT") && screen[18].contains("more lines below"), "{screen:#?}");
}

#[test]
fn check_is_a_list() {
    let world = World::new();
    world.configure("token_file = \"/dev/null/token\"");
    let pane = Pane::open(&world.sandbox, (60, 40), &[], "check");
    let screen = pane.wait_for("code 78");
    let text = screen.join("\n");
    for line in [
        "● config",
        // Behind a path that has no room beside the names.
        "\n                 1 account\n● state_dir",
        "\n\n  default\n● refresh_token  read from the config file\n",
        "✗ token_file     /dev/null is not a directory\n                 → remove it, or choose another path\n\n1 problem\n",
    ] {
        assert!(text.contains(line), "{line:?}: {text}");
    }
    // Broken lines go on below the text, not in the first column.
    assert!(screen.iter().all(|line| line.chars().count() <= 60), "{screen:#?}");
}
