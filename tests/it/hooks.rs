//! Hooks: told after the fact, once for each change, and never in anybody's way.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use zg_tokend::testing::demo::{Fault, Outage};

use crate::common::world::World;
use crate::common::{Background, wait_until};

const HOUR: Duration = Duration::from_secs(3600);

/// A config with all four hooks, each of which adds its event, its message and then its whole
/// environment to a file.
fn with_hooks(world: &World) {
    let script = world.sandbox.path("hook");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\nread -r line && exit 1\necho \"$ZG_TOKEND_EVENT\" >>'{}'\nenv >>'{}'\n",
            told_path(world).display(),
            world.sandbox.path("environment").display(),
        ),
    )
    .unwrap();
    let hooks = ["on_refresh", "on_failure", "on_recovery", "on_needs_login"];
    let lines = hooks.map(|hook| format!("{hook} = [\"sh\", \"{}\"]\n", script.display()));
    world.configure(&lines.concat());
}

fn told_path(world: &World) -> PathBuf {
    world.sandbox.path("told")
}

fn told(world: &World) -> Vec<String> {
    let text = fs::read_to_string(told_path(world)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_change_is_told_once() {
    let world = World::new();
    with_hooks(&world);
    world.once_gives(0, []);
    assert_eq!(told(&world), ["refresh"]);
    world.once_gives(0, []);
    assert_eq!(told(&world), ["refresh"], "nothing has happened");

    world.outage(Some(Outage::Closed));
    world.pass_time(HOUR);
    for _ in 0..3 {
        world.once_gives(69, []);
    }
    assert_eq!(told(&world), ["refresh", "failure"], "an outage is told once, by whichever process");

    world.outage(None);
    world.pass_time(Duration::from_secs(60));
    world.once_gives(0, []);
    assert_eq!(told(&world)[2..], ["recovery", "refresh"]);
}

/// The reader of such a mail need not know how to repair it.
#[test]
fn a_failure_that_only_time_mends_is_told_with_a_way_out() {
    let world = World::new();
    with_hooks(&world);
    world.fault(Fault::reply(503, "{}"));
    world.once_gives(69, []);
    assert_eq!(told(&world), ["failure"]);
    let environment = fs::read_to_string(world.sandbox.path("environment")).unwrap();
    assert!(environment.contains("ZG_TOKEND_HINT=wait: `zg-tokend run` tries again"), "{environment}");
}

#[test]
fn a_dead_login_is_told_once_and_so_is_the_next_one() {
    let world = World::new();
    with_hooks(&world);
    world.once_gives(0, []);
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.pass_time(HOUR);
    world.once_gives(77, []);
    world.once_gives(77, []);
    assert_eq!(told(&world), ["refresh", "needs_login"]);
    let environment = fs::read_to_string(world.sandbox.path("environment")).unwrap();
    assert!(
        environment.contains("ZG_TOKEND_MESSAGE=the server refuses the refresh token: invalid_grant"),
        "{environment}"
    );
    assert!(environment.contains("ZG_TOKEND_HINT=log in again"), "{environment}");

    with_hooks(&world);
    world.once_gives(0, []);
    assert_eq!(told(&world)[2..], ["recovery", "refresh"]);
}

#[test]
fn a_dead_login_is_not_told_again_after_another_failure() {
    let world = World::new();
    with_hooks(&world);
    world.once_gives(0, []);
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.pass_time(HOUR);
    world.once_gives(77, []);
    world.outage(Some(Outage::Closed));
    world.once_gives(69, ["--force", "--retry-dead"]);
    world.once_gives(77, []);
    assert_eq!(told(&world), ["refresh", "needs_login"]);
}

/// Neither `token` nor git waits for a hook: the next pass of `run` or `once` tells.
#[test]
fn hooks_for_a_change_that_token_made_run_in_the_next_pass() {
    let world = World::new();
    with_hooks(&world);
    let token = |code| {
        let output = world.sandbox.run(["token"]);
        assert_eq!(output.code, Some(code), "{output:?}");
    };
    token(0);
    assert_eq!(told(&world), [""; 0], "no hook is in a caller's way");
    world.once_gives(0, []);
    world.once_gives(0, []);
    assert_eq!(told(&world), ["refresh"]);

    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.pass_time(HOUR);
    token(77);
    token(77);
    assert_eq!(told(&world), ["refresh"]);
    world.once_gives(77, []);
    world.once_gives(77, []);
    assert_eq!(told(&world), ["refresh", "needs_login"]);
}

#[test]
fn a_token_that_was_refused_is_replaced_and_that_is_told_at_once() {
    let world = World::new();
    with_hooks(&world);
    world.once_gives(0, []);
    let refused = world.token().fingerprint().to_string();
    let output = world.sandbox.run(["rejected", "--sha256", &refused]);
    assert_eq!((output.code, told(&world)), (Some(0), vec!["refresh".to_owned(); 2]), "{output:?}");
    world.once_gives(0, []);
    assert_eq!(told(&world).len(), 2);
}

/// Its neighbour is at work on a slow exchange, and well.
#[test]
fn a_pass_that_finds_the_account_busy_runs_no_hook() {
    let world = World::new();
    with_hooks(&world);
    world.once_gives(0, []);
    world.pass_time(Duration::from_secs(35 * 60));
    let token = world.token().fingerprint().to_string();
    world.fault(Fault { delay_after_commit_ms: 6000, ..Fault::default() });
    let mut holder =
        Background::start(&mut world.sandbox.command(["once", "--force"]), world.sandbox.path("holder.log"));
    wait_until("a request", || (world.posts() == 2).then_some(()));
    for args in [
        ["token", "--min-valid", "2h", "--on-busy", "use-existing"],
        ["rejected", "--sha256", &token, "--wait", "0s"],
    ] {
        let output = world.sandbox.run(args);
        assert!(output.stderr.contains("another process"), "{output:?}");
    }
    assert_eq!(holder.wait().code(), Some(0));
    assert_eq!(told(&world), ["refresh"; 2]);
}

#[test]
fn a_hook_is_told_what_it_needs_and_no_secret() {
    let world = World::with_secret();
    let seed = world.seed();
    let path = world.sandbox.path("environment");
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{}\"\nclient_id = \"zg\"\nclient_secret = {{ env = \"ZG_SECRET\" }}\n\
         refresh_token = {{ env = \"ZG_SEED\" }}\non_refresh = [\"sh\", \"-c\", \"env >'{}'\"]\n",
        world.server.token_endpoint(),
        path.display()
    ));
    let mut command = world.sandbox.command(["once"]);
    command.env("ZG_SECRET", "right").env("ZG_SEED", seed.expose()).env("NOTIFY_SOCKET", "/nowhere");
    let output = crate::common::finish(command.env("ZEROGRAVITY_TOKEN", "masking"));
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    let environment = fs::read_to_string(path).unwrap();
    for line in [
        "ZG_TOKEND_EVENT=refresh".to_owned(),
        "ZG_TOKEND_ACCOUNT=default".to_owned(),
        "ZG_TOKEND_GENERATION=1".to_owned(),
        format!("ZG_TOKEND_TOKEN_FILE={}", world.token_file().display()),
        format!("ZG_TOKEND_CONFIG={}", world.sandbox.config_path().display()),
    ] {
        assert!(environment.lines().any(|other| other == line), "{line} in {environment}");
    }
    assert!(environment.contains("ZG_TOKEND_EXPIRES_AT="), "{environment}");
    let token = world.token();
    for hidden in ["ZG_SECRET", "ZG_SEED", seed.expose(), token.expose(), "NOTIFY_SOCKET", "masking"] {
        assert!(!environment.contains(hidden), "{hidden} in {environment}");
    }
}

#[test]
fn a_failing_hook_is_a_warning_and_nothing_else() {
    let world = World::new();
    world.configure("on_refresh = [\"sh\", \"-c\", \"echo no such thing >&2; exit 3\"]");
    let output = world.once_gives(0, ["--quiet"]);
    assert_eq!(
        output.stderr,
        "warning: account default: hook on_refresh failed: exit status: 3: no such thing\n\
         hint: run the command of on_refresh by hand, as the user who runs zg-tokend and with </dev/null\n"
    );
    world.assert_live();

    world.configure("on_refresh = [\"/nonexistent/hook\"]");
    let output = world.once_gives(0, []);
    assert!(
        output.stderr.contains("hook on_refresh failed\ncause: it cannot be started: No such file"),
        "{output:?}"
    );
    world.assert_live();
}

#[test]
fn an_account_can_do_without_the_default_hook() {
    let world = World::new();
    let seeds = [world.seed(), world.seed()];
    let path = told_path(&world);
    let table = |name: &str, seed: &str, more: &str| {
        let file = world.token_file_of(name);
        format!("[accounts.{name}]\nrefresh_token = \"{seed}\"\ntoken_file = \"{}\"\n{more}", file.display())
    };
    world.sandbox.write_config(&format!(
        "{}on_refresh = [\"sh\", \"-c\", \"echo $ZG_TOKEND_ACCOUNT >>'{}'\"]\n{}{}",
        world.client(),
        path.display(),
        table("loud", seeds[0].expose(), ""),
        table("silent", seeds[1].expose(), "on_refresh = []\n"),
    ));
    world.once_gives(0, []);
    assert_eq!(told(&world), ["loud"]);
}

/// The hook never ends by itself: refreshes go on beside it, in time, and the stop does not wait.
#[test]
fn a_hook_that_hangs_is_in_nobodys_way() {
    let world = World::with_lifetime(2);
    let pid = world.sandbox.path("pid");
    world.configure(&format!(
        "on_refresh = [\"sh\", \"-c\", \"echo $$ >'{}'; exec sleep 1000\"]",
        pid.display()
    ));
    let mut run = world.run();
    wait_until("five refreshes", || (world.grants() >= 5).then_some(()));
    assert_eq!(run.stop().code(), Some(0));
    // The shell may be slower than five refreshes.
    let pid = wait_until("the hook", || fs::read_to_string(&pid).ok()?.trim().parse().ok());
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// The refreshed token is stored and published by then: `once` ends, and the hook with it.
#[test]
fn a_signal_ends_the_hooks_of_once() {
    for signal in [Signal::INT, Signal::TERM] {
        let world = World::new();
        let begun = world.sandbox.path("begun");
        let hook = format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", begun.display());
        world.configure(&format!("on_refresh = [\"sh\", \"-c\", \"{hook}\"]"));
        let mut once =
            Background::start(&mut world.sandbox.command(["once"]), world.sandbox.path("once.log"));
        wait_until("the hook", || begun.exists().then_some(()));
        once.signal(signal);
        assert_eq!(once.wait().code(), Some(0), "{}", once.log());
        assert!(
            once.log().contains("hook on_refresh failed\ncause: it was killed, because"),
            "{}",
            once.log()
        );
        let pid = fs::read_to_string(begun).unwrap().trim().parse().unwrap();
        assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err(), "the hook has ended");
        world.assert_live();
    }
}

#[test]
fn run_tells_as_once_does() {
    let world = World::with_lifetime(2);
    with_hooks(&world);
    let mut run = world.run();
    wait_until("a refresh", || (told(&world).len() >= 2).then_some(()));
    world.outage(Some(Outage::Closed));
    wait_until("a failure", || told(&world).iter().any(|event| event == "failure").then_some(()));
    world.outage(None);
    wait_until("a recovery", || told(&world).iter().any(|event| event == "recovery").then_some(()));
    run.stop();
    let changes: Vec<String> = told(&world).into_iter().filter(|event| event != "refresh").collect();
    assert_eq!(changes, ["failure", "recovery"]);
}

/// A secret that any account takes from the environment is kept from every program that is started: hooks,
/// commands that give a secret, and what `exec` runs.
#[test]
fn no_program_is_given_the_secrets_of_any_account() {
    let world = World::new();
    let seeds = [world.seed(), world.seed()];
    let write = |name: &str| format!("env >'{}'", world.sandbox.path(name).display());
    let script = world.sandbox.path("script");
    fs::write(&script, format!("{}; echo {}", write("command"), seeds[0].expose())).unwrap();
    world.sandbox.write_config(&format!(
        "{client}on_refresh = [\"sh\", \"-c\", \"{hook}\"]\n\
         [accounts.a]\nrefresh_token = {{ command = [\"sh\", \"{script}\"] }}\ntoken_file = \"{a}\"\n\
         [accounts.b]\nrefresh_token = {{ env = \"ZG_SEED\" }}\ntoken_file = \"{b}\"\n\
         push = [{{ url = \"https://push.example\", api_key = {{ env = \"ZG_PUSH_KEY\" }} }}]\n",
        client = world.client(),
        hook = write("hook"),
        script = script.display(),
        a = world.token_file_of("a").display(),
        b = world.token_file_of("b").display(),
    ));
    let run = |args: &[&str]| {
        let mut command = world.sandbox.command(args.iter().copied());
        command.env("ZG_SEED", seeds[1].expose()).env("ZG_PUSH_KEY", "push-key");
        command.env("NOTIFY_SOCKET", "/nowhere").env("ITS_OWN", "stays");
        let output = crate::common::finish(&mut command);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
    };
    run(&["once", "--account", "a"]);
    run(&["exec", "--account", "a", "--", "sh", "-c", &write("exec")]);
    for name in ["command", "hook", "exec"] {
        let found = fs::read_to_string(world.sandbox.path(name)).unwrap();
        assert!(found.contains("ITS_OWN=stays"), "{name}: {found}");
        for hidden in ["ZG_SEED", "ZG_PUSH_KEY"] {
            assert!(!found.contains(hidden), "{hidden} in the environment of {name}: {found}");
        }
        // A program that `exec` runs in place of a service may notify systemd for it; a hook may not.
        assert_eq!(found.contains("NOTIFY_SOCKET"), name == "exec", "{name}: {found}");
    }
}

/// A program that writes its process id to a file, and a line for each SIGUSR1.
fn reader(world: &World) -> (Background, PathBuf, PathBuf) {
    let (pid_file, told) = (world.sandbox.path("reader.pid"), world.sandbox.path("signals"));
    let script = format!(
        "trap 'echo usr1 >>\"{}\"' USR1; umask 077; echo $$ >'{1}.new'; mv '{1}.new' '{1}'; while :; do sleep 0.05; done",
        told.display(),
        pid_file.display()
    );
    let mut command = std::process::Command::new("sh");
    let reader = Background::start(command.args(["-c", &script]), world.sandbox.path("reader.log"));
    wait_until("the pid file", || pid_file.exists().then_some(()));
    (reader, pid_file, told)
}

#[test]
fn a_signal_tells_a_program_of_each_new_token() {
    let world = World::new();
    let (_reader, pid_file, told) = reader(&world);
    world.configure(&format!("signal = {{ pid_file = \"{}\", signal = \"USR1\" }}\n", pid_file.display()));
    let signals = || fs::read_to_string(&told).unwrap_or_default().lines().count();
    let output = world.once_gives(0, []);
    assert_eq!(output.stderr, "");
    wait_until("the signal", || (signals() == 1).then_some(()));
    world.once_gives(0, []);
    let _run = world.run();
    world.once_gives(0, ["--force"]);
    wait_until("the signal of the next token", || (signals() == 2).then_some(()));
}

#[test]
fn a_signal_goes_to_no_process_that_others_choose() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let (_reader, pid_file, told) = reader(&world);
    world.configure(&format!("signal = {{ pid_file = \"{}\", signal = \"USR1\" }}\n", pid_file.display()));
    fs::set_permissions(&pid_file, fs::Permissions::from_mode(0o666)).unwrap();
    let output = world.once_gives(0, []);
    assert!(output.stderr.contains("can be changed by others"), "{output:?}");
    for (text, expected) in
        [("-1", "process id"), ("0", "process id"), ("x", "process id"), ("2147483647", "cannot send")]
    {
        fs::write(&pid_file, text).unwrap();
        fs::set_permissions(&pid_file, fs::Permissions::from_mode(0o600)).unwrap();
        world.permit_force();
        let output = world.once_gives(0, ["--force"]);
        assert!(output.stderr.contains(expected), "{text}: {output:?}");
    }
    fs::remove_file(&pid_file).unwrap();
    world.permit_force();
    let output = world.once_gives(0, ["--force"]);
    assert!(output.stderr.contains("does not exist"), "{output:?}");
    assert!(!told.exists());
}
