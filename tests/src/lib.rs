//! Support for the end-to-end tests: the real binary, an HTTP client and raw connections.
//!
//! The tests know the service by its contract alone: they start the binary, speak HTTP to it
//! over the loopback interface, send it signals and read its log.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test suite")]

mod answer;
mod app;
mod call;
mod client;
mod messages;
mod ports;
mod process;
mod raw;
mod rows;

pub use answer::Answer;
pub use app::{Builder, TestApp, run};
pub use call::{Call, PATCH_TYPE, call, delete, get, patch, post, put};
pub use client::Client;
pub use messages::Claim;
pub use raw::{Connection, begin_post, connect_and_send, head};
pub use rows::{Row, check};

use std::time::Duration;

/// How long anything that must happen may take, on a busy machine, before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(30);
