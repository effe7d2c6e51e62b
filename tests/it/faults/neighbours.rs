//! Accounts whose server never answers: the others are refreshed all the same.

use std::net::TcpListener;
use std::thread;

use rustix::process::Signal;

use crate::common::wait_until;
use crate::common::world::World;

/// So many that one after the other, in the places for one host, they would take longer than any test
/// waits: each takes half a minute.
const SILENT: usize = 400;

fn account(world: &World, name: &str, endpoint: &str) -> String {
    let (seed, file) = (world.seed(), world.token_file_of(name));
    format!(
        "[accounts.{name}]\ntoken_endpoint = \"{endpoint}\"\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\ntimeout = \"30s\"\n",
        seed.expose(),
        file.display()
    )
}

#[test]
fn a_server_that_never_answers_delays_no_account_of_another_server() {
    let world = World::new();
    // Nobody accepts the connections; the kernel does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://localhost:{}/token", silent.local_addr().unwrap().port());
    let mut tables: String =
        (0..SILENT).map(|number| account(&world, &format!("a{number}"), &endpoint)).collect();
    // The last one in the order of the config.
    tables.push_str(&account(&world, "well", &world.server.token_endpoint()));
    world.sandbox.write_config(&format!("client_id = \"demo\"\n{tables}"));
    let mut run = world.start_run();
    let file = world.token_file_of("well");
    wait_until("the token of the account that is well", || file.exists().then_some(()));
    assert!(world.reads_live(&file), "{}", run.log());
    assert_eq!(world.posts(), 1);
    // Its exchanges would take half a minute to end.
    run.signal(Signal::KILL);
}

/// To a server that answers at once `run` sends fewer requests at the same time.
#[test]
fn a_slow_server_gets_many_requests_at_the_same_time() {
    const PLACES: usize = 64;
    let world = World::new();
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://localhost:{}/token", slow.local_addr().unwrap().port());
    let tables: String =
        (0..PLACES).map(|number| account(&world, &format!("a{number}"), &endpoint)).collect();
    world.sandbox.write_config(&format!("client_id = \"demo\"\n{tables}"));
    let mut run = world.start_run();
    // It answers none of them, so all are there at the same time.
    let requests = thread::spawn(move || slow.incoming().take(PLACES).collect::<Vec<_>>());
    wait_until("the request of each account", || requests.is_finished().then_some(()));
    run.signal(Signal::KILL);
}

/// Secrets come from commands of other people, and a password manager may wait for its user.
#[test]
fn secret_commands_that_hang_delay_no_account_of_another_server() {
    let world = World::new();
    let elsewhere = world.server.token_endpoint().replace("127.0.0.1", "localhost");
    let table = |name: &str, endpoint: &str, secret: &str| {
        let file = world.token_file_of(name);
        format!(
            "[accounts.{name}]\ntoken_endpoint = \"{endpoint}\"\nrefresh_token = {secret}\ntoken_file = \"{}\"\n",
            file.display()
        )
    };
    // Each is killed after 10 s. Equal commands would be one login.
    let hung = |number: usize| {
        let secret = format!("{{ command = [\"sleep\", \"{}\"] }}", 1000 + number);
        table(&format!("a{number}"), &elsewhere, &secret)
    };
    let mut tables: String = (0..SILENT).map(hung).collect();
    let seed = format!("\"{}\"", world.seed().expose());
    tables.push_str(&table("well", &world.server.token_endpoint(), &seed));
    world.sandbox.write_config(&format!("client_id = \"demo\"\n{tables}"));
    let mut run = world.start_run();
    let file = world.token_file_of("well");
    wait_until("the token of the account that is well", || file.exists().then_some(()));
    assert!(world.reads_live(&file), "{}", run.log());
    assert_eq!(world.posts(), 1);
    run.signal(Signal::KILL);
}
