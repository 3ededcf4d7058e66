//! What the pool does when its server is down, is killed, hangs, or has no memory left.

#![expect(clippy::unwrap_used, reason = "a test cannot go on without its servers")]
#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../support/builders.rs"]
mod builders;
#[path = "../support/load.rs"]
mod load;

mod connections;
mod down;
mod durability;
mod exercise;
mod hang;
mod kill;
mod lines;
mod memory;
mod wake_ups;

use std::time::Duration;

/// Within this time all works again when a server is back.
const RECOVERY: Duration = Duration::from_secs(1);
