//! The messages of the commands for wrong usage and for problems with a token, word for word.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use serde_json::{Value, json};
use zg_tokend::testing::clock::{Clock as _, SystemClock};
use zg_tokend::testing::demo::Fault;

use crate::common::golden::compare;
use crate::common::world::World;
use crate::common::{Output, finish, under, wait_until};

/// The output on a terminal, without the parts that differ from run to run.
fn page(world: &World, line: &str, output: &Output) -> String {
    let sandbox = world.sandbox.path("").display().to_string();
    let said = format!("{}{}", output.stdout, output.stderr);
    let said = said.replace(sandbox.trim_end_matches('/'), "SANDBOX").replace(world.server.url(), "SERVER");
    let said: Vec<_> = said.lines().map(without_times).collect();
    for (at, line) in said.iter().enumerate().filter(|(_, line)| line.starts_with("warning: ")) {
        let mut below = said[at + 1..].iter().skip_while(|next| next.starts_with("cause: "));
        assert!(below.next().is_some_and(|next| next.starts_with("hint: ")), "{line} without a way out");
    }
    format!("$ zg-tokend {line}\n{}\n=> {}\n\n", said.join("\n"), output.code.unwrap())
}

/// The line with TIME for each date and time, and AGE for each duration.
pub(crate) fn without_times(line: &str) -> String {
    const UNITS: [&str; 11] =
        ["d", "h", "min", "s", "ms", "second", "seconds", "minute", "minutes", "hour", "hours"];
    let is_number = |word: &str| word.trim_start_matches('(').parse::<f64>().is_ok();
    let is_date = |word: &str| word.trim_start_matches('(').starts_with("20") && word.contains('-');
    let mut shown: Vec<String> = Vec::new();
    // Both are of two words, of which the first may begin a bracket and the second end a clause.
    let mut words = line.split(' ').peekable();
    while let Some(word) = words.next() {
        let next = words.peek().copied().unwrap_or_default();
        let unit = next.trim_end_matches([',', ';', ')', ':']);
        let what = match () {
            () if is_number(word) && UNITS.contains(&unit) => "AGE",
            () if is_date(word) => "TIME",
            () => {
                shown.push(word.to_owned());
                continue;
            }
        };
        words.next();
        let (open, close) = (
            if word.starts_with('(') { "(" } else { "" },
            next.trim_start_matches(|c: char| c.is_alphanumeric()),
        );
        let close = if what == "TIME" { next.get(8..).unwrap_or_default() } else { close };
        // `4 min 59 s` is one duration.
        if what == "AGE" && shown.last().is_some_and(|last| last == "AGE") {
            shown.pop();
        }
        shown.push(format!("{open}{what}{close}"));
    }
    // Of a wait of a second, a busy machine may leave less than one.
    shown.join(" ").replace("less than AGE", "AGE")
}

fn tell(world: &World, line: &str) -> String {
    page(world, line, &world.sandbox.run(line.split(' ')))
}

#[test]
fn wrong_usage_is_told_with_a_way_out() {
    let world = World::new();
    let mut pages = String::new();
    for line in ["once", "init", "init --provider nope", "once --account a/b", "nope"] {
        pages += &tell(&world, line);
    }
    let empty = world.sandbox.run(["once", "--account", ""]);
    pages += &page(&world, "once --account ''", &empty);
    world.configure("");
    for line in [
        "once --account nope",
        "once --every 5",
        "token get",
        "token --format git",
        "exec",
        "exec -- /nowhere/command",
        "exec -- /etc/passwd",
        "rejected",
        "rejected --sha256 zz",
        "set",
        "set --access-token",
        "init",
        "demo --port 99999",
        "check --syntax --json",
    ] {
        pages += &tell(&world, line);
    }
    let (one, two) = (world.seed(), world.seed());
    world.configure_accounts(&[("one", &one), ("two", &two)]);
    pages += &tell(&world, "token");
    compare("usage", &pages);
}

#[test]
fn outcomes_are_told_with_a_way_out() {
    let mut pages = String::new();
    let mut with = |what: &str, fault: &dyn Fn(&World)| {
        let world = World::new();
        world.configure("");
        world.once_gives(0, []);
        fault(&world);
        let _ = write!(pages, "# {what}\n{}", tell(&world, "once --force"));
    };
    for (status, body) in [
        (400, r#"{"error":"invalid_grant","error_description":"Token has been revoked."}"#),
        (401, r#"{"error":"invalid_client"}"#),
        (400, r#"{"error":"unauthorized_client"}"#),
        (400, r#"{"error":"invalid_scope"}"#),
        (400, r#"{"error":"invalid_request"}"#),
        (400, r#"{"error":"temporarily_unavailable"}"#),
        (400, r#"{"error":"teapot"}"#),
        (403, "no"),
        (404, "no"),
        (407, "no"),
        (429, "{}"),
        (503, "{}"),
        (504, "{}"),
        (200, "<html>"),
        (200, r#"{"token_type":"Bearer","expires_in":3600}"#),
        (200, r#"{"access_token":"","expires_in":3600}"#),
        (200, r#"{"access_token":"a","token_type":"mac","expires_in":3600}"#),
        (200, r#"{"access_token":"a","token_type":"Bearer","expires_in":0}"#),
        (200, r#"{"access_token":"a","error":"invalid_grant"}"#),
    ] {
        with(&format!("{status} {body}"), &|world: &World| {
            (0..4).for_each(|_| world.fault(Fault::reply(status, body)));
        });
    }
    with("nobody listens", &|world| {
        world.sandbox.write_config("token_endpoint = \"http://127.0.0.1:1/\"\nclient_id = \"demo\"\n");
    });
    with("the token's directory is a file", &|world| {
        fs::remove_dir_all(world.sandbox.path("config/zerogravity")).unwrap();
        fs::write(world.sandbox.path("config/zerogravity"), "").unwrap();
    });
    compare("outcomes", &pages);
}

#[test]
fn warnings_are_told_with_a_way_out() {
    let world = World::new();
    let mut pages = String::new();
    let mut told = |what: &str, page: String| {
        assert!(page.contains("\nwarning: ") || page.contains("\nerror: "), "{page}");
        let _ = write!(pages, "# {what}\n{page}");
    };
    world.configure("token_file_mode = \"0644\"");
    fs::set_permissions(world.sandbox.config_path(), fs::Permissions::from_mode(0o620)).unwrap();
    let group_writable = world.sandbox.run(["once"]);
    told("a config that is too open", page(&world, "once", &group_writable));
    fs::set_permissions(world.sandbox.config_path(), fs::Permissions::from_mode(0o600)).unwrap();
    world.configure("");
    world.once_gives(0, []);
    let state = world.state();
    let unavailable = || world.fault(Fault::reply(503, "{}"));
    world.pass_time(Duration::from_secs(35 * 60));
    unavailable();
    told("the token that there is", tell(&world, "exec --min-valid 2h -- true"));
    let mut died = state.clone();
    let refresh_token = world.refresh_token().fingerprint().to_string();
    died["in_flight"] = json!({ "refresh_token": refresh_token, "at": state["access_token"]["issued_at"] });
    world.write_state(&died);
    told("a process died", tell(&world, "once"));
    world.configure("on_expired = \"remove\"");
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(3700));
    unavailable();
    told("an expired token is removed", tell(&world, "once"));
    let git = "token --format git get";
    let question = world.sandbox.path("question");
    fs::write(&question, "protocol=http\nhost=git.example.com\n\n").unwrap();
    let asked = finish(world.sandbox.command(git.split(' ')).stdin(fs::File::open(&question).unwrap()));
    told("git asks for an open connection", page(&world, git, &asked));
    world.configure("");
    let full = under(["sh", "-c", "exec \"$@\" >/dev/full", "sh"], &world.sandbox.command(["token"]));
    world.fault(Fault::reply(503, "{}").with_header("Retry-After", "600"));
    world.once_gives(69, []);
    told("a wait is in force", tell(&world, "once"));
    world.write_state(&state);
    told("a full disk", page(&world, "token >/dev/full", &finish(&mut { full })));
    compare("warnings", &pages);
}

/// A change of the state.
type Change = fn(&mut Value);

#[test]
fn every_trouble_of_status_is_told_with_a_way_out() {
    let world = World::new();
    let mut pages = String::new();
    let mut told = |what: &str| {
        let _ = write!(pages, "# {what}\n{}", tell(&world, "status"));
    };
    world.configure_inputs("");
    told("no login");
    world.configure("");
    told("no token");
    fs::create_dir_all(world.sandbox.path("config/zerogravity")).unwrap();
    fs::write(world.token_file(), "another").unwrap();
    told("another's token");
    world.once_gives(0, []);
    let state = world.state();
    for (what, minutes) in [("fresh", 10), ("overdue", 55), ("expired", 70), ("a clock that was set back", 0)]
    {
        world.write_state(&state);
        match minutes {
            0 => {
                let mut later = state.clone();
                let wall = &mut later["access_token"]["issued_at"]["wall_ms"];
                *wall = (wall.as_i64().unwrap() + 7_200_000).into();
                world.write_state(&later);
            }
            minutes => world.pass_time(Duration::from_secs(minutes * 60)),
        }
        told(what);
    }
    let changes: [(&str, Change); 4] = [
        ("a dead login", |state| {
            let binding = "00".repeat(32);
            state["verdict"] = json!({
                "kind": "refresh_token", "binding": binding, "error": "invalid_grant", "at": state["access_token"]["issued_at"],
                "message": "the server refuses the refresh token: invalid_grant",
                "cause": "it died 7.0 days after the login", "hint": "log in again, and put the new refresh_token into the config",
            });
        }),
        ("a refresh token that cannot be kept", |state| state["refresh_token_unusable"] = json!(true)),
        ("a login that ends soon", |state| {
            let mut at = state["access_token"]["issued_at"].clone();
            for (_, instant) in at.as_object_mut().unwrap().iter_mut().filter(|(_, value)| value.is_i64()) {
                *instant = json!(instant.as_i64().unwrap() - 3_500_000);
            }
            state["login_life"] = json!({ "stated_at": at, "lifetime_ms": 3_600_000 });
        }),
        ("interrupted", |state| {
            let at = &state["access_token"]["issued_at"];
            state["in_flight"] = json!({ "refresh_token": "00".repeat(32), "at": at });
        }),
    ];
    for (what, change) in changes {
        let mut other = state.clone();
        change(&mut other);
        world.write_state(&other);
        told(what);
    }
    let mut dead = state.clone();
    changes[0].1(&mut dead);
    dead["seeds"] = json!([]);
    world.write_state(&dead);
    told("a dead login, and a new one in the config");
    world.write_state(&state);
    world.pass_time(Duration::from_secs(55 * 60));
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    told("backing off");
    world.write_state(&state);
    world.fault(Fault::reply(401, r#"{"error":"invalid_client"}"#));
    world.once_gives(78, ["--force"]);
    told("a client that was refused");
    let config = fs::File::options().append(true).open(world.sandbox.config_path()).unwrap();
    config.set_modified(UNIX_EPOCH + Duration::from_secs(4_000_000_000)).unwrap();
    told("a client that was refused, and a config that has changed since");
    let mut without = state.clone();
    without.as_object_mut().unwrap().remove("refresh_token");
    world.write_state(&without);
    world.configure_inputs("");
    told("a token and no login");
    world.pass_time(Duration::from_secs(55 * 60));
    told("no login, and soon no token");
    world.configure("");
    world.write_state(&json!({ "version": 99 }));
    told("a newer version's state");
    fs::write(world.state_path("default", "state"), "nonsense").unwrap();
    told("no state at all");
    world.write_state(&state);
    fs::write(world.token_file(), "another").unwrap();
    told("the token file was overwritten");
    let at = state["access_token"]["issued_at"]["wall_ms"].as_i64().unwrap() / 1000;
    let target = |port| format!("http://127.0.0.1:{port}/v1/token");
    let targets = [1, 2, 3].map(|port| format!("[[push]]\nurl = \"{}\"\n", target(port)));
    let probe = "probe = { url = \"http://127.0.0.1:1/me\" }";
    world.configure(&format!("{probe}\n{}", targets.concat()));
    let pushed = json!({
        target(1): { "generation": 1, "at": at, "problem": "it answered HTTP 503" },
        target(2): { "generation": 0, "at": at },
    });
    fs::write(world.state_path("default", "pushed"), pushed.to_string()).unwrap();
    told("the token file was overwritten, and a target fails");
    fs::remove_file(world.token_file()).unwrap();
    world.once_gives(0, []);
    fs::write(world.state_path("default", "pushed"), pushed.to_string()).unwrap();
    told("a target fails");
    fs::remove_file(world.state_path("default", "pushed")).unwrap();
    let probed = json!({
        "url": "http://127.0.0.1:1/me", "generation": world.state()["generation"], "at": at,
        "status": 401, "answered_at": at, "refused": 0,
    });
    fs::write(world.state_path("default", "probed"), probed.to_string()).unwrap();
    world.configure(probe);
    told("the resource refuses the token");
    let output = world.sandbox.path("home/other");
    world.configure(&format!("outputs = [{{ path = \"{}\" }}]", output.display()));
    told("an output is missing");
    fs::write(&output, "another").unwrap();
    told("an output was overwritten");
    fs::remove_file(&output).unwrap();
    fs::create_dir(&output).unwrap();
    told("an output is a directory");
    world.configure("token_file_mode = \"0640\"\ntoken_file_group = 65502");
    fs::set_permissions(world.sandbox.path("config/zerogravity"), fs::Permissions::from_mode(0o700)).unwrap();
    told("a group that cannot get to the file");
    world.configure("");
    let mut earlier = state.clone();
    earlier["generation"] = json!(0);
    earlier["access_token"]["value"] = json!("earlier");
    world.write_state(&earlier);
    told("a state that was restored");
    fs::remove_file(world.state_path("default", "state")).unwrap();
    told("a state that went missing");
    world.write_state(&state);
    let mut run = world.run();
    let hang_pid = format!("process {}", run.id());
    let hang = json!({ "since": at, "pid": run.id() });
    fs::write(world.state_path("default", "hang"), hang.to_string()).unwrap();
    told("its files hang");
    run.stop();
    fs::remove_file(world.state_path("default", "hang")).unwrap();
    world.write_state(&state);
    fs::remove_file(world.token_file()).unwrap();
    told("the token file is gone");
    fs::create_dir(world.token_file()).unwrap();
    told("the token file is a directory");
    fs::remove_dir(world.token_file()).unwrap();
    symlink("token", world.token_file()).unwrap();
    told("the token file leads to itself");
    world.configure("");
    fs::remove_file(world.token_file()).unwrap();
    world.once_gives(0, []);
    let masked = finish(world.sandbox.command(["status"]).env("ZEROGRAVITY_TOKEN", "another"));
    let _ = write!(pages, "# a variable masks the file\n{}", page(&world, "status", &masked));
    let shared = World::new();
    let table = |name: &str, login: &str| {
        format!("[accounts.{name}]\ntoken_file = \"{}\"\n{login}\n", shared.token_file_of(name).display())
    };
    let main = table("main", &format!("refresh_token = \"{}\"", shared.seed().expose()));
    shared.sandbox.write_config(&format!("{}{main}{}", shared.client(), table("mail", "from = \"main\"")));
    shared.once_gives(0, []);
    let earlier = shared.state_of("main");
    shared.once_gives(0, ["--force", "--account", "mail"]);
    fs::write(shared.state_path("main", "state"), earlier.to_string()).unwrap();
    let restored = shared.sandbox.run(["status"]);
    let _ = write!(
        pages,
        "# the state of a shared login that was restored\n{}",
        page(&shared, "status", &restored)
    );
    tell_of_certificates(&world, &mut |what| {
        let _ = write!(pages, "# {what}\n{}", tell(&world, "status"));
    });
    compare("status", &pages.replace(&hang_pid, "process PID"));
}

/// The same of a certificate, whatever is wrong with it.
fn tell_of_certificates(world: &World, told: &mut dyn FnMut(&str)) {
    let (key, file) = (KeyPair::generate().unwrap(), world.sandbox.path("home/client.crt"));
    let lines = format!("private_key = {{ file = \"key.pem\" }}\ncertificate = \"{}\"\n", file.display());
    world.configure(&lines);
    told("a certificate that is missing");
    fs::write(&file, "nothing").unwrap();
    told("a certificate that is none");
    let now = jiff::Timestamp::from_millisecond(SystemClock::new().now().wall).unwrap();
    let soon = now.to_zoned(jiff::tz::TimeZone::UTC).date() + jiff::Span::new().days(7);
    let soon = (soon.year().into(), soon.month().cast_unsigned(), soon.day().cast_unsigned());
    for (what, first, last) in [
        ("a certificate that has ended", (2000, 1, 1), (2001, 1, 1)),
        ("a certificate that is not valid yet", (2090, 1, 1), (2091, 1, 1)),
        ("a certificate that ends soon", (2000, 1, 1), soon),
    ] {
        let mut certificate = CertificateParams::new(Vec::new()).unwrap();
        certificate.not_before = date_time_ymd(first.0, first.1, first.2);
        certificate.not_after = date_time_ymd(last.0, last.1, last.2);
        fs::write(&file, certificate.self_signed(&key).unwrap().pem()).unwrap();
        told(what);
    }
    world.configure("");
}

#[test]
fn a_supervisor_that_stands_still_is_told_with_a_way_out() {
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    let pid = run.id().to_string();
    let mut pages = String::new();
    pages += &tell(&world, "run");
    run.signal(Signal::STOP);
    wait_until("that it stands still", || world.status().0.to_string().contains("-CONT").then_some(()));
    pages += &tell(&world, "run");
    pages += &tell(&world, "status");
    run.signal(Signal::CONT);
    // It sleeps until what it takes for the time.
    world.pass_time(Duration::from_secs(55 * 60));
    pages += &tell(&world, "status");
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    pages += &tell(&world, "status");
    compare("supervised", &pages.replace(&pid, "PID"));
}

#[test]
fn a_name_moves_no_cursor() {
    let world = World::new();
    world.configure("token_file = \"a\\n\\u001b[31mb/token\"");
    fs::write(world.sandbox.path("config/zg-tokend/a\n\x1b[31mb"), "").unwrap();
    for command in ["once", "check", "status"] {
        let output = world.sandbox.run([command]);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("a\\n\\u{1b}[31mb"), "{command}: {said}");
        assert!(!said.contains('\x1b'), "{command}: {said}");
    }
    let run = world.start_run();
    run.wait_for("a\\n\\u{1b}[31mb");
    assert!(!run.log().contains('\x1b'), "{}", run.log());
}

#[test]
fn help_that_nobody_gets_is_no_success() {
    let world = World::new();
    world.configure("");
    for line in ["--help", "--version", "once --help", "once --json", "check", "check --json", "status"] {
        let redirected = ["sh", "-c", "exec \"$@\" >/dev/full", "sh"];
        let output = finish(&mut under(redirected, &world.sandbox.command(line.split(' '))));
        assert!(output.stderr.contains("cannot write to stdout"), "{line}: {output:?}");
        assert_ne!(output.code, Some(0), "{line}: {output:?}");
    }
}

#[test]
fn a_login_that_is_refused_is_a_failure_even_if_another_works() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let mut set = world.sandbox.command(["set"]);
    let file = world.sandbox.path("wrong");
    fs::write(&file, "no-such-token").unwrap();
    let output = finish(set.stdin(fs::File::open(&file).unwrap()));
    assert_eq!(output.code, Some(77), "{output:?}");
    assert!(
        output.stderr.starts_with("error: account default: ") && output.stderr.contains("stays in use"),
        "{output:?}"
    );
    world.assert_live();
}
