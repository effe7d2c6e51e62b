//! Where the secrets come from, and when they are read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use zg_tokend::testing::secret::Secret;

use crate::common::world::World;
use crate::common::{finish, wait_until, write_script};

fn write_secret(path: &Path, secret: &Secret) {
    fs::write(path, format!("{}\n", secret.expose())).unwrap();
    chmod(path, Mode::from_raw_mode(0o600)).unwrap();
}

/// A seed behind a command that leaves a mark each time it is run.
struct Counted {
    world: World,
}

impl Counted {
    fn new() -> Self {
        let counted = Self { world: World::new() };
        write_secret(&counted.world.sandbox.path("home/seed"), &counted.world.seed());
        let script = "#!/bin/sh\necho >>marks\ncat seed\n";
        let path = counted.world.sandbox.path("home/get");
        write_script(&path, script);
        counted.world.configure_inputs(&format!("refresh_token = {{ command = [\"{}\"] }}", path.display()));
        counted
    }

    fn marks(&self) -> usize {
        fs::read(self.world.sandbox.path("home/marks")).map_or(0, |marks| marks.len())
    }
}

#[test]
fn every_source_is_read() {
    for source in ["file", "env", "command", "credential"] {
        let world = World::with_secret();
        let place = world.sandbox.path("home");
        write_secret(&place.join("seed"), &world.seed());
        write_secret(&place.join("secret"), &Secret::new("right"));
        let lines = ["refresh_token", "client_secret"].map(|key| {
            let name = if key == "refresh_token" { "seed" } else { "secret" };
            let path = place.join(name);
            let path = path.display();
            match source {
                "file" => format!("{key} = {{ file = \"{path}\" }}"),
                "env" => format!("{key} = {{ env = \"THE_{name}\" }}"),
                "command" => format!("{key} = {{ command = [\"cat\", \"{path}\"] }}"),
                _ => format!("{key} = {{ credential = \"{name}\" }}"),
            }
        });
        let endpoint = world.server.token_endpoint();
        world.sandbox.write_config(&format!(
            "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\n{}\n",
            lines.join("\n")
        ));
        let mut once = world.sandbox.command(["once"]);
        match source {
            "env" => {
                once.env("THE_seed", fs::read_to_string(place.join("seed")).unwrap());
                once.env("THE_secret", "right");
            }
            "credential" => drop(once.env("CREDENTIALS_DIRECTORY", &place)),
            _ => {}
        }
        let output = finish(&mut once);
        assert_eq!(output.code, Some(0), "{source}: {output:?}");
        world.assert_live();
    }
}

#[test]
fn secrets_are_read_only_when_something_is_due() {
    let counted = Counted::new();
    let world = &counted.world;
    world.sandbox.run(["status"]);
    assert_eq!(counted.marks(), 0, "status");
    world.once_gives(0, []);
    assert_eq!(counted.marks(), 1);
    for _ in 0..3 {
        world.once_gives(0, []);
        world.sandbox.run(["status"]);
    }
    assert_eq!(counted.marks(), 1, "a pass with nothing due");
    fs::remove_file(world.token_file()).unwrap();
    world.once_gives(0, []);
    world.assert_live();
    assert_eq!(counted.marks(), 1, "to write the live token again");
    world.pass_time(Duration::from_secs(3600));
    world.once_gives(0, []);
    assert_eq!(counted.marks(), 2);
}

#[test]
fn a_secret_that_cannot_be_read_is_a_transient_failure() {
    for (source, hint) in [
        ("{ file = \"nowhere\" }", "write the secret into"),
        ("{ env = \"NOWHERE\" }", "set NOWHERE"),
        ("{ command = [\"false\"] }", "run it in a shell"),
        ("{ command = [\"/no/such/program\"] }", ""),
        ("{ credential = \"nothing\" }", "LoadCredential"),
    ] {
        let world = World::new();
        world.configure_inputs(&format!("refresh_token = {source}"));
        let output = world.once_gives(69, []);
        assert!(output.stderr.contains("refresh_token") && output.stderr.contains(hint), "{output:?}");
        assert_eq!(world.posts(), 0);
        // `status` remembers it.
        let status = world.status().0;
        assert_eq!(status["state"], "backing_off", "{status:#}");
        assert!(status["problem"].as_str().unwrap().contains("refresh_token"), "{status:#}");
        // Nothing stands in the way of the first login.
        world.configure("");
        world.once_gives(0, []);
    }
}

#[test]
fn a_client_secret_that_cannot_be_read_backs_off_on_disk() {
    let world = World::with_secret();
    let seed = world.seed();
    let path = world.sandbox.path("home/secret");
    write_secret(&path, &Secret::new("right"));
    let endpoint = world.server.token_endpoint();
    world.sandbox.write_config(&format!(
        "token_endpoint = \"{endpoint}\"\nclient_id = \"zg\"\nrefresh_token = \"{}\"\n\
         client_secret = {{ file = \"{}\" }}\n",
        seed.expose(),
        path.display()
    ));
    world.once_gives(0, []);
    chmod(&path, Mode::from_raw_mode(0o644)).unwrap();
    // When it has failed for 42 minutes it is some five minutes to the next try.
    for minutes in [60, 14, 14, 14] {
        world.pass_time(Duration::from_secs(minutes * 60));
        let output = world.once_gives(69, []);
        assert!(output.stderr.contains("chmod 600"), "{output:?}");
    }
    world.once_gives(69, []);
    assert_eq!(world.state()["failure"]["count"], 4, "inside the wait it is not another failure");
    chmod(&path, Mode::from_raw_mode(0o600)).unwrap();
    world.pass_time(Duration::from_secs(300));
    world.once_gives(0, []);
    assert_eq!(world.posts(), 2);
    world.assert_live();
}

#[test]
fn with_a_refresh_token_in_state_an_unreadable_seed_is_only_a_warning() {
    let counted = Counted::new();
    let world = &counted.world;
    world.once_gives(0, []);
    fs::remove_file(world.sandbox.path("home/seed")).unwrap();
    world.pass_time(Duration::from_secs(3600));
    let output = world.once_gives(0, []);
    assert!(output.stderr.starts_with("warning: ") && output.stderr.contains("refresh_token"), "{output:?}");
    world.assert_live();
}

#[test]
fn a_dead_login_is_revived_by_a_seed_from_a_command() {
    let counted = Counted::new();
    let world = &counted.world;
    world.once_gives(0, []);
    let (now, token) = (world.server.now(), world.refresh_token());
    world.server.issuer(|issuer| issuer.revoke_login(now, &token));
    world.pass_time(Duration::from_secs(3600));
    world.once_gives(77, []);
    write_secret(&world.sandbox.path("home/seed"), &world.seed());
    world.once_gives(0, []);
    world.assert_live();
    assert_eq!(world.posts(), 3);
}

#[test]
fn a_command_has_no_stdin_and_no_terminal() {
    let world = World::new();
    world.configure_inputs("refresh_token = { command = [\"cat\"] }");
    let output = world.once_gives(69, []);
    assert!(output.stderr.contains("is empty"), "{output:?}");
}

#[test]
fn endpoints_may_stand_where_secrets_do() {
    for key in ["token_endpoint", "issuer"] {
        let world = World::new();
        let value = match key {
            "issuer" => world.server.url().to_owned(),
            _ => world.server.token_endpoint(),
        };
        let file = world.sandbox.path("home/endpoint");
        write_secret(&file, &Secret::new(value.clone()));
        let seed = world.seed();
        let write = |source: &str| {
            world.sandbox.write_config(&format!(
                "{key} = {{ {source} }}\nclient_id = \"demo\"\nrefresh_token = \"{}\"\n",
                seed.expose()
            ));
        };
        write("env = \"THE_ENDPOINT\"");
        let output = world.once_gives(69, []);
        assert!(output.stderr.contains("THE_ENDPOINT is not set"), "{output:?}");
        let output = wait_until("the end of the wait", || {
            let output = finish(world.sandbox.command(["once"]).env("THE_ENDPOINT", &value));
            (!output.stderr.contains("waiting")).then_some(output)
        });
        assert_eq!(output.code, Some(0), "{key}: {output:?}");
        write(&format!("file = \"{}\"", file.display()));
        world.once_gives(0, ["--force"]);
        world.assert_live();
        let check = world.sandbox.run(["check", "--live"]);
        assert!(check.code == Some(0) && check.stdout.contains(&format!("{key}: read from")), "{check:?}");
        assert!(check.stdout.contains("answers"), "{check:?}");
        // `status` reads no source.
        fs::remove_file(&file).unwrap();
        assert_eq!(world.status().1, 0);
        let output = world.once_gives(69, ["--force"]);
        assert!(output.stderr.contains(&format!("cannot read {key} from file")), "{output:?}");
        write_secret(&file, &Secret::new("http://192.0.2.1/"));
        let mut state = world.state();
        state.as_object_mut().unwrap().remove("failure");
        world.write_state(&state);
        let output = world.once_gives(78, ["--force"]);
        assert!(output.stderr.contains(key) && output.stderr.contains("https"), "{output:?}");
        assert_eq!(world.posts(), 2);
    }
}
