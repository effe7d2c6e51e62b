//! "Did you mean".

/// How alike two words must be for "did you mean" (0 to 1). 0.8 lets a letter be lost,
/// doubled or swapped in words as long as these, and keeps `issuer` and `user` apart.
const ALIKE: f64 = 0.8;

/// The one of `names` that is most like `word`, if one is.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
