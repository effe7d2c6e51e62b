//! Private keys that sign assertions (RFC 7515, RFC 7518), and certificates. By ring alone. No I/O but the
//! kernel's random bytes.

pub mod certificate;
pub mod key;
