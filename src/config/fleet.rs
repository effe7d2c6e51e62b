//! The keys of a login that several machines share.

use crate::config::grant::GrantConfig;
use crate::config::keys::{RawFleet, or_default, raw};
use crate::config::problem::{ConfigProblem, bad_value};
use crate::config::settings::FleetConfig;
use crate::config::validate::Scope;
use crate::config::values::{choice, missing};
use crate::refresh::replica::Role;

/// Tests read the whole example config.
const IS_BUILT_IN: bool = cfg!(any(feature = "fleet", test));

const ROLES: [(&str, Role); 2] = [("refresh", Role::Refresh), ("read", Role::Read)];

impl Scope<'_> {
    pub(super) fn fleet(
        &self,
        raw: raw::Table<RawFleet>,
        has_from: bool,
        grant: &GrantConfig,
    ) -> Result<FleetConfig, ConfigProblem> {
        const KEY: &str = "fleet";
        let (place, raw) = (raw.span(), raw.into_inner());
        if !IS_BUILT_IN {
            let hint =
                "install the package of zg-tokend, or build it with `cargo build --release --features fleet`";
            return Err(bad_value(KEY, place, "is set, and this zg-tokend was built without it", hint));
        }
        let grant_type = grant.grant_type;
        if !grant_type.has_login() {
            let what = format!("stands beside grant_type = \"{}\"", grant_type.name());
            let hint = "remove it: without a refresh token, each machine can get tokens of its own, and none is lost";
            return Err(bad_value(KEY, place, what, hint));
        }
        if has_from {
            let hint = "give this account a login of its own, or leave the fleet out on this machine";
            return Err(bad_value(KEY, place, "is not possible where accounts share a login (`from`)", hint));
        }
        let url = raw.url.ok_or_else(|| missing("fleet.url", place.clone(), ""))?;
        let role = choice("fleet.role", &or_default("fleet.role", raw.role), &ROLES)?;
        let key = match (role, raw.key) {
            (Role::Refresh, None) => return Err(missing("fleet.key", place, "")),
            (Role::Refresh, Some(key)) => Some(self.secret("fleet.key", key)?),
            (Role::Read, None) => None,
            (Role::Read, Some(key)) => {
                let hint = "remove it: a machine that reads must not be able to open the refresh token";
                return Err(bad_value("fleet.key", key.span(), "stands beside role = \"read\"", hint));
            }
        };
        Ok(FleetConfig { url: self.secret("fleet.url", url)?, key, role })
    }
}
