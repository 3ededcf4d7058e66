//! Faults: the server is down, is killed, does not respond, or has no memory left.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]
#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../support/node.rs"]
mod node;

mod connections;
mod down;
mod durability;
mod kill;
mod large_posts;
mod memory;
mod unresponsive;
mod wake_ups;

use std::time::Duration;

/// Maximum time until calls succeed again when a server is back: less than one timeout of 1.5
/// seconds, so that a call which waits for its whole timeout is found.
const RECOVERY: Duration = Duration::from_millis(1_400);
