//! Whether a service of the user ends with the user's last login, loginctl(1).

use std::path::Path;

use crate::check::finding::Finding;
use crate::config::Environment;
use crate::files::owner;

const HINT: &str = "loginctl enable-linger";

/// The sentence for a `run` that the user's service manager has started, if it will end so.
pub fn warning() -> Option<(&'static str, &'static str)> {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let text = "this service ends with the last login of its user, and the token with it";
    (is_of_user_manager(&cgroup, uid()) && !lingers()).then_some((text, HINT))
}

/// The same of a service that is enabled.
pub(super) fn linger(environment: &Environment) -> Option<Finding> {
    let units = environment.config_home.as_ref()?.join("systemd/user");
    let enabled = ["default.target.wants/zg-tokend.service", "timers.target.wants/zg-tokend.timer"];
    let is_enabled = enabled.iter().any(|unit| units.join(unit).symlink_metadata().is_ok());
    let message = "the service of this user ends with the user's last login";
    (is_enabled && !lingers()).then(|| Finding::warning("linger", message, HINT))
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn lingers() -> bool {
    // As systemd-logind keeps it. Without logind nothing ends.
    !Path::new("/run/systemd/users").exists()
        || Path::new("/var/lib/systemd/linger").join(owner::user_name(uid())).exists()
}

/// In a cgroup of user@UID.service, but in no login session.
fn is_of_user_manager(cgroup: &str, uid: u32) -> bool {
    cgroup.contains(&format!("/user@{uid}.service/")) && cgroup.trim_end().ends_with(".service")
}

#[cfg(test)]
mod tests {
    use crate::check::linger::*;

    #[test]
    fn a_service_of_the_user_manager_is_told_from_a_terminal() {
        let of = |cgroup: &str| is_of_user_manager(cgroup, 1000);
        assert!(of("0::/user.slice/user-1000.slice/user@1000.service/app.slice/zg-tokend.service\n"));
        assert!(!of("0::/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope\n"));
        assert!(!of("0::/user.slice/user-1000.slice/session-3.scope\n"));
        assert!(!of("0::/system.slice/system-zg\\x2dtokend.slice/zg-tokend@alice.service\n"));
        assert!(!of("0::/user.slice/user-1001.slice/user@1001.service/app.slice/zg-tokend.service\n"));
    }
}
