//! A login by browser, by device code or by paste, and its end.
//!
//! A login runs in this order. Nothing that the user does is lost to a fault that could be seen before.
//!
//! 1. [`session::LoginSession::prepare`] reads the secrets, finds the endpoints, and proves that the next state and token
//!    file can be stored. A second login for the account is refused.
//! 2. The user logs in: [`browser`] waits for the redirect and for a pasted address at once, [`device`]
//!    polls. No lock is held meanwhile: refreshes go on.
//! 3. [`grant`] locks the account, exchanges the code, stores the login, and publishes its token, in the
//!    order of a refresh. Until it is stored, the earlier login is in force; `run` and `once` find the new
//!    one in the state.
//! 4. Only then [`listener`] shows the page.

pub mod browser;
pub mod device;
pub mod device_code;
pub mod event;
pub mod grant;
pub mod listener;
pub mod logout;
pub mod page;
pub mod qr;
pub mod redirect;
pub mod request;
pub mod revocation;
pub mod server;
pub mod session;
