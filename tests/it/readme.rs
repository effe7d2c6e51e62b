//! The recipes of the README, run as they are written but for names of hosts and directories.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use zg_tokend::testing::demo::Fault;

use crate::common::world::World;
use crate::common::{Output, curl, finish, under};

/// The README and the longer recipes.
const PAGES: [&str; 7] = [
    include_str!("../../README.md"),
    include_str!("../../docs/recipes/hooks.md"),
    include_str!("../../docs/recipes/http.md"),
    include_str!("../../docs/recipes/login.md"),
    include_str!("../../docs/recipes/mail.md"),
    include_str!("../../docs/recipes/network.md"),
    include_str!("../../docs/recipes/prometheus.md"),
];

/// The fenced block that holds these words.
pub fn block(words: &str) -> &'static str {
    let mut blocks = PAGES.iter().flat_map(|page| page.split("```").skip(1).step_by(2));
    let block = blocks.find(|block| block.contains(words)).unwrap();
    block.split_once('\n').unwrap().1
}

/// Runs a script as the README's reader would, with the program in the PATH.
fn shell(world: &World, script: &str) -> Output {
    let mut command = under(["sh", "-c", script], &world.sandbox.command([]));
    let programs = Path::new(env!("CARGO_BIN_EXE_zg-tokend")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    finish(command.env("PATH", format!("{}:{path}", programs.display())))
}

#[test]
fn curl_takes_the_header_and_a_refused_token_is_replaced() {
    let world = World::new();
    world.configure("");
    let script = block("curl -fsS -H @-").replace("https://api.example.com/v1/me", &resource(&world));
    let both = shell(&world, &script);
    assert_eq!((both.code, &*both.stdout), (Some(0), r#"{"ok":true}{"ok":true}"#), "{both:?}");
    assert_eq!(world.posts(), 1);

    let token = format!("token={}", world.token().expose());
    curl(["-d", &token, "-d", "client_id=demo", &format!("{}/revoke", world.server.url())]);
    let (plain, exec) = script.split_at(script.find("zg-tokend exec").unwrap());
    assert_eq!(shell(&world, plain).code, Some(22));
    let replaced = shell(&world, exec);
    assert_eq!((replaced.code, &*replaced.stdout), (Some(0), r#"{"ok":true}"#), "{replaced:?}");
    assert_eq!(world.posts(), 2);
}

fn resource(world: &World) -> String {
    format!("{}/resource", world.server.url())
}

#[test]
fn git_asks_its_helper() {
    let world = World::new();
    world.configure("");
    let script = block("credential.https");
    let question = r"printf 'protocol=https\nhost=git.example.com\n\n' | git credential fill";
    let output = shell(&world, &format!("set -e\n{script}\n{question}"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let password = format!("password={}", world.token().expose());
    assert!(output.stdout.lines().any(|line| line == password), "{output:?}");
}

#[test]
fn the_textfile_collector_gets_the_whole_or_keeps_what_it_has() {
    let world = World::new();
    world.configure("");
    world.once_gives(0, []);
    let directory = world.sandbox.path("home");
    let script = block("zg-tokend.prom");
    let script = script.replace("/var/lib/prometheus/node-exporter", directory.to_str().unwrap());
    let metrics = || fs::read_to_string(directory.join("zg-tokend.prom")).unwrap();
    assert_eq!(shell(&world, &script).code, Some(0));
    let fresh = metrics();
    assert!(fresh.contains(r#"zg_tokend_account_state{account="default",state="fresh"} 1"#), "{fresh}");

    let temporary = directory.join("zg-tokend.tmp");
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    assert_ne!(shell(&world, &script).code, Some(0));
    assert_eq!(metrics(), fresh);
    fs::remove_file(&temporary).unwrap();
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.once_gives(77, ["--force"]);
    assert_eq!(shell(&world, &script).code, Some(0));
    let dead = metrics();
    assert!(dead.contains(r#"{account="default",state="needs_login"} 1"#), "{dead}");
    world.sandbox.write_config("[");
    assert_ne!(shell(&world, &script).code, Some(0));
    assert_eq!(metrics(), dead);
}

/// Takes one mail, and gives what the client authenticated with, and the mail.
fn take_mail(mut connection: TcpStream) -> (String, String) {
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
    let (mut credentials, mut mail) = (String::new(), String::new());
    // The client may leave without waiting for the last answer.
    let mut say = |words: &str| _ = connection.write_all(format!("{words}\r\n").as_bytes());
    say("220 here");
    while let Some(Ok(line)) = lines.next() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["RCPT", to] => {
                mail = format!("{to}\n");
                say("250 known");
            }
            ["EHLO", ..] => say("250-here\r\n250 AUTH OAUTHBEARER"),
            ["AUTH", "OAUTHBEARER", response] => {
                response.clone_into(&mut credentials);
                say("235 welcome");
            }
            ["DATA"] => {
                say("354 go on");
                mail.extend(
                    lines
                        .by_ref()
                        .map_while(Result::ok)
                        .take_while(|line| line != ".")
                        .map(|line| line + "\n"),
                );
                say("250 taken");
            }
            ["QUIT"] => say("221 bye"),
            _ => say("250 yes"),
        }
    }
    (credentials, mail)
}

#[test]
fn msmtp_sends_a_mail() {
    use base64::Engine as _;

    let world = World::new();
    world.configure("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("port {}", listener.local_addr().unwrap().port());
    // The tests' server does not speak TLS.
    let config = block("passwordeval")
        .replace("smtp.example.com", "127.0.0.1")
        .replace("port 587", &port)
        .replace("tls on", "tls off");
    let path = world.sandbox.path("home/.msmtprc");
    fs::write(&path, config).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let server = std::thread::spawn(move || take_mail(listener.accept().unwrap().0));
    let sent = shell(&world, r"printf 'Subject: hi\n\nhello\n' | msmtp -a mail bob@example.com");
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let credentials = base64::prelude::BASE64_STANDARD.decode(server.join().unwrap().0).unwrap();
    let credentials = String::from_utf8(credentials).unwrap();
    assert!(credentials.contains(&format!("auth=Bearer {}\u{1}", world.token().expose())), "{credentials:?}");
}

/// An empty mailbox, and what the client authenticated with.
fn show_mailbox(mut connection: TcpStream) -> String {
    let lines = BufReader::new(connection.try_clone().unwrap()).lines();
    // The client may leave without waiting for the last answer.
    let mut say = |words: &str| _ = connection.write_all(format!("{words}\r\n").as_bytes());
    let mut credentials = String::new();
    say("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] here");
    for line in lines.map_while(Result::ok) {
        let (tag, command) = line.split_once(' ').unwrap();
        if let Some(response) = command.strip_prefix("AUTHENTICATE XOAUTH2 ") {
            response.clone_into(&mut credentials);
        } else if command.starts_with("SELECT") {
            say("* 0 EXISTS\r\n* OK [UIDVALIDITY 1] one\r\n* OK [UIDNEXT 1] one");
        }
        say(&format!("{tag} OK [CAPABILITY IMAP4rev1] done"));
        if command == "LOGOUT" {
            break;
        }
    }
    credentials
}

#[test]
fn mbsync_fetches_mail() {
    use base64::Engine as _;

    let world = World::new();
    world.configure("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("Host 127.0.0.1\nPort {}\nSSLType None", listener.local_addr().unwrap().port());
    // Where the mail is to go is not in the README, and the tests' server does not speak TLS.
    let stores = "\nIMAPStore far\nAccount mail\n\nMaildirStore near\nInbox ~/mail\n\n\
                  Channel mail\nFar :far:\nNear :near:\nCreate Near\n";
    let config = block("PassCmd").replace("Host imap.example.com", &place) + stores;
    fs::write(world.sandbox.path("home/.mbsyncrc"), config).unwrap();
    let server = std::thread::spawn(move || show_mailbox(listener.accept().unwrap().0));
    let fetched = shell(&world, "mbsync mail");
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    let credentials = base64::prelude::BASE64_STANDARD.decode(server.join().unwrap()).unwrap();
    let expected = format!("user=alice@example.com\u{1}auth=Bearer {}\u{1}\u{1}", world.token().expose());
    assert_eq!(String::from_utf8(credentials).unwrap(), expected);
}

#[test]
fn a_program_of_cargo_gets_its_manual_pages_and_completions() {
    let world = World::new();
    // cp, since this process may fork while it has the program open for writing.
    let program = env!("CARGO_BIN_EXE_zg-tokend");
    let install = format!("mkdir -p ~/.cargo/bin\ncp '{program}' ~/.cargo/bin/\nPATH=~/.cargo/bin:$PATH");
    let block_of = |words| format!("set -e\n{install}\n{}", block(words));
    let installed = shell(&world, &block_of("zg-tokend man --install"));
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let home = world.sandbox.path("home");
    let files = [
        ".cargo/share/man/man1/zg-tokend.1",
        ".cargo/share/man/man5/zg-tokend.toml.5",
        ".local/share/bash-completion/completions/zg-tokend",
    ];
    for file in files {
        assert!(fs::metadata(home.join(file)).unwrap().len() > 1000, "{file}");
        assert!(file.starts_with(".local") || installed.stdout.contains(file), "{installed:?}");
    }
    let removed = shell(&world, &block_of("rm -f ~/.cargo/share/man"));
    assert_eq!(removed.code, Some(0), "{removed:?}");
    for file in files {
        assert!(!home.join(file).exists(), "{file}");
    }
}

#[test]
fn the_config_of_two_accounts_is_valid() {
    let world = World::new();
    world.sandbox.write_config(block("[accounts.mail]"));
    fs::create_dir_all(world.sandbox.path("home/.local/share")).unwrap();
    let secret = world.sandbox.path("config/zg-tokend/mail-secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let checked = world.sandbox.run(["check"]);
    assert!(checked.code == Some(0) && checked.stdout.contains("2 accounts"), "{checked:?}");
    // Both can log in, and neither has yet.
    let once = world.sandbox.run(["once"]);
    assert_eq!(once.code, Some(77), "{once:?}");
    for account in ["default", "mail"] {
        assert!(once.stderr.contains(&format!("`zg-tokend login --account {account}`")), "{once:?}");
    }
}

/// The messages of the program for the errors in the README's table.
fn problems() -> String {
    let mut told = String::new();
    let mut tell = |world: &World, command: &str| {
        let output = finish(world.sandbox.command([command]).env("ZEROGRAVITY_TOKEN", "x"));
        told += &(output.stdout + &output.stderr);
    };
    // On the wire.
    for (status, body) in
        [(503, "{}"), (400, r#"{"error":"invalid_client"}"#), (400, r#"{"error":"invalid_grant"}"#)]
    {
        let world = World::new();
        world.configure("");
        world.fault(Fault::reply(status, body));
        tell(&world, "once");
        tell(&world, "once");
    }
    let world = World::new();
    world.sandbox.write_config(
        "token_endpoint = \"http://127.0.0.1:1/token\"\nclient_id = \"demo\"\nrefresh_token = \"seed\"\n",
    );
    tell(&world, "once");

    // In the config and around it.
    let world = World::new();
    world.configure_inputs("refresh_token = { env = \"NOT_SET\" }");
    tell(&world, "once");
    let open = world.sandbox.path("home/open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    world.configure(&format!("token_file = \"{}\"", open.join("token").display()));
    tell(&world, "once");
    fs::set_permissions(world.sandbox.config_path(), Permissions::from_mode(0o644)).unwrap();
    tell(&world, "once");

    // Later.
    let world = World::new();
    world.configure("");
    let mut run = world.run();
    tell(&world, "run");
    run.stop();
    world.pass_time(Duration::from_secs(55 * 60));
    tell(&world, "status");
    world.once_gives(0, []);
    fs::write(world.token_file(), "another").unwrap();
    tell(&world, "status");
    told
}

#[test]
fn the_messages_of_the_table_are_said() {
    // The tests of login get its messages.
    let problems = problems() + include_str!("../golden/login.txt");
    let said = |message: &str| {
        let mut parts = message.split('…').map(str::trim);
        let first = parts.next().unwrap();
        problems.lines().any(|line| line.contains(first) && parts.clone().all(|part| line.contains(part)))
    };
    let readme = include_str!("../../README.md");
    let table = readme.split("| it says | what to do |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let messages: Vec<_> =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert!(messages.len() > 10, "{messages:?}");
    // The other message needs a mount: see the tests of placement.
    for message in messages.into_iter().filter(|message| !message.contains("mount point")) {
        assert!(said(message), "{message}\n\n{problems}");
    }
}

/// Runs a script with a desktop that takes notifications; what it was asked to show.
fn on_a_desktop(world: &World, script: &str) -> (Output, String) {
    let seen = world.sandbox.path("home/seen");
    let script = format!(
        "/usr/bin/python3 -m dbusmock --session --template notification_daemon >'{seen}' 2>&1 & desktop=$!\n\
         until dbus-send --session --print-reply --dest=org.freedesktop.Notifications / \
         org.freedesktop.DBus.Peer.Ping >/dev/null 2>&1; do kill -0 $desktop || exit 99; done\n\
         {script}\ncode=$?; kill $desktop; exit $code",
        seen = seen.display()
    );
    let output = shell(world, &format!("exec dbus-run-session -- sh -c '{}'", script.replace('\'', "'\\''")));
    (output, fs::read_to_string(seen).unwrap())
}

#[test]
fn hooks_notify_the_desktop_and_send_a_mail() {
    let world = World::new();
    // There is no service to reload.
    let hooks = block("on_needs_login =").lines().filter(|line| !line.starts_with("on_refresh"));
    world.configure(&hooks.collect::<Vec<_>>().join("\n"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = world.sandbox.path("home/.msmtprc");
    fs::write(&path, format!("account default\nhost 127.0.0.1\nport {port}\nfrom me@example.com\n")).unwrap();
    world.once_gives(0, []);

    world.pass_time(Duration::from_secs(3600));
    world.fault(Fault::reply(503, "{}"));
    let (output, seen) = on_a_desktop(&world, "zg-tokend once");
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(!output.stderr.contains("hook"), "{output:?}");
    let notification =
        r#"Notify "notify-send" 0 "" "zg-tokend: default" "the token endpoint answers HTTP 503"#;
    assert!(seen.contains(notification), "{seen}");

    // From cron, which knows no more of the desktop than what its table says.
    world.pass_time(Duration::from_secs(60));
    let (output, seen) = on_a_desktop(
        &world,
        "env -i HOME=\"$HOME\" XDG_CONFIG_HOME=\"$XDG_CONFIG_HOME\" XDG_STATE_HOME=\"$XDG_STATE_HOME\" PATH=\"$PATH\" \
         DBUS_SESSION_BUS_ADDRESS=\"$DBUS_SESSION_BUS_ADDRESS\" zg-tokend once --quiet",
    );
    assert!(output.code == Some(0) && !output.stderr.contains("hook"), "{output:?}");
    assert!(seen.contains(r#""" "zg-tokend" "the token is fresh again""#), "{seen}");

    let server = std::thread::spawn(move || take_mail(listener.accept().unwrap().0));
    world.fault(Fault::reply(400, r#"{"error":"invalid_grant"}"#));
    world.once_gives(77, ["--force"]);
    let (_, mail) = server.join().unwrap();
    let (head, body) = mail.split_once("\n\n").unwrap();
    assert!(head.starts_with("TO:<alice>\n") && head.contains("\nSubject: log in again"), "{mail}");
    assert!(body.starts_with("the server refuses the refresh token: invalid_grant"), "{mail}");
    assert!(
        body.lines()
            .nth(1)
            .unwrap()
            .starts_with("log in again, and pass the new refresh token to `zg-tokend set`"),
        "{mail}"
    );
}
