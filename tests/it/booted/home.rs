//! A user of the box who looks after the token without being root: by the user's own service
//! manager, or by cron.

use std::fs;
use std::time::Duration;

use zg_tokend::testing::demo::IssuerOptions;
use zg_tokend::testing::secret::Secret;

use super::machine::{Machine, Person};
use crate::common::wait_until;
use crate::common::world::World;

/// A user, and the server that the user's config asks.
pub(super) struct Home {
    pub world: World,
    pub person: Person,
}

impl Home {
    /// With a config and a login; tokens live so many seconds. `None` without root.
    pub(super) fn new(name: &'static str, lifetime: u64) -> Option<Self> {
        let person = Machine::shared()?.person(name);
        let lifetime = Duration::from_secs(lifetime);
        let world =
            World::with(IssuerOptions { access_token_lifetime: lifetime, ..IssuerOptions::default() });
        person.make(&person.home(".config/zg-tokend"));
        let home = Self { world, person };
        home.configure("");
        Some(home)
    }

    /// Writes the config, with a new login; `extra` are more lines.
    pub(super) fn configure(&self, extra: &str) {
        let seed = self.world.seed();
        self.configure_login(&format!("\"{}\"", seed.expose()), extra);
    }

    /// The same; `login` is the value of refresh_token.
    pub(super) fn configure_login(&self, login: &str, extra: &str) {
        let config = format!("{}refresh_token = {login}\n{extra}\n", self.world.client());
        self.person.put(&self.person.home(".config/zg-tokend/config.toml"), &config);
    }

    /// A property of a unit of the user's.
    pub(super) fn property(&self, unit: &str, name: &str) -> String {
        self.person.run(&format!("systemctl --user show --value -p {name} {unit}")).trim().to_owned()
    }

    pub(super) fn wait_for_grants(&self, count: usize) {
        wait_until(&format!("{count} grants"), || (self.world.grants() >= count).then_some(()));
    }

    #[track_caller]
    pub(super) fn assert_live(&self) {
        let path = self.person.machine.path(self.person.home(".config/zerogravity/token"));
        let token = Secret::new(fs::read_to_string(path).unwrap());
        assert!(self.world.server.is_live(&token), "the token file holds a live token");
    }
}
