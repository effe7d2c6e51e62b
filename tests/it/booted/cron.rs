//! Debian's cron, and the line of the README.

use std::fs;

use zg_tokend::testing::demo::Outage;
use zg_tokend::testing::demo::{AuditEntry, AuditEvent};

use super::home::Home;
use crate::common::wait_until;

/// For cron alone, a minute passes in a second.
const FAST: &str = "\
[Service]
Environment=LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1 'FAKETIME=+0 x60' DONT_FAKE_MONOTONIC=1
";

/// Keeps each mail in a file.
const SENDMAIL: &str = "#!/bin/sh\nexec cat >\"$(mktemp /var/spool/sent/XXXXXX)\"\n";

#[test]
fn cron_is_silent_while_all_is_well() {
    let Some(home) = Home::new("cora", 3) else { return };
    let machine = &home.person.machine;
    machine.make("/var/spool/sent", 0o1777);
    machine.put("/usr/sbin/sendmail", SENDMAIL.as_bytes(), 0o755);
    machine.make("/etc/systemd/system/cron.service.d", 0o755);
    machine.put("/etc/systemd/system/cron.service.d/fast.conf", FAST.as_bytes(), 0o644);
    let readme = include_str!("../../../README.md");
    let line = readme.lines().find(|line| line.contains("* * * *")).unwrap();
    machine
        .run(&format!("echo '{line}' | crontab -u cora -; systemctl daemon-reload; systemctl restart cron"));
    let mails = || -> Vec<String> {
        let files = fs::read_dir(machine.path("/var/spool/sent")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    };

    // The token is dead long before the next pass.
    home.wait_for_grants(3);
    assert_eq!(mails(), [""; 0]);

    home.world.outage(Some(Outage::Unavailable));
    let mail = wait_until("a mail", || mails().into_iter().find(|mail| mail.contains("\n\n")));
    let (headers, body) = mail.split_once("\n\n").unwrap();
    assert!(headers.contains(&format!("Subject: Cron <cora@box> {}", command(line))), "{mail}");
    assert!(body.starts_with("error: account default: ") && body.contains("503"), "{mail}");

    home.world.outage(None);
    let grants = home.world.grants();
    // The mail of a pass that was held comes after that.
    home.wait_for_grants(grants + 3);
    let before = mails().len();
    let grants = home.world.grants();
    home.wait_for_grants(grants + 2);
    assert_eq!(mails().len(), before, "{:?}", mails());
    machine.run("crontab -u cora -r; systemctl stop cron");
    let lost = |entry: &AuditEntry| {
        matches!(entry.event, AuditEvent::Refusal { .. } | AuditEvent::Revocation { .. })
    };
    assert!(!home.world.server.audit().iter().any(lost), "{:#?}", home.world.server.audit());
}

/// The rest of the line after the five fields.
fn command(line: &str) -> &str {
    line.splitn(6, ' ').nth(5).unwrap()
}
