//! Under a systemd that was booted for the tests, and from a cron daemon: installed like a package,
//! under the units as they are shipped. The server's log and the token file are the judges.

mod cron;
mod golden;
mod home;
mod journal;
mod machine;
mod package;
mod system;
mod timer;
mod tls;
mod units;
mod user;
