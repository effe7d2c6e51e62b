//! A QR code for a terminal.

use qrcodegen::{QrCode, QrCodeEcc};

/// The border that readers need, ISO/IEC 18004: four modules.
const QUIET: i32 = 4;

/// Black on white, whatever the colours of the terminal are; the upper half of each character in the
/// foreground.
const COLOURS: &str = "\u{1b}[38;5;16;48;5;231m";
const RESET: &str = "\u{1b}[0m";

/// The lines of a QR code, two modules a line; `None` if it does not fit into so many columns.
pub fn lines(text: &str, columns: usize) -> Option<Vec<String>> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let width = code.size() + 2 * QUIET;
    if usize::try_from(width).ok()? > columns {
        return None;
    }
    let from = -QUIET;
    let to = code.size() + QUIET;
    let line = |y: i32| {
        let modules: String = (from..to)
            .map(|x| match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            })
            .collect();
        format!("{COLOURS}{modules}{RESET}")
    };
    Some((from..to).step_by(2).map(line).collect())
}

#[cfg(test)]
mod tests {
    use crate::login::qr::*;

    #[test]
    fn a_code_has_its_border_and_its_colours() {
        let lines = lines("https://as.example/device?user_code=ABCD-EFGH", 80).unwrap();
        let text = |line: &str| line.strip_prefix(COLOURS).unwrap().strip_suffix(RESET).unwrap().to_owned();
        let plain: Vec<String> = lines.iter().map(|line| text(line)).collect();
        let width = plain[0].chars().count();
        assert!(plain.iter().all(|line| line.chars().count() == width), "{plain:?}");
        assert!(plain[..2].iter().all(|line| line.trim().is_empty()), "{plain:?}");
        assert!(plain.iter().all(|line| line.starts_with("    ") && line.ends_with("    ")), "{plain:?}");
        assert_eq!(super::lines("https://as.example/device", 20), None);
    }
}
