//! Where the demo is seen. On a terminal what happens scrolls by above a few lines that are redrawn
//! in place; elsewhere there are plain lines. The cursor is never hidden, so nothing has to bring
//! it back.

use std::io::{self, Write as _};

use crate::cli::page::Line;
use crate::cli::terminal;
use crate::cli::terminal::Abilities;

/// Standard output.
pub(super) struct Screen {
    /// Lines can be redrawn.
    live: bool,
    colour: bool,
    /// The widths of the lines that stand above the cursor, to be redrawn.
    drawn: Vec<usize>,
}

impl Screen {
    /// Finds out what standard output can do.
    pub(super) fn of_stdout() -> Self {
        let Abilities { live, colour, .. } = Abilities::of_stdout();
        Self { live, colour, drawn: Vec::new() }
    }

    /// The terminal's width in columns; `None` where nothing can be redrawn.
    pub(super) fn width(&self) -> Option<usize> {
        self.live.then(|| terminal::size().0)
    }

    /// Adds lines that stay, and draws those anew that do not. In one write, so that no half of it
    /// is ever seen. Fails when the reader has gone away.
    pub(super) fn draw(&mut self, lines: &[Line], block: &[Line]) -> io::Result<()> {
        let mut frame = Vec::new();
        if let Some(width) = self.width() {
            // A terminal made narrower since has broken the old lines.
            let rows: usize = self.drawn.iter().map(|columns| columns.div_ceil(width).max(1)).sum();
            if rows > 0 {
                write!(frame, "\r\x1b[{rows}A")?;
            }
            // Erased first: after a full line some terminals would erase its last character.
            for line in lines {
                writeln!(frame, "\x1b[K{}", line.text(usize::MAX, self.colour))?;
            }
            for line in block {
                writeln!(frame, "\x1b[K{}", line.text(width, self.colour))?;
            }
            write!(frame, "\x1b[J")?;
            self.drawn = block.iter().map(|line| line.width().min(width)).collect();
        } else {
            for line in lines {
                writeln!(frame, "{}", line.text(usize::MAX, self.colour))?;
            }
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame)?;
        stdout.flush()
    }
}
