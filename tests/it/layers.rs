//! The house: which layer each file is in, and that it uses only lower ones.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, by layer; siblings do not import each other, with one exception: a boot is known by
/// a fingerprint.
const LAYERS: [&[&str]; 6] = [
    &["secret", "clock"],
    &["child", "oauth", "config", "durable"],
    &["supervisor"],
    &["store", "publish", "secrets", "transport"],
    &["shell", "demo"],
    &["cli", "exit"],
];

const EXCEPTION: (&str, &str) = ("clock", "secret");

/// What a room without I/O never names, in code.
const IMPURE: [&str; 6] = ["std::fs", "std::net", "std::env", "std::process", "now()", "monotonic()"];

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file with its room and its code, without comments and without its test module.
fn rooms() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let files = files.into_iter().filter_map(|path| {
        let place = path.strip_prefix(&src).unwrap().to_owned();
        let room = place.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = room.trim_end_matches(".rs").to_owned();
        let is_test = place.components().any(|part| part.as_os_str() == "tests")
            || place.file_name().unwrap() == "tests.rs";
        if is_test || ["lib", "main"].contains(&room.as_str()) {
            return None;
        }
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        Some((place, room, lines.collect::<Vec<_>>().join("\n")))
    });
    files.collect()
}

/// The rooms that code names by `crate::`, one by one or in braces.
fn used(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut begins = true;
                for (at, c) in list.char_indices() {
                    if begins && !c.is_whitespace() {
                        found.push(word(&list[at..]));
                        begins = false;
                    }
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        _ => {}
                    }
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn the_parser_of_imports_sees_them_all() {
    let code = "use crate::a::{b, c};\nuse crate::{d::{e, f}, g};\nfn x() { crate::h::i() }";
    assert_eq!(used(code), ["a", "d", "g", "h"]);
}

#[test]
fn a_file_uses_only_lower_layers() {
    let mut wrong = Vec::new();
    for (path, room, code) in rooms() {
        let own = layer(&room).unwrap_or_else(|| panic!("{} is in no layer", path.display()));
        for other in used(&code) {
            let other_layer = layer(&other).unwrap_or_else(|| panic!("{other} is in no layer"));
            // In the top layer everything is the command line's.
            let may = other == room
                || other_layer < own
                || own == LAYERS.len() - 1
                || (&*room, &*other) == EXCEPTION;
            if !may {
                wrong.push(format!("{} (L{own}) uses {other} (L{other_layer})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_pure_rooms_do_no_io_and_read_no_clock() {
    for (path, room, code) in rooms() {
        if room == "oauth" || room == "supervisor" {
            for impure in IMPURE {
                assert!(!code.contains(impure), "{} names {impure}", path.display());
            }
            // `use std::{fs, …}` would be the same in other words.
            assert!(!code.contains("use std::{"), "{}", path.display());
        }
    }
}

#[test]
fn clocks_are_read_in_one_file() {
    for (path, room, code) in rooms() {
        let reads = ["SystemTime::now", "Instant::now", "clock_gettime"];
        if room != "clock" {
            assert!(!reads.iter().any(|read| code.contains(read)), "{} reads a clock", path.display());
        }
    }
}
