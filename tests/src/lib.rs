//! Support for the end-to-end tests: the real binary, an HTTP client and raw connections.
//!
//! The tests know the service by its contract alone: they start the binary, send it HTTP requests
//! over the loopback interface and signals, and read its log.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test suite")]

mod app;
mod call;
mod client;
mod eventually;
mod messages;
mod process;
mod raw;
mod response;
mod table;

pub use app::{Builder, TestApp, run};
pub use call::{Call, PATCH_TYPE, call, delete, get, patch, post, put};
pub use client::Client;
pub use eventually::eventually;
pub use messages::Claim;
pub use raw::{Connection, begin_post, connect_and_send, head};
pub use response::Response;
pub use table::{Row, check};
pub use test_servers::DEADLINE;
