//! Loopback ports that nobody uses.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports lie below those which the kernel lends to outgoing connections, so that no client
/// takes the port of a server that will be started again, and apart from those which the
/// end-to-end tests choose for the service.
const FIRST: u32 = 2_000;
const COUNT: u32 = 10_000;

/// Where each process of a parallel run starts to look, far enough from its neighbours.
const STRIDE: u32 = 64;

/// A port that was free a moment ago and that this process hands out once.
pub(crate) fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let step = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + step % COUNT).expect("the range ends below 65536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no loopback port is free from {FIRST} to {}", FIRST + COUNT);
}
