//! Loopback ports that nobody uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports lie below those which the kernel lends to outgoing connections, so that a client
/// of one test never takes the port of another test's server.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// Where each process of a parallel run starts to look, far enough from its neighbours.
const STRIDE: u32 = 16;

/// An address that was free a moment ago and that this process hands out once.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let step = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + step % COUNT).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no loopback port is free from {FIRST} to {}", FIRST + COUNT);
}
