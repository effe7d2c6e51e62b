//! Changes of addresses and routes, as the kernel tells them (rtnetlink(7)): the network may be back.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;

use crate::timer::async_fd;

/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR and RTMGRP_IPV6_ROUTE.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;

/// Nothing, where a sandbox permits no such socket: then the next try comes within a minute.
pub struct NetworkChanges(Option<AsyncFd<OwnedFd>>);

impl NetworkChanges {
    pub fn new() -> Self {
        let open = || -> io::Result<_> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            // Without a protocol it is NETLINK_ROUTE.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
            async_fd(socket)
        };
        Self(open().ok())
    }

    /// Waits for one. Can be dropped and called again at any time.
    pub async fn next(&self) {
        let Some(socket) = &self.0 else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = socket.readable().await else { return std::future::pending().await };
            if read_all(socket.get_ref()) {
                return;
            }
            ready.clear_ready();
        }
    }
}

/// Takes all messages; true if there was one. Which address has changed does not matter.
fn read_all(socket: &OwnedFd) -> bool {
    let mut any = false;
    loop {
        match recv(socket, &mut [0; 8192][..], RecvFlags::empty()) {
            // Some were lost: those that are there tell enough.
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => any = true,
            Err(_) => return any,
        }
    }
}
