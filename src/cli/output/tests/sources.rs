//! The errors that the sources define.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The program's files and their code, without comments and tests.
pub(super) fn code() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn collect(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        found.push((path, lines.collect::<Vec<_>>().join("\n")));
    }
}

/// Every variant of every error, as `Enum::Variant`; a struct by its name alone.
pub(super) fn variants() -> BTreeSet<String> {
    let code = code();
    code.iter().flat_map(|(_, code)| code.split("thiserror::Error)]").skip(1).flat_map(of_type)).collect()
}

/// Of the type that is declared next. rustfmt's layout is grammar enough: the variants of an enum
/// are indented by four.
fn of_type(code: &str) -> Vec<String> {
    let word = |text: &str| text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
    let is_declared = |line: &&str| line.contains("enum ") || line.contains("struct ");
    let declared = code.lines().find(is_declared).unwrap();
    let name = word(declared.split("enum ").last().unwrap().split("struct ").last().unwrap());
    if declared.contains("struct ") {
        return vec![name];
    }
    let body = code.split_once(declared).unwrap().1.split("\n}").next().unwrap();
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(char::is_uppercase));
    variants.map(|line| format!("{name}::{}", word(line))).collect()
}

/// The sentences in these files of src: the pieces of all texts in quotes that have a space in
/// them, between what is filled in.
pub(super) fn sentences(places: &[String]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_meant = |path: &Path| places.iter().any(|place| path == root.join(place));
    let files = code().into_iter().filter(|(path, _)| is_meant(path));
    files.flat_map(|(_, code)| texts(&code)).flat_map(|text| pieces(&text)).collect()
}

/// The string literals of code, as the compiler reads them.
fn texts(code: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', 'r']) {
        let after = &rest[at..];
        if let Some(raw) = after.strip_prefix("r#\"") {
            let (text, left) = raw.split_once("\"#").unwrap();
            texts.push(text.to_owned());
            rest = left;
        } else if let Some(quoted) = after.strip_prefix('"') {
            let (text, left) = quoted_text(quoted);
            texts.push(text);
            rest = left;
        } else {
            // A character in quotes may be a quote itself.
            let length =
                ["'\"'", "'\\''", "'\\\\'"].iter().find(|c| after.starts_with(**c)).map_or(1, |c| c.len());
            rest = &after[length..];
        }
    }
    texts
}

fn quoted_text(code: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = code.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &code[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => text.push('\n'),
                // The line goes on behind the white space of the next.
                '\n' => {
                    let left = chars.as_str().trim_start();
                    let (more, left) = quoted_text(left);
                    return (text + &more, left);
                }
                c => text.push(c),
            },
            c => text.push(c),
        }
    }
    panic!("a text without an end");
}

/// The pieces of a format string between what is filled in.
fn pieces(text: &str) -> Vec<String> {
    let pieces = text.split(['{', '\n']).map(|piece| piece.rsplit('}').next().unwrap().trim());
    pieces.filter(|piece| piece.contains(' ')).map(str::to_owned).collect()
}
