//! The texts that an operator reads, word for word.

use std::process::Command;

use zg_tokend::testing::demo::Fault;
use zg_tokend::testing::demo::IssuerOptions;

use super::system::Instance;
use crate::common::golden::compare;
use crate::common::{feed, wait_until};

#[test]
fn status_and_journal_read_well() {
    let Some(it) = Instance::new("olga", IssuerOptions::default()) else { return };
    let status = |title: &str| {
        let text = it.person.machine.shell(&format!("systemctl status --no-pager -n 0 {}", it.unit)).stdout;
        format!("# {title}\n{}\n", text.trim_end())
    };
    let starts = |words: &str| it.property("StatusText").starts_with(words).then_some(());
    // Not by systemctl, which would log it at the same time as the program what comes of it.
    let refresh = || it.person.machine.run(&format!("kill -USR1 {}", it.property("MainPID")));
    let mut seen = String::new();
    it.configure("");
    it.do_systemctl("start");
    seen += &status("fresh");

    it.world.fault(Fault::reply(503, "{}"));
    refresh();
    wait_until("a failure", || starts("default: "));
    seen += &status("the server is out of order");
    refresh();
    wait_until("the end of it", || starts("the token is fresh"));

    it.configure("skw = \"1m\"");
    wait_until("that it is noticed", || starts("the new config is wrong"));
    assert_eq!(it.systemctl("reload").code, Some(1));
    seen += &status("the config is wrong");
    it.configure("");
    wait_until("that it is mended", || starts("the token is fresh"));
    it.wait_for_grants(3);

    let refusal = r#"{"error":"invalid_grant","error_description":"Token has been revoked."}"#;
    it.world.fault(Fault::reply(400, refusal));
    refresh();
    wait_until("that it is said", || starts("default: "));
    seen += &status("the login is dead");
    it.do_systemctl("stop");
    seen += &status("stopped");
    let journal = it.person.machine.run(&format!("journalctl --sync; journalctl --no-pager -u {}", it.unit));

    // The lines of systemd, then those of the program: the two come by different ways.
    let (manager, program): (Vec<&str>, Vec<&str>) =
        journal.lines().partition(|line| line.contains(" systemd["));
    compare("booted-status", &normal(&seen));
    compare("booted-journal", &normal(&([manager, program].concat().join("\n") + "\n")));
}

/// The text without what differs from run to run and from machine to machine.
fn normal(text: &str) -> String {
    const RULES: &[&str] = &[
        r"/^ *(Invocation|Tasks|Memory|CPU): /d",
        // systemd forgets a failed reload at the next daemon-reload, which another test may cause.
        r"/^ *Process: [0-9]+ ExecReload=/d",
        r"s,\((/usr)?/lib/systemd/,(/lib/systemd/,",
        r"s/^[A-Z][a-z]{2} [0-9 ]{2} [0-9:]{8} box /TIME box /",
        r"s/ tried again at [0-9:]{8}/ tried again at TIME/",
        r"s/ next refresh at [0-9:]{8}/ next refresh at TIME/",
        r"s/ since [A-Z].* ago$/ since TIME; AGE ago/",
        r"s/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}/TIME/g",
        r"s/(PID: |─|\[)[0-9]+/\1PID/",
        r"s/[0-9a-f]{12}…/HASH…/",
        r"s/[0-9]+ ms\)/N ms)/",
        r"s/it died [0-9.]+ [a-z]+ after/it died AGE after/",
        r"s/ +$//",
    ];
    let mut sed = Command::new("sed");
    sed.arg("-E").args(RULES.iter().flat_map(|rule| ["-e", rule])).env("LC_ALL", "C.UTF-8");
    feed(&mut sed, text).stdout
}
