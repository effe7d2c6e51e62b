//! The rules of the source tree: layers, circles, names, sizes, comments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

/// The folders and files of src, from low to high. Each uses only lower layers; siblings do not
/// import each other.
const LAYERS: [&[&str]; 12] = [
    &["problem", "secret"],
    &["cipher", "clock", "redact", "runtime", "signals", "sink", "template"],
    &["demo", "oauth", "process", "signing", "timer", "workers"],
    &["files", "refresh"],
    &["config"],
    &["http", "message", "secrets", "store"],
    &["account"],
    &["hooks", "login", "probe", "push"],
    &["check", "status"],
    &["daemon"],
    &["cli"],
    &["lib", "main"],
];

/// Folders that do no I/O and read no clock, and the names that would show it.
const PURE: [&str; 2] = ["oauth", "refresh"];
const IO: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "tokio::",
    "rustix::",
    "println!",
    "now()",
    "monotonic()",
];

/// Only clock.rs may contain these.
const CLOCKS: [&str; 6] =
    ["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "clock_gettime", ".elapsed()"];

/// About 500.
const MAX_LINES: usize = 540;

/// A file below src.
struct Source {
    /// Its place below src.
    place: String,
    /// Its text without comments and without its test module.
    code: String,
}

impl Source {
    fn folder(&self) -> &str {
        self.place.split(['/', '.']).next().unwrap()
    }
}

/// Every file below this directory of the repository, with its text.
fn files(below: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let (mut files, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let place = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((place, fs::read_to_string(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The program: src without the tests in it.
fn program() -> Vec<Source> {
    let mut program = files("src");
    program.retain(|(place, _)| !place.contains("/tests") && place != "tests.rs");
    let program = program.into_iter().map(|(place, text)| {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: Vec<_> = text.lines().filter(|line| !is_comment(line)).collect();
        Source { place, code: code.join("\n") }
    });
    program.collect()
}

/// The identifier that a text begins with.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()
}

/// Reads the path or the tree of paths that a text begins with, and returns the rest.
fn tree<'a>(text: &'a str, prefix: &str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        while !list.trim_start().starts_with('}') && !list.is_empty() {
            list = tree(list, prefix, paths).trim_start();
            list = list.strip_prefix(',').unwrap_or(list);
        }
        return list.trim_start().strip_prefix('}').unwrap_or(list);
    }
    let segment = if text.starts_with('*') { "*" } else { word(text) };
    let rest = &text[segment.len()..];
    let path = if prefix.is_empty() { segment.to_owned() } else { format!("{prefix}::{segment}") };
    match rest.strip_prefix("::") {
        Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || "_{*".contains(c)) => {
            tree(rest, &path, paths)
        }
        _ => {
            paths.push(path);
            match rest.strip_prefix(" as ") {
                Some(name) => &name[word(name).len()..],
                // Anything that is no path ends the list.
                None if segment.is_empty() => "",
                None => rest,
            }
        }
    }
}

/// The paths that code names by `crate::`, one by one or in braces.
fn used(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, name) in code.match_indices("crate::") {
        // `pub(in crate::…)` names a place, and uses nothing of it.
        if code[..at].ends_with("pub(in ") {
            continue;
        }
        tree(&code[at + name.len()..], "", &mut paths);
    }
    paths
}

/// The statements that begin with `use`, each on one line, without the word.
fn imports(code: &str) -> Vec<String> {
    let mut imports = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
        if let Some(first) = line.strip_prefix("use ") {
            let mut import = first.to_owned();
            while !import.ends_with(';') {
                import.push_str(lines.next().unwrap().trim());
            }
            imports.push(import);
        }
    }
    imports
}

#[test]
fn the_parser_of_imports_sees_them_all() {
    let code = "use crate::a::{b, c::{self, d as e}};\nuse crate::{f::*, g};\nfn x() { crate::h::i::<u8>() }";
    assert_eq!(used(code), ["a::b", "a::c::self", "a::c::d", "f::*", "g", "h::i"]);
    assert_eq!(imports("pub use a::{\n    b,\n    c,\n};\nfuse();\n"), ["a::{b,c,};"]);
}

/// A text in two: the statements that re-export something of this crate, and the rest.
fn reexports(code: &str) -> (String, String) {
    let (mut statements, mut rest) = (String::new(), String::new());
    let mut inside = false;
    for line in code.lines() {
        inside |= line.starts_with("pub use crate::");
        let text = if inside { &mut statements } else { &mut rest };
        text.extend([line, "\n"]);
        inside &= !line.ends_with(';');
    }
    (statements, rest)
}

/// The file that a path of the crate leads to, and what is left of the path there.
fn file_of<'a, 'p>(path: &'p str, places: &BTreeSet<&'a str>) -> Option<(&'a str, Option<&'p str>)> {
    let mut segments = path.split("::").peekable();
    let mut place = String::from(segments.next()?);
    let mut found = None;
    loop {
        let candidates = [format!("{place}.rs"), format!("{place}/mod.rs")];
        let Some(file) = candidates.iter().find_map(|file| places.get(file.as_str())) else { break found };
        found = Some((*file, segments.peek().copied()));
        let Some(segment) = segments.next() else { break found };
        place = format!("{place}/{segment}");
    }
}

/// The files that each file of the program uses, itself excluded. A re-export is not a use; a use
/// of a re-exported name is a use of the file that defines it.
fn uses(program: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let places: BTreeSet<_> = program.iter().map(|source| source.place.as_str()).collect();
    let mut reexported = BTreeMap::new();
    for Source { place, code } in program {
        for path in used(&reexports(code).0) {
            let name = path.rsplit("::").next().unwrap().to_owned();
            reexported.extend(file_of(&path, &places).map(|(file, _)| ((place.as_str(), name), file)));
        }
    }
    let uses = program.iter().map(|Source { place, code }| {
        let code = reexports(code).1;
        let mut paths = used(&code);
        // A child needs no `crate::` in the file that declares it.
        let module = place.trim_end_matches("mod.rs").trim_end_matches(".rs").trim_end_matches('/');
        for line in code.lines() {
            let child = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ");
            let Some(child) = child.and_then(|rest| rest.strip_suffix(';')) else { continue };
            let child_path = format!("{child}::");
            let mut named = code.match_indices(&child_path);
            if named.any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c))) {
                paths.push(format!("{}::{child}", module.replace('/', "::")));
            }
        }
        let files = paths.iter().filter_map(|path| {
            let (file, name) = file_of(path, &places)?;
            let defined = reexported.get(&(file, name.unwrap_or_default().to_owned()));
            Some(*defined.unwrap_or(&file))
        });
        (place.as_str(), files.filter(|file| file != place).collect())
    });
    uses.collect()
}

/// A layer's index.
fn layer(name: &str) -> usize {
    let layer = LAYERS.iter().position(|names| names.contains(&name));
    layer.unwrap_or_else(|| panic!("{name} is in no layer"))
}

#[test]
fn a_file_uses_only_lower_layers() {
    let program = program();
    let mut wrong = Vec::new();
    for source in &program {
        let own = layer(source.folder());
        for path in used(&source.code) {
            let other = word(&path);
            if other != source.folder() && layer(other) >= own {
                wrong.push(format!("{} (layer {own}) uses {path} (layer {})", source.place, layer(other)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The shortest circle that a name is in.
fn circle<'a>(from: &'a str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for &next in uses.get(way.last().unwrap()).into_iter().flatten() {
            if next == from {
                return Some(way);
            }
            if seen.insert(next) {
                ways.push_back(way.iter().copied().chain([next]).collect());
            }
        }
    }
    None
}

/// In each folder, what its files and folders use of each other; mod.rs counts as a file.
fn neighbours<'a>(
    uses: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeMap<String, BTreeMap<&'a str, BTreeSet<&'a str>>> {
    let mut folders: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for (from, used) in uses {
        for to in used {
            let shared = from.split('/').zip(to.split('/')).take_while(|(one, other)| one == other).count();
            let folder = from.split('/').take(shared).collect::<Vec<_>>().join("/");
            let (one, other) = (from.split('/').nth(shared).unwrap(), to.split('/').nth(shared).unwrap());
            folders.entry(folder).or_default().entry(one).or_default().insert(other);
        }
    }
    folders
}

fn circles<'a>(folder: &str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<String> {
    let circles = uses.keys().filter_map(|name| {
        let mut circle = circle(name, uses)?;
        let first = circle.iter().enumerate().min_by_key(|(_, name)| **name).unwrap().0;
        circle.rotate_left(first);
        Some(format!("{folder}: {} -> {}", circle.join(" -> "), circle[0]))
    });
    circles.collect()
}

#[test]
fn no_folder_has_a_circle() {
    let program = program();
    let mut found = BTreeSet::new();
    for (folder, uses) in neighbours(&uses(&program)) {
        found.extend(circles(&folder, &uses));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn paths_begin_at_the_crate() {
    for Source { place, code } in program() {
        let relative = ["super::", " self::", "(self::"].into_iter().find(|path| code.contains(path));
        // `pub(super)` has no colons, and a method of `self` one only.
        assert!(relative.is_none(), "{place} has a path that begins with {relative:?}");
    }
}

#[test]
fn no_import_of_our_own_changes_a_name() {
    let program = program();
    let types = types(&program);
    let mut wrong = Vec::new();
    for Source { place, code } in &program {
        for import in imports(code) {
            let own = word(&import) == "crate" || types.contains_key(word(&import));
            if own && import.replace(" as _", "").contains(" as ") {
                wrong.push(format!("{place}: {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The types of the program, and the files that define each. An associated type and a type inside
/// of a function are indented.
fn types(program: &[Source]) -> BTreeMap<&str, Vec<&str>> {
    let mut types: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Source { place, code } in program {
        for line in code.lines() {
            let line =
                line.strip_prefix("pub").map_or(line, |rest| rest.split_once(' ').unwrap_or_default().1);
            if let Some((kind, name)) = line.split_once(' ')
                && ["struct", "enum", "trait", "type", "union"].contains(&kind)
            {
                types.entry(word(name)).or_default().push(place.as_str());
            }
        }
    }
    types
}

#[test]
fn each_type_has_a_name_of_its_own() {
    let program = program();
    let mut types = types(&program);
    assert!(types.len() > 200, "{types:?}");
    types.retain(|_, places| places.len() > 1);
    assert!(types.is_empty(), "{types:#?}");
}

#[test]
fn pure_folders_do_no_io_and_read_no_clock() {
    for source in program().iter().filter(|source| PURE.contains(&source.folder())) {
        // `use std::{fs, …}` would be the same in other words.
        for name in IO.iter().chain(&["use std::{"]) {
            assert!(!source.code.contains(name), "{} names {name}", source.place);
        }
    }
}

#[test]
fn clocks_are_read_in_one_file() {
    for Source { place, code } in program().into_iter().filter(|source| source.place != "clock.rs") {
        let read = CLOCKS.into_iter().find(|clock| code.contains(clock));
        assert!(read.is_none(), "{place} reads a clock: {read:?}");
    }
}

#[test]
fn no_file_is_long() {
    let mut long = BTreeMap::new();
    for (place, text) in files("src").into_iter().chain(files("tests")) {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            long.insert(place, lines);
        }
    }
    assert!(long.is_empty(), "files of more than {MAX_LINES} lines: {long:#?}");
}

/// Where a newcomer is sent, there must be a file. `X/tests.rs` and `cli/NAME.rs` are patterns.
#[test]
fn the_design_names_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let design = fs::read_to_string(root.join("docs/DESIGN.md")).unwrap();
    let quoted = design.split('`').skip(1).step_by(2);
    let files = quoted.filter(|name| {
        Path::new(name).extension().is_some_and(|ending| ending == "rs") && !name.contains(char::is_uppercase)
    });
    let files: Vec<_> = files.filter(|name| name.contains('/')).collect();
    assert!(files.len() > 20, "{files:?}");
    let missing =
        files.iter().filter(|name| !root.join(name).exists() && !root.join("src").join(name).exists());
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}

/// The paragraphs of the comments in a text.
fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in text.lines() {
        let line = line.trim_start();
        match ["/// ", "//! ", "// "].iter().find_map(|mark| line.strip_prefix(mark)) {
            Some(comment) => *paragraphs.last_mut().unwrap() += &[comment, " "].concat(),
            None => paragraphs.push(line.rsplit_once(" // ").unwrap_or_default().1.to_owned()),
        }
    }
    paragraphs
}

/// A sentence that begins with Who, What or Whose and asks nothing hides its subject.
#[test]
fn no_comment_is_a_riddle() {
    let mut wrong = Vec::new();
    for (place, text) in files("src").into_iter().chain(files("tests")) {
        for paragraph in paragraphs(&text) {
            for sentence in paragraph.split_inclusive(['.', '?', '!']).map(str::trim) {
                let riddle = ["Who", "What", "Whose"].contains(&word(sentence)) && !sentence.ends_with('?');
                if riddle {
                    wrong.push(format!("{place}: {sentence}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} sentences: {wrong:#?}", wrong.len());
}
