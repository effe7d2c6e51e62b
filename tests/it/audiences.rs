//! Several access tokens of one login (`from`): one refresh token, one chain, one lock.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use zg_tokend::testing::demo::AuditEvent;
use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{Background, feed, wait_until};

/// A server that grants these scopes, and repeats a grant for so many seconds.
fn server(scopes: &str, grace: u64) -> World {
    World::with(IssuerOptions {
        scope: scopes.into(),
        reuse_grace: Duration::from_secs(grace),
        ..IssuerOptions::default()
    })
}

/// The account `main`, which has the login, and one more for each scope, with the scope's name.
fn configure(world: &World, seed: &Secret, scopes: &[&str]) {
    let table = |name: &str, keys: String| {
        format!("[accounts.{name}]\n{keys}\ntoken_file = \"{}\"\n", world.token_file_of(name).display())
    };
    let users = scopes.iter().map(|name| table(name, format!("from = \"main\"\nscope = \"{name}\"")));
    let main = table("main", format!("refresh_token = \"{}\"", seed.expose()));
    world.sandbox.write_config(&format!("{}{main}{}", world.client(), users.collect::<String>()));
}

/// The fingerprints of the refresh tokens that were sent, in order.
fn sent(world: &World) -> Vec<String> {
    let log = world.server.audit();
    let posts = log.iter().filter(|entry| entry.event == AuditEvent::Post);
    posts.filter_map(|entry| Some(entry.refresh_token?.to_string())).collect()
}

#[track_caller]
fn assert_sent_once(world: &World) {
    let sent = sent(world);
    let distinct: BTreeSet<_> = sent.iter().collect();
    assert_eq!(sent.len(), distinct.len(), "no refresh token is sent twice");
    let revoked = |entry: &&_| matches!(entry, AuditEvent::Revocation { .. });
    assert_eq!(world.server.audit().iter().map(|entry| &entry.event).filter(revoked).count(), 0);
}

fn assert_all_live(world: &World, accounts: &[&str]) {
    for account in accounts {
        assert!(world.reads_live(&world.token_file_of(account)), "{account}");
    }
}

fn tokens<'a>(world: &World, accounts: &[&'a str]) -> Vec<(&'a str, String)> {
    let read = |name: &&'a str| (*name, crate::common::world::read(&world.token_file_of(name)));
    accounts.iter().map(read).map(|(name, token)| (name, token.expose().to_owned())).collect()
}

const SCOPES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[test]
fn each_account_has_a_token_of_the_one_login() {
    let world = server("mail graph", 0);
    configure(&world, &world.seed(), &["mail", "graph"]);
    world.once_gives(0, []);
    let all = ["main", "mail", "graph"];
    assert_all_live(&world, &all);
    assert_eq!(world.posts(), 3);
    assert_sent_once(&world);
    let distinct: BTreeSet<_> = tokens(&world, &all).into_iter().map(|(_, token)| token).collect();
    assert_eq!(distinct.len(), 3);
    let state = world.state_of("main");
    assert_eq!(state["tokens"]["mail"]["access_token"]["scope"], "mail");
    assert!(!world.state_path("mail", "state").exists(), "one state has the login");
    // Nothing is due; each may be asked for by its name, and is renewed alone.
    world.once_gives(0, []);
    assert_eq!(world.posts(), 3);
    let before = tokens(&world, &all);
    let refused = before[1].1.clone();
    let rejected = feed(&mut world.sandbox.command(["rejected", "--account", "mail"]), &refused);
    assert_eq!(rejected.code, Some(0), "{rejected:?}");
    let after = tokens(&world, &all);
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    let token = world.sandbox.run(["token", "--account", "mail"]);
    assert_eq!(token.stdout.trim_end(), after[1].1);
    assert_ne!(after[1].1, refused);
    assert_sent_once(&world);
    let status = world.sandbox.run(["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(all.iter().all(|name| status.stdout.contains(name)), "{status:?}");
    let check = world.sandbox.run(["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
}

/// The first command of a new login may be `token` for one of its users.
#[test]
fn any_account_may_be_the_first() {
    let world = server("mail", 0);
    configure(&world, &world.seed(), &["mail"]);
    let token = world.sandbox.run(["token", "--account", "mail"]);
    assert_eq!(token.code, Some(0), "{token:?}");
    assert!(!world.token_file_of("main").exists());
    world.once_gives(0, []);
    assert_all_live(&world, &["main", "mail"]);
    assert_sent_once(&world);
}

#[test]
fn many_that_are_due_at_once_send_each_refresh_token_once() {
    let world = server(&SCOPES.join(" "), 0);
    configure(&world, &world.seed(), &SCOPES);
    let mut crowd: Vec<_> = (0..4)
        .map(|n| {
            Background::start(&mut world.sandbox.command(["once"]), world.sandbox.path(format!("{n}.log")))
        })
        .collect();
    for once in &mut crowd {
        assert_eq!(once.wait().code(), Some(0), "{}", once.log());
    }
    assert_eq!(world.posts(), 9);
    let run = world.run();
    world.sandbox.run(["status"]);
    drop(run);
    world.pass_time_of("main", Duration::from_secs(3000));
    let _run = world.run();
    wait_until("all tokens", || (world.grants() == 18).then_some(()));
    wait_until("the files", || {
        let all = SCOPES.iter().chain(&["main"]);
        let live = |name: &str| world.reads_live(&world.token_file_of(name));
        all.clone().all(|name| live(name)).then_some(())
    });
    assert_sent_once(&world);
}

/// The server has rotated, and the only process that would have heard of it is dead.
#[test]
fn a_killed_exchange_is_made_up_for() {
    let world = server("mail graph", 600);
    configure(&world, &world.seed(), &["mail", "graph"]);
    world.once_gives(0, []);
    let all = ["main", "mail", "graph"];
    for victim in all {
        let before = tokens(&world, &all);
        world.fault(Fault { delay_after_commit_ms: 60_000, ..Fault::default() });
        let grants = world.grants();
        let mut command = world.sandbox.command(["once", "--force", "--account", victim]);
        let mut once = Background::start(&mut command, world.sandbox.path("log"));
        wait_until("the grant", || (world.grants() > grants).then_some(()));
        once.signal(Signal::KILL);
        assert_eq!(wait_until("the end", || once.ended()).signal(), Some(9));
        assert_eq!(tokens(&world, &all), before);
        let output = world.once_gives(0, []);
        assert!(output.stderr.contains("a process died"), "{output:?}");
        assert_all_live(&world, &all);
        let state = world.state_of("main");
        assert!(state.get("in_flight").is_none());
        let mut state = state;
        // The limit for forced refreshes is not the matter here.
        state.as_object_mut().unwrap().remove("forced");
        let tokens = state["tokens"].as_object_mut().unwrap();
        tokens.values_mut().for_each(|part| drop(part.as_object_mut().unwrap().remove("forced")));
        fs::write(world.state_path("main", "state"), state.to_string()).unwrap();
    }
}

#[test]
fn a_dead_login_is_dead_for_all_and_is_not_sent_for_each() {
    let world = server("mail graph", 0);
    configure(&world, &world.seed(), &["mail", "graph"]);
    world.once_gives(0, []);
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.once_gives(77, ["--force", "--account", "main"]);
    let posts = world.posts();
    world.pass_time_of("main", Duration::from_secs(3500));
    let output = world.once_gives(77, []);
    assert_eq!(output.stderr.matches("log in").count(), 3, "{output:?}");
    assert_eq!(world.posts(), posts, "a refused refresh token is not sent again");

    // `set` names the account with the login, and gives all of them new tokens.
    let seed = world.seed();
    let refused = feed(&mut world.sandbox.command(["set", "--account", "mail"]), seed.expose());
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("--account main"), "{refused:?}");
    let before = tokens(&world, &["main", "mail", "graph"]);
    let set = feed(&mut world.sandbox.command(["set", "--account", "main"]), seed.expose());
    assert_eq!(set.code, Some(0), "{set:?}");
    world.once_gives(0, []);
    let after = tokens(&world, &["main", "mail", "graph"]);
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    assert_all_live(&world, &["main", "mail", "graph"]);
}

/// A refusal for one scope is no verdict about the login: Microsoft refuses a resource without consent
/// as invalid_grant.
#[test]
fn a_refusal_for_one_scope_leaves_the_others() {
    let world = server("mail graph", 0);
    configure(&world, &world.seed(), &["mail", "graph"]);
    world.once_gives(0, []);
    world.fault(Fault::reply(
        400,
        r#"{"error":"invalid_grant","error_description":"AADSTS65001: no consent"}"#,
    ));
    world.once_gives(77, ["--force", "--account", "mail"]);
    let posts = world.posts();
    world.once_gives(77, ["--force", "--account", "mail"]);
    assert_eq!(world.posts(), posts);
    world.once_gives(0, ["--force", "--account", "main"]);
    world.once_gives(0, ["--force", "--account", "graph"]);
    assert_sent_once_but_for_the_refusal(&world);
}

fn assert_sent_once_but_for_the_refusal(world: &World) {
    let sent = sent(world);
    let distinct: BTreeSet<_> = sent.iter().collect();
    assert_eq!(sent.len(), distinct.len() + 1);
}

#[test]
fn run_follows_a_new_login_of_the_other_account() {
    let world = server("mail", 0);
    configure(&world, &world.seed(), &["mail"]);
    let _run = world.run();
    let before = tokens(&world, &["mail"]);
    let set = feed(&mut world.sandbox.command(["set", "--account", "main"]), world.seed().expose());
    assert_eq!(set.code, Some(0), "{set:?}");
    wait_until("a token of the new login", || (tokens(&world, &["mail"]) != before).then_some(()));
    assert_all_live(&world, &["mail"]);
}

/// An account with a login of its own becomes one with `from`, and is renamed. Its token file has more
/// tokens behind it than the state knows of.
#[test]
fn an_account_may_begin_to_use_another_login_and_be_renamed() {
    let world = server("mail api", 0);
    let (main, other) = (world.seed(), world.seed());
    world.configure_accounts(&[("main", &main), ("mail", &other)]);
    world.once_gives(0, []);
    for _ in 0..3 {
        world.once_gives(0, ["--force"]);
    }
    configure(&world, &main, &["mail"]);
    world.once_gives(0, []);
    assert_eq!(world.state_of("main")["tokens"]["mail"]["generation"], 1);
    assert_all_live(&world, &["main", "mail"]);
    world.once_gives(0, ["--force"]);
    let config = fs::read_to_string(world.sandbox.config_path()).unwrap();
    world.sandbox.write_config(&config.replace("[accounts.mail]", "[accounts.imap]"));
    world.once_gives(0, []);
    assert_eq!(world.state_of("main")["tokens"]["imap"]["generation"], 1);
    assert_all_live(&world, &["main", "mail"]);
}

#[test]
fn a_logout_removes_the_tokens_of_all() {
    let world = server("mail", 0);
    configure(&world, &world.seed(), &["mail"]);
    world.once_gives(0, []);
    let refused = world.sandbox.run(["logout", "--local", "--account", "mail"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    let logout = world.sandbox.run(["logout", "--local", "--account", "main"]);
    assert_eq!(logout.code, Some(0), "{logout:?}");
    assert!(!world.token_file_of("main").exists());
    assert!(!world.token_file_of("mail").exists());
    let posts = world.posts();
    world.once_gives(77, []);
    assert_eq!(world.posts(), posts);
}

/// The same in the account's own table.
#[test]
fn audiences_may_stand_in_the_account_with_the_login() {
    let world = server("mail graph", 0);
    let file = |name| world.token_file_of(name).display().to_string();
    let config = format!(
        "{}[accounts.main]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n\
         [accounts.main.audience.mail]\nscope = \"mail\"\ntoken_file = \"{}\"\n\
         [accounts.main.audience.graph]\nscope = \"graph\"\ntoken_file = \"{}\"\n",
        world.client(),
        world.seed().expose(),
        file("main"),
        file("mail"),
        file("graph"),
    );
    world.sandbox.write_config(&config);
    world.once_gives(0, []);
    assert_all_live(&world, &["main", "mail", "graph"]);
    assert_sent_once(&world);
    assert_eq!(world.state_of("main")["tokens"]["main.mail"]["access_token"]["scope"], "mail");
    let token = world.sandbox.run(["token", "--account", "main.graph"]);
    assert_eq!(token.stdout.trim_end(), crate::common::world::read(&world.token_file_of("graph")).expose());
    let status = world.sandbox.run(["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let [login, user] = [&status["accounts"][0], &status["accounts"][1]];
    assert_eq!((&login["account"], login.get("from")), (&"main".into(), None), "{status:#}");
    assert_eq!((&user["account"], &user["from"]), (&"main.mail".into(), &"main".into()), "{status:#}");
    let status = world.sandbox.run(["status", "--account", "main.mail"]);
    assert!(status.stdout.contains("of account main"), "{status:?}");
    for (table, words) in [
        ("[accounts.main.audience.mail]\nclient_id = \"x\"", "`audience` stands beside `client_id`"),
        ("[accounts.main.audience.mail]\nstate_dir = \"/x\"", "unknown key `state_dir`"),
        ("[accounts.main.audience.'a b']", "has a bad name"),
        (
            "[accounts.'main.x']\nfrom = 'main'\ntoken_file = '/x'\n[accounts.main.audience.x]\ntoken_file = '/y'",
            "makes another account",
        ),
        (
            "[accounts.main.audience.mail]\ntoken_file = '/x'\n[accounts.main.audience.mail.audience.x]\ntoken_file = '/y'",
            "has tables where",
        ),
    ] {
        let (head, _) = config.split_once("[accounts.main.audience.mail]").unwrap();
        world.sandbox.write_config(&format!("{head}{table}\n"));
        let output = world.once_gives(78, []);
        assert!(output.stderr.contains(words), "{table}: {output:?}");
    }
}

/// Two accounts with one refresh token can only mean one login.
#[test]
fn accounts_of_one_refresh_token_share_the_login() {
    let world = server("mail graph", 0);
    let seed = world.seed();
    let table = |name: &str, scope: &str| {
        let file = world.token_file_of(name);
        format!(
            "[accounts.{name}]\nrefresh_token = \"{}\"\nscope = \"{scope}\"\ntoken_file = \"{}\"\n",
            seed.expose(),
            file.display()
        )
    };
    let (mail, graph) = (table("mail", "mail"), table("graph", "graph"));
    world.sandbox.write_config(&format!("{}{mail}{graph}", world.client()));
    let check = world.sandbox.run(["check"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    world.once_gives(0, []);
    assert_all_live(&world, &["mail", "graph"]);
    assert!(world.state_path("mail", "state").exists() && !world.state_path("graph", "state").exists());
    for account in ["mail", "graph", "mail"] {
        world.once_gives(0, ["--force", "--account", account]);
    }
    assert_sent_once(&world);
    // In another order the other one has the login: it takes the state over, and no old token is sent.
    world.sandbox.write_config(&format!("{}{graph}{mail}", world.client()));
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    assert_all_live(&world, &["mail", "graph"]);
    assert_sent_once(&world);
    // Without it, the one that is left keeps the login.
    world.sandbox.write_config(&format!("{}{mail}", world.client()));
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    assert_all_live(&world, &["mail"]);
    assert_sent_once(&world);
    // The same access token twice is what outputs are for.
    world.sandbox.write_config(&format!(
        "{}{mail}{}",
        world.client(),
        graph.replace("\"graph\"\n", "\"mail\"\n")
    ));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("is also that of account `mail`"), "{output:?}");
}

/// The token file of any account of the login shows that the state is older.
#[test]
fn a_restored_login_is_found_by_the_files_of_all() {
    let world = server("mail graph", 0);
    configure(&world, &world.seed(), &["mail", "graph"]);
    world.once_gives(0, []);
    let snapshot = world.state_of("main");
    world.once_gives(0, ["--force", "--account", "graph"]);
    fs::write(world.state_path("main", "state"), snapshot.to_string()).unwrap();
    world.pass_time_of("main", Duration::from_secs(3000));
    let posts = world.posts();
    let output = world.once_gives(74, []);
    assert_eq!(output.stderr.matches("restored from an earlier time").count(), 3, "{output:?}");
    let (status, _) = world.status();
    assert!(status["cause"].as_str().unwrap().contains("of another account of this login"), "{status:#}");
    assert_eq!(status["token_file"]["current"], true, "{status:#}");
    // Lost altogether, and with it the file of the account that has the login.
    fs::remove_dir_all(world.state_path("main", "")).unwrap();
    fs::remove_file(world.token_file_of("main")).unwrap();
    let output = world.once_gives(74, ["--account", "main"]);
    assert!(output.stderr.contains("the state is missing"), "{output:?}");
    assert_eq!(world.posts(), posts);
    // A new login makes good for all of them. No person logs in within the 20 ms by which the stamp of a file
    // may be wrong, but a test does.
    for name in ["mail", "graph"] {
        let file = fs::File::options().write(true).open(world.token_file_of(name)).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(1)).unwrap();
    }
    configure(&world, &world.seed(), &["mail", "graph"]);
    world.once_gives(0, []);
    world.once_gives(0, ["--force"]);
    assert_all_live(&world, &["main", "mail", "graph"]);
    assert_sent_once(&world);
}
