//! The needs of a refresh beside the login: disk space, proxies, hooks and push targets.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;

fn script(path: &Path, mode: u32) {
    fs::write(path, "#!/bin/sh\n").unwrap();
    chmod(path, Mode::from_raw_mode(mode)).unwrap();
}

#[test]
fn the_programs_of_hooks_are_looked_for_as_they_are_run() {
    let world = World::new();
    let home = world.sandbox.path("home");
    script(&home.join("runs"), 0o700);
    script(&home.join("no-x"), 0o600);
    let (shown, runs) = (home.display(), home.join("runs").display().to_string());
    let ok = format!("ok       default: on_refresh: runs {}", runs.replace(&shown.to_string(), "ROOT/home"));
    for (argv, code, found) in [
        ("\"sh\", \"-c\", \"exit 1\"", 0, "ok       default: on_refresh: runs /usr/bin/sh"),
        (&format!("\"{runs}\""), 0, &ok),
        (
            "\"zg-no-such\"",
            78,
            "problem  default: on_refresh: there is no program zg-no-such in PATH\n         \
             hint: install it, or write its full path: a service or cron job has a short PATH",
        ),
        (
            &format!("\"{shown}/none\""),
            78,
            "problem  default: on_refresh: there is no program ROOT/home/none\n         \
             hint: install it, or correct the path",
        ),
        (
            &format!("\"{shown}/no-x\""),
            78,
            "problem  default: on_refresh: cannot execute ROOT/home/no-x\n         \
             cause: Permission denied (os error 13)\n         \
             hint: chmod +x ROOT/home/no-x",
        ),
        (
            &format!("\"{shown}\""),
            78,
            "problem  default: on_refresh: cannot execute ROOT/home\n         \
             cause: is a directory\n         \
             hint: write the full path of a program",
        ),
    ] {
        world.configure(&format!("on_refresh = [{argv}]"));
        assert_found(&world, &[], code, &[found]);
    }
    // Found here, and not by a service; one that cannot be executed hides no other.
    let (bin, first) = (home.join("bin"), home.join("first"));
    for directory in [&bin, &first] {
        fs::create_dir(directory).unwrap();
    }
    script(&bin.join("tell"), 0o700);
    script(&first.join("tell"), 0o600);
    world.configure("on_failure = [\"tell\"]\non_recovery = []");
    let check =
        |path: &str| told(&world.sandbox, &finish(world.sandbox.command(["check"]).env("PATH", path)));
    let found = check(&format!("{}:{}:/usr/bin", first.display(), bin.display()));
    let warning = "warning  default: on_failure: runs ROOT/home/bin/tell, which a service or cron job may not find\n         \
                   hint: write the full path: ROOT/home/bin/tell\n";
    assert!(found.contains(warning), "{found}");
    let found = check(&format!("{}:/usr/bin", first.display()));
    assert!(found.contains("on_failure: cannot execute ROOT/home/first/tell"), "{found}");
    assert!(world.posts() == 0 && !found.contains("on_recovery"), "{found}");
}

#[test]
fn the_file_beside_the_token_is_judged() {
    let world = World::new();
    let path = world.sandbox.path("home/token.json");
    world.configure(&format!(
        "token_file = \"{}\"\ntoken_file_info = true",
        world.sandbox.path("home/token").display()
    ));
    let ok = "ok       default: token_file_info: facts about the token go to ROOT/home/token.json";
    assert_found(&world, &[], 0, &[ok]);
    world.once_gives(0, []);
    assert!(!world.sandbox.run(["check"]).stdout.contains("not written by"), "its own");
    for text in ["{\"theme\": \"dark\"}".to_owned(), "x".repeat(10_000)] {
        fs::write(&path, text).unwrap();
        let warning = "warning  default: token_file_info: ROOT/home/token.json was not written by zg-tokend, and will be replaced\n         \
                       hint: move it to another place, or choose another token_file";
        assert_found(&world, &[], 0, &[ok, warning]);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let problem = "problem  default: token_file_info: ROOT/home/token.json is a directory, not a regular file\n         \
                   hint: remove it, or choose another path";
    assert_found(&world, &[], 78, &[problem, "1 problem"]);
    // A problem of their directory is reported once.
    world.configure("token_file = \"/dev/null/token\"\ntoken_file_info = true");
    assert_found(&world, &[], 78, &["1 problem"]);
    if !rustix::process::geteuid().is_root() {
        return leave_out("a file of another user");
    }
    world.configure(&format!(
        "token_file = \"{}\"\ntoken_file_info = true",
        world.sandbox.path("home/token").display()
    ));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let output = world.sandbox.run(["check"]);
    assert!(output.stdout.contains("token.json belongs to nobody, not to root or"), "{output:?}");
}

/// The output with a file system of these options in place of a variable's directory, after a
/// command in it.
fn found_on(world: &World, variable: &str, options: &str, command: &str) -> Output {
    let script = format!(
        "mount -t tmpfs -o {options} none \"${variable}\" && cd \"${variable}\" && {command} && exec \"$0\" \"$@\""
    );
    finish(&mut under(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script],
        &world.sandbox.command(["check"]),
    ))
}

#[test]
fn a_file_system_without_room_is_a_problem() {
    let world = World::new();
    world.configure(&format!("token_file = \"{}\"", world.sandbox.path("data/token").display()));
    if !rustix::process::geteuid().is_root() {
        return leave_out("a full file system");
    }
    let fill = "head -c 1000000 /dev/zero >fill";
    for (variable, options, command, code, words) in [
        (
            "XDG_STATE_HOME",
            "size=1M",
            fill,
            78,
            "problem  state_dir: the file system of ROOT/state has only 44 KiB left\n         \
             hint: free space there: df ROOT/state\n",
        ),
        (
            "XDG_DATA_HOME",
            "size=1M",
            fill,
            78,
            "problem  default: token_file: the file system of ROOT/data has only 44 KiB left\n",
        ),
        (
            "XDG_DATA_HOME",
            "nr_inodes=4",
            "touch a b",
            78,
            "problem  default: token_file: the file system of ROOT/data has only 1 file (inodes) left\n         \
             hint: remove files there: df -i ROOT/data\n",
        ),
        (
            "XDG_STATE_HOME",
            "size=20M",
            "head -c 19M /dev/zero >fill",
            0,
            "warning  state_dir: the file system of ROOT/state has only 1 MiB left\n",
        ),
        // Small, and not full.
        ("XDG_STATE_HOME", "size=1M", "true", 0, "all is well; "),
    ] {
        let output = found_on(&world, variable, options, command);
        let text = told(&world.sandbox, &output);
        assert!(output.code == Some(code) && text.contains(words), "{words:?}: {text}");
    }
}

#[test]
fn the_keys_of_push_targets_are_read() {
    let world = World::new();
    world.configure("push = [{ url = \"http://localhost:1/v1/token\", api_key = { env = \"ZG_NO_KEY\" } }]");
    let problem = "problem  default: push.api_key: the environment variable ZG_NO_KEY is not set\n         \
                   hint: set ZG_NO_KEY in the environment of zg-tokend: a service or cron job does not have the variables of your shell";
    assert_found(&world, &[], 78, &[problem]);
    let output = finish(world.sandbox.command(["check"]).env("ZG_NO_KEY", "SECRET"));
    assert!(output.code == Some(0) && !output.stdout.contains("SECRET"), "{output:?}");
    let ok = "ok       default: push.api_key: read from environment variable ZG_NO_KEY\n";
    assert!(output.stdout.contains(ok), "{output:?}");
    // https needs certificates, and the token endpoint of this account does not.
    world.configure("ca_file = \"/none\"\npush = [{ url = \"https://localhost:1/v1/token\" }]");
    assert_found(
        &world,
        &[],
        78,
        &[
            "problem  default: push: cannot read the root certificates in /none: No such file or directory (os error 2)\n         \
           hint: install ca-certificates, or name a PEM file in ca_file that this user can read",
        ],
    );
}

#[test]
fn all_of_it_is_what_the_schema_says() {
    let world = World::new();
    let hooks = ["on_refresh", "on_failure", "on_recovery", "on_needs_login"];
    let hooks = hooks.map(|hook| format!("{hook} = [\"zg-no-such\"]\n")).concat();
    world.configure(&format!(
        "token_file_info = true\nca_file = \"/none\"\n\
         push = [{{ url = \"https://localhost:1/\", api_key = {{ env = \"ZG_NO_KEY\" }} }}]\n{hooks}"
    ));
    let output = world.sandbox.run(["check", "--json"]);
    assert_schema("check.schema.json", &output.stdout);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    let problems = json["findings"].as_array().unwrap().iter().filter(|found| found["level"] == "problem");
    assert_eq!(problems.count(), 6, "{json:#}");
}

/// A proxy that leads every tunnel to this address; its own address.
fn proxy_to(target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It ends with the tests' process.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (client, server) = (connection.unwrap(), TcpStream::connect(&target).unwrap());
            let head = BufReader::new(client.try_clone().unwrap()).lines();
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            (&client).write_all(b"HTTP/1.1 200 Established\r\n\r\n").unwrap();
            for (mut from, mut to) in [(&client, &server), (&server, &client)]
                .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
            {
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    address
}

#[test]
fn live_names_the_proxy_and_whether_it_fails() {
    let sandbox = Sandbox::new();
    let ca_file = sandbox.path("ca.pem");
    let server = tls::serve_as(Leaf::OtherName, IssuerOptions::default(), &ca_file);
    let target = server.url().rsplit('/').next().unwrap().to_owned();
    let configure = |endpoint: &str| {
        sandbox.write_config(&format!(
            "{endpoint}\nclient_id = \"demo\"\nrefresh_token = \"x\"\nca_file = \"{}\"\n",
            ca_file.display()
        ));
    };
    let live = |proxy: &str| {
        let output = finish(
            sandbox.command(["check", "--live"]).env("HTTPS_PROXY", format!("http://u:SECRET@{proxy}/")),
        );
        assert!(!output.stdout.contains("SECRET"), "{output:?}");
        output
    };
    configure("token_endpoint = \"https://elsewhere.test/token\"");
    let proxy = proxy_to(target);
    let output = live(&proxy);
    let answered = format!(
        "ok       token_endpoint: https://elsewhere.test/token answers through the proxy {proxy} \
         (HTTP 405 to a GET; nothing was spent)\n"
    );
    assert!(output.code == Some(0) && output.stdout.contains(&answered), "{output:?}");
    let output = live("127.0.0.1:1");
    let problem = "problem  token_endpoint: no answer from https://elsewhere.test/token\n         \
                   cause: the proxy 127.0.0.1:1 cannot be reached: connection refused\n         hint: check `proxy` \
                   in the config, or HTTPS_PROXY, ALL_PROXY and NO_PROXY in the environment\n";
    assert!(output.code == Some(78) && output.stdout.contains(problem), "{output:?}");
    // The proxy works, and what is behind it does not.
    configure("token_endpoint = \"https://other.test/token\"");
    let output = live(&proxy);
    let problem = format!(
        "problem  token_endpoint: no answer from https://other.test/token through the proxy {proxy}\n         \
         cause: the server's certificate is not for other.test, but for elsewhere.test\n"
    );
    assert!(output.code == Some(78) && output.stdout.contains(&problem), "{output:?}");
    configure("issuer = \"https://other.test\"");
    let output = live(&proxy);
    let named = format!("(through the proxy {proxy})\n");
    assert!(output.code == Some(78) && output.stdout.contains(&named), "{output:?}");
}
