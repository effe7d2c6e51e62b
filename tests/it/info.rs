//! `token_file_info`: a file beside the token file that tells of the token, without the token.

use std::fs;

use serde_json::Value;
use zg_tokend::testing::secret::Fingerprint;

use crate::common::world::World;

fn info(world: &World) -> Value {
    let path = world.token_file().with_file_name("token.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn it_tells_of_the_token_and_holds_none() {
    let world = World::new();
    world.configure("token_file_info = true\ntoken_file_mode = \"0640\"");
    for generation in 1..=2 {
        world.once_gives(0, ["--force"]);
        let info = info(&world);
        let content = fs::read(world.token_file()).unwrap();
        assert_eq!(info["version"], 1);
        assert_eq!(info["account"], "default");
        assert_eq!(info["generation"], generation);
        assert_eq!(info["sha256"], Fingerprint::of([&content]).to_string());
        assert_eq!(info["expires_at"].as_i64().unwrap() - info["issued_at"].as_i64().unwrap(), 3600);
        assert!(!info.to_string().contains(world.token().expose()));
    }
    let attributes = fs::metadata(world.token_file().with_file_name("token.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&attributes.permissions()) & 0o777, 0o640);
}

#[test]
fn it_is_there_again_without_a_request() {
    let world = World::new();
    world.configure("token_file_info = true");
    world.once_gives(0, []);
    let before = info(&world);
    fs::remove_file(world.token_file().with_file_name("token.json")).unwrap();
    world.once_gives(0, []);
    assert_eq!(info(&world), before);
    assert_eq!(world.posts(), 1);
}

#[test]
fn a_directory_in_place_of_the_info_file_keeps_no_token_from_its_readers() {
    let world = World::new();
    world.configure("token_file_info = true");
    let place = world.token_file().with_file_name("token.json");
    fs::create_dir_all(&place).unwrap();
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("token.json is a directory"), "{output:?}");
    world.assert_live();
    fs::remove_dir(&place).unwrap();
    world.once_gives(0, []);
    assert_eq!(info(&world)["generation"], 1);
    assert_eq!(world.posts(), 1);
}

#[test]
fn its_place_is_nobody_elses() {
    let world = World::new();
    let seeds = [world.seed(), world.seed()];
    let file = world.token_file_of("a");
    world.sandbox.write_config(&format!(
        "{}token_file_info = true\n[accounts.a]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n\
         [accounts.b]\nrefresh_token = \"{}\"\ntoken_file = \"{}.json\"\n",
        world.client(),
        seeds[0].expose(),
        file.display(),
        seeds[1].expose(),
        file.display()
    ));
    let output = world.once_gives(78, []);
    assert!(output.stderr.contains("is also that of account `a`"), "{output:?}");
    assert_eq!(world.posts(), 0);
}
