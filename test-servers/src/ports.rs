//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The range is below that of outgoing connections, so that no client takes the port of a server
/// that will be restarted.
const FIRST: u32 = 2_000;
const COUNT: u32 = 30_000;

/// Distance between the first ports of two test processes that run in parallel.
const STRIDE: u32 = 64;

/// Returns a port that was free a moment ago. This process returns it only once.
pub fn free_port() -> u16 {
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
