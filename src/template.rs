//! Templates of config values: texts with the names of values in braces.

/// `{` without `}`, or `}` without `{`.
#[derive(Debug)]
pub struct Unbalanced;

/// The texts, each with the name after it; the last has none. `{{` and `}}` stand for braces.
pub fn pieces(mut rest: &str) -> Result<Vec<(String, Option<&str>)>, Unbalanced> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    while let Some(brace) = rest.find(['{', '}']) {
        literal.push_str(&rest[..brace]);
        rest = &rest[brace..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push_str(&rest[..1]);
            rest = &rest[2..];
            continue;
        }
        let inside = rest.strip_prefix('{').ok_or(Unbalanced)?;
        let (name, after) = inside.split_once('}').ok_or(Unbalanced)?;
        pieces.push((std::mem::take(&mut literal), Some(name)));
        rest = after;
    }
    pieces.push((literal + rest, None));
    Ok(pieces)
}
