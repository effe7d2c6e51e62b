use crate::cli::demo::view::*;

fn plain(lines: &[Line], width: usize) -> Vec<String> {
    lines.iter().map(|line| line.text(width, false)).collect()
}

#[test]
fn the_bar_shrinks_towards_the_mark() {
    let cases = [
        (12, 6, "######|####"),
        (8, 6, "######|#..."),
        (6, 6, "######|...."),
        (3, 6, "###...|...."),
        (1, 6, "#.....|...."),
        (0, 6, "......|...."),
        (-5, 6, "......|...."),
        (40, 6, "######|####"),
        (6, 0, "######....."),
    ];
    for (left, due_with, shown) in cases {
        assert_eq!(bar(left, due_with, 12, 11), shown, "{left} left, due with {due_with}");
    }
    assert_eq!(bar(12, 6, 12, 0), "");
}

#[test]
fn the_block_fits_a_narrow_terminal() {
    let story = Story::default();
    let life = Life { generation: 3, left: 7800, due_with: 6000, next: Next::Refresh(1800) };
    assert_eq!(
        plain(&block(Some(&life), &story, Some(20_500), 12_000, 60), 60),
        [
            "",
            "token 3   [###################|#####.............] 8 s left",
            "          next refresh in 2 s  (| marks when it is due)",
            "client    0 reads of the token file, 0 refused",
            "          ends in 21 s; Ctrl-C ends it now",
        ]
    );
    for width in [60, 80, 200] {
        let lines = block(Some(&life), &story, None, 12_000, width);
        assert!(lines.iter().all(|line| line.width() < width), "{lines:?}");
    }
}

#[test]
fn what_does_not_fit_is_cut_off() {
    let life = Life { generation: 3, left: 0, due_with: 6000, next: Next::Problem("a".repeat(99)) };
    let lines = block(Some(&life), &Story::default(), None, 12_000, 30);
    assert!(plain(&lines, 30).iter().all(|line| line.chars().count() <= 30), "{lines:?}");
}

#[test]
fn colour_adds_nothing_but_escapes() {
    let line = Line::one(GOOD, "token");
    assert_eq!(line.text(3, true), format!("{GOOD}tok{GOOD:#}"));
    assert_eq!(line.text(3, false), "tok");
}

#[test]
fn the_state_in_one_line() {
    let life = Life { generation: 3, left: 4800, due_with: 6000, next: Next::Try(1200) };
    assert_eq!(
        sentence(Some(&life), &Story::default()).text,
        "token 3: 5 s left, the refresh failed, next try in 2 s; 0 reads of the token file, 0 refused"
    );
    assert_eq!(sentence(None, &Story::default()).text, "no token yet");
}

#[test]
fn events_break_between_words_on_a_terminal_only() {
    let told = Event::new(Tone::Care, "the server is down, on purpose");
    assert_eq!(
        plain(&event("12:00:07", &told, Some(32)), usize::MAX),
        ["12:00:07  the server is down, on", "          purpose"]
    );
    assert_eq!(
        plain(&event("12:00:07", &told, None), usize::MAX),
        ["12:00:07  the server is down, on purpose"]
    );
}
