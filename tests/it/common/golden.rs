//! Texts that people read, word for word. `ZG_WRITE_GOLDEN=1` writes the files anew.

use std::fs;
use std::path::Path;

/// Compares with a golden file.
#[track_caller]
pub(crate) fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("ZG_WRITE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs:\n{text}", path.display());
}
