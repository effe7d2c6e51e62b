//! docs/THREAT-MODEL.md: the tests that it names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files below a directory of the repository: places below it, and texts.
fn sources(below: &str) -> Vec<(String, String)> {
    let root = Path::new(ROOT).join(below);
    let (mut found, mut directories) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let place = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push((place, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// The names of the functions below `#[test]`.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let texts = text.split("#[test]").skip(1).chain(text.split("#[tokio::test]").skip(1));
    texts.filter_map(|rest| {
        let (_, rest) = rest.split_once("fn ")?;
        rest.split('(').next()
    })
}

/// The modules of tests/it and their tests, as `module`, `module::inner` and `module::inner::test`.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (place, text) in sources("tests/it") {
        let module = place.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        names.extend(tests_in(&text).map(|test| format!("{module}::{test}")));
        names.insert(module);
    }
    names
}

/// The texts in backticks, those in tables and those in paragraphs.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':')
}

#[test]
fn every_test_in_the_threat_model_exists() {
    let model = fs::read_to_string(Path::new(ROOT).join("docs/THREAT-MODEL.md")).unwrap();
    let names = names();
    let unit_tests: BTreeSet<String> =
        sources("src").iter().flat_map(|(_, text)| tests_in(text)).map(str::to_owned).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for text in quoted(&model) {
        let is_path = ["src/", "tests/"].iter().any(|root| text.starts_with(root));
        let exists = if is_path {
            Path::new(ROOT).join(text).exists()
        } else if is_name(text) && text.contains("::") {
            names.contains(text.trim_end_matches("::"))
        } else if is_name(text) && text.matches('_').count() > 2 {
            // The test of a file that is named before it.
            unit_tests.contains(text)
        } else {
            continue;
        };
        count += 1;
        if !exists {
            wrong.push(text);
        }
    }
    assert!(wrong.is_empty(), "not in the tests: {wrong:#?}");
    assert!(count > 80, "{count} names are too few: the document is read wrongly");
}

#[test]
fn each_row_of_the_lists_of_faults_names_a_test_or_says_why_there_is_none() {
    let model = fs::read_to_string(Path::new(ROOT).join("docs/THREAT-MODEL.md")).unwrap();
    for title in ["## Exchanges: ", "## Waiting: "] {
        let (_, section) = model.split_once(title).unwrap_or_else(|| panic!("no section {title}"));
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        assert!(rows.len() > 10, "{title}: {rows:#?}");
        for row in rows {
            let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
            assert!(last.contains('`') || last.contains("not held: "), "no test: {row}");
        }
    }
}
