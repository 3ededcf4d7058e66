//! Real servers for the tests: each on free loopback ports, in a temporary folder, and killed with
//! the test process.
//!
//! Every function blocks, and panics with the end of the servers' logs if an expected event does
//! not happen within [`DEADLINE`]. Each kind of server is a public module. What they share is also
//! there for programs under test: [`Process`], [`free_port`] and [`temporary_folder`].

#![expect(clippy::missing_panics_doc, reason = "test support")]

mod certificates;
mod folder;
mod ports;
mod process;
mod wait;

pub mod mongo;
pub mod redis;

pub use folder::temporary_folder;
pub use ports::free_port;
pub use process::Process;
pub use wait::DEADLINE;
