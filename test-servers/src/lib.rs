//! Real servers for the tests: each on free loopback ports, in a folder of its own, gone with the
//! test process.
//!
//! Everything here blocks, and panics with the end of the servers' logs when something does not
//! happen within [`DEADLINE`]. A kind of server is a module; what they share is in the private
//! ones.

#![expect(clippy::missing_panics_doc, reason = "test support")]

mod certificates;
mod folder;
mod ports;
mod process;
mod wait;

pub mod mongo;
pub mod redis;

pub use wait::DEADLINE;
