//! The events of a login that is under way, for whoever shows them.

use url::Url;

use crate::login::device_code::DeviceCode;
use crate::login::redirect::NoAnswer;

/// Something to tell the user while a login is under way.
#[derive(Debug)]
pub enum LoginEvent<'a> {
    /// The login page is at this address; `opened`: a browser was started.
    Page {
        url: &'a Url,
        redirect_uri: &'a str,
        opened: bool,
    },
    Ignored(NoAnswer),
    /// The user enters this code at another device.
    Code(&'a DeviceCode),
    /// The code has expired. Enter asks for another one.
    CodeExpired,
    /// Something that passes by itself.
    Trouble(String),
    /// The server's answer is there and is exchanged.
    Exchanging,
}

/// Shows the events of a login.
pub trait LoginScreen {
    fn show(&self, event: &LoginEvent<'_>);
}
