//! The look of each view, by the character.

use crate::cli::page::Line;
use crate::cli::status::*;
use crate::status::account::{AttemptStatus, RefreshTokenStatus, SupervisorStatus};
use crate::status::{PushStatus, Severity, State, TokenFileStatus};

const NOW: i64 = 1_800_000_000;

/// A fresh token of an hour, 17 minutes old.
fn account(name: &str) -> AccountStatus {
    AccountStatus {
        plain_copy: None,
        account: name.to_owned(),
        from: None,
        state: State::Fresh,
        severity: Severity::Ok,
        problem: None,
        cause: None,
        hint: None,
        source: "file",
        token_file: TokenFileStatus {
            path: format!("/run/{name}.token").into(),
            exists: true,
            current: Some(true),
            modified_at: Some(NOW - 1020),
            masked_by: None,
        },
        outputs: Vec::new(),
        grant_type: None,
        waits_for: None,
        certificates: Vec::new(),
        generation: Some(7),
        expires_at: Some(NOW + 2580),
        expires_in: Some(2580),
        lifetime: Some(3600),
        refresh_at: Some(NOW + 1380),
        next_refresh_at: Some(NOW + 1380),
        refresh_token: RefreshTokenStatus {
            available: true,
            source: Some("state"),
            at_rest: Some("plain"),
            seeded_at: Some(NOW - 90_000),
            rotated_at: Some(NOW - 1020),
            ends_at: None,
            identity: Some("https://login.example.com#8c1f".into()),
            email: Some("kim@example.com".into()),
        },
        push: Vec::new(),
        probe: None,
        last_attempt: Some(AttemptStatus {
            at: NOW - 1020,
            result: "refreshed".into(),
            message: None,
            cause: None,
            failures: None,
            failing_since: None,
        }),
        fleet: None,
        supervisor: Some(SupervisorStatus { pid: Some(4711), stopped: false }),
    }
}

fn troubled(name: &str, state: State, severity: Severity, problem: &str, hint: &str) -> AccountStatus {
    AccountStatus { state, severity, problem: Some(problem.into()), hint: Some(hint.into()), ..account(name) }
}

/// Aged by so many seconds more.
fn older(by: i64, status: AccountStatus) -> AccountStatus {
    let earlier = |at: Option<i64>| at.map(|at| at - by);
    AccountStatus {
        expires_at: earlier(status.expires_at),
        expires_in: earlier(status.expires_in),
        refresh_at: earlier(status.refresh_at),
        next_refresh_at: None,
        ..status
    }
}

/// One account for each word that there is.
fn all_sorts() -> Snapshot {
    let failing = AttemptStatus {
        at: NOW - 60,
        result: "http_503".into(),
        message: Some("HTTP 503".into()),
        cause: None,
        failures: Some(6),
        failing_since: Some(NOW - 400),
    };
    let none = |status| AccountStatus {
        generation: None,
        expires_at: None,
        expires_in: None,
        lifetime: None,
        refresh_at: None,
        next_refresh_at: None,
        ..status
    };
    let unfiled = |status: AccountStatus| AccountStatus {
        token_file: TokenFileStatus { exists: false, current: None, ..status.token_file.clone() },
        ..status
    };
    let accounts = vec![
        account("work"),
        AccountStatus { state: State::Due, ..older(1500, account("mail")) },
        AccountStatus {
            last_attempt: Some(failing),
            next_refresh_at: Some(NOW + 40),
            ..older(1800, troubled("backup", State::BackingOff, Severity::Warning, "HTTP 503", "wait"))
        },
        older(3000, troubled("ci", State::Due, Severity::Critical, "the token expired 7 min ago", "run it")),
        troubled("calendar", State::NeedsLogin, Severity::Critical, "invalid_grant", "log in again"),
        none(troubled("grafana", State::Unknown, Severity::Unknown, "version 7", "install it")),
        none(troubled("new", State::Due, Severity::Critical, "there is no token yet", "run it")),
        unfiled(troubled("files", State::Fresh, Severity::Critical, "the file is missing", "run it")),
        AccountStatus { state: State::Refreshing, ..older(1500, account("now")) },
    ];
    Snapshot { at: NOW, accounts }
}

fn plain(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| line.text(usize::MAX, false)).collect()
}

/// Without what depends on the time zone.
fn rows(snapshot: &Snapshot, width: usize, unicode: bool) -> Vec<String> {
    let count = snapshot.accounts.len() + 1;
    plain(&table::lines(snapshot, width, unicode)).into_iter().take(count).collect()
}

#[test]
fn a_row_for_each_account() {
    // Too narrow for the times of day, which depend on the time zone.
    assert_eq!(
        rows(&all_sorts(), 68, true),
        [
            "  ACCOUNT   STATE        LIFE                    LEFT  REFRESH",
            "● work      fresh        ━━━━━━┿━━━━━━────     43 min  in 23 min",
            "● mail      due          ━━━━━━┼──────────     18 min  now",
            "▲ backup    backing off  ━━━━──┼──────────     13 min  retry in 40 s",
            "✗ ci        expired      ──────┼──────────  7 min ago  now",
            "✗ calendar  needs login  ━━━━━━┿━━━━━━────     43 min  after login",
            "? grafana   unreadable                              –  –",
            "✗ new       no token                                –  now",
            "✗ files     not in file  ━━━━━━┿━━━━━━────     43 min  in 23 min",
            "● now       refreshing   ━━━━━━┼──────────     18 min  under way",
        ]
    );
    // Where there is little room, the names go first, then what can be read below.
    assert_eq!(
        rows(&all_sorts(), 40, false)[..3],
        [
            "  ACCOUNT   STATE             LEFT",
            "* work      fresh           43 min",
            "* mail      due             18 min",
        ]
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let snapshot = all_sorts();
    let long = AccountStatus { account: "a".repeat(64), ..account("") };
    let long = Snapshot { at: NOW, accounts: vec![long, account("b")] };
    let one = |status: &AccountStatus| Snapshot { at: NOW, accounts: vec![status.clone()] };
    for width in [60, 80, 90, 200] {
        let pages = [table::lines(&snapshot, width, true), table::lines(&long, width, false)];
        let single = snapshot.accounts.iter().map(|status| table::lines(&one(status), width, true));
        for line in pages.into_iter().chain(single).flatten().flat_map(|line| line.rows(width)) {
            assert!(line.width() <= width, "{width}: {}", line.text(usize::MAX, false));
        }
    }
}

#[test]
fn equal_troubles_share_their_words() {
    let down = |name: &str| troubled(name, State::BackingOff, Severity::Warning, "HTTP 503", "wait");
    let names: Vec<String> = (0..1000).map(|number| format!("a{number}")).collect();
    let snapshot = Snapshot { at: NOW, accounts: names.iter().map(|name| down(name)).collect() };
    let lines = plain(&table::lines(&snapshot, 80, true));
    assert_eq!(
        lines[1001..],
        [
            "",
            "▲ a0, a1, a2, a3, a4, a5, a6, a7 and 992 others",
            "  HTTP 503",
            "  → wait",
            "",
            "  1000 accounts: 1000 backing off",
            "  supervised by process 4711",
        ]
    );
}

#[test]
fn each_account_that_is_not_fresh_has_its_sentence() {
    for status in all_sorts().accounts.into_iter().skip(1) {
        let name = status.account.clone();
        let lines = plain(&table::lines(&Snapshot { at: NOW, accounts: vec![status] }, 80, true));
        // Below the table, and above the details.
        let about: Vec<_> = lines[3..].iter().take_while(|line| !line.is_empty()).collect();
        assert!(about[0].ends_with(&name), "{lines:#?}");
        assert!(about.len() > 2 && about.last().unwrap().starts_with("  → "), "{lines:#?}");
    }
}

/// Only the worst finding is told, and a target may be wrong beside it.
#[test]
fn each_target_without_the_newest_token_has_a_line() {
    let target = |name: &str, current, at, problem: Option<&str>| PushStatus {
        url: format!("http://{name}/"),
        current,
        at,
        problem: problem.map(str::to_owned),
    };
    let pushed = |status| AccountStatus {
        push: vec![
            target("well", Some(true), Some(NOW), None),
            target("down", Some(false), Some(NOW), Some("it answered HTTP 503")),
            target("late", Some(false), Some(NOW - 1020), None),
            target("new", None, None, None),
        ],
        ..status
    };
    let status = troubled("a", State::Fresh, Severity::Critical, "the file is missing", "run it");
    let snapshot = Snapshot { at: NOW, accounts: vec![pushed(status)] };
    let lines = [
        plain(&table::lines(&snapshot, 100, true)),
        text::text(&snapshot).lines().map(str::to_owned).collect(),
    ];
    for lines in lines {
        let lines: Vec<_> = lines.iter().filter(|line| line.starts_with("  push ")).collect();
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines[0].ends_with(": not sent to http://down/: it answered HTTP 503"), "{lines:#?}");
        assert!(lines[1].contains(" http://late/ has an older token, sent "), "{lines:#?}");
        assert!(lines[2].ends_with(" http://new/, nothing sent yet"), "{lines:#?}");
    }
    let without = AccountStatus { expires_at: None, expires_in: None, ..account("a") };
    let snapshot = Snapshot { at: NOW, accounts: vec![pushed(without)] };
    assert!(!text::text(&snapshot).contains("push"), "there is nothing to be sent");
}

#[test]
fn ascii_will_do() {
    let mut snapshot = all_sorts();
    snapshot.accounts[2].problem = Some("\u{1b}[31mgrün…\nrot".into());
    for line in plain(&table::lines(&snapshot, 80, false)) {
        assert!(line.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{line:?}");
    }
}

#[test]
fn a_line_for_a_prompt() {
    let of = |accounts: Vec<AccountStatus>| short::line(&Snapshot { at: NOW, accounts });
    assert_eq!(of(vec![account("a")]), "fresh, 43 min left");
    assert_eq!(of(vec![account("a"), older(60, account("b"))]), "2 fresh, 42 min left");
    let dead = older(3000, troubled("a", State::NeedsLogin, Severity::Critical, "", ""));
    assert_eq!(of(vec![dead.clone()]), "needs login");
    assert_eq!(of(vec![account("b"), dead]), "a needs login; 1 fresh, 43 min left");
    assert_eq!(
        short::line(&all_sorts()),
        "ci expired; calendar needs login; new no token; files not in file; grafana unreadable; \
         backup backing off; 1 fresh; 1 due; 1 refreshing, 13 min left"
    );
    let many = (0..4).map(|n| troubled(&n.to_string(), State::NeedsLogin, Severity::Critical, "", ""));
    assert_eq!(of(many.collect()), "4 needs login");
}

#[test]
fn labels_are_escaped_for_prometheus() {
    let mut odd = account("a");
    odd.token_file.path = "/a\"b\\c\nd".into();
    let text = metrics::page(&[odd]).text;
    let line = r#"zg_tokend_account_info{account="a",token_file="/a\"b\\c\nd"} 1"#;
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[test]
fn it_is_drawn_anew_when_time_makes_a_difference_and_not_before() {
    let words = |left: i64| crate::message::duration(std::time::Duration::from_secs(left.unsigned_abs()));
    for at in (-700..4000).chain(86_300..90_100).chain([200_000, -90_000]) {
        let only = AccountStatus { refresh_at: None, next_refresh_at: None, ..account("a") };
        let snapshot = Snapshot { at: 0, accounts: vec![AccountStatus { expires_at: Some(at), ..only }] };
        let changes_at = screen::changes_at(&snapshot).unwrap();
        let (before, then) = (words(at - changes_at + 1), words(at - changes_at));
        assert_eq!(before, words(at), "{at}: not before {changes_at}");
        // At the instant itself "1 s" becomes "0 s ago".
        assert!(then != words(at) || at == 0, "{at}: by {changes_at}");
    }
}
