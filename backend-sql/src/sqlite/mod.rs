//! Catalog and message pool in one SQLite file.
//!
//! One thread writes. It shares each transaction among all write operations that wait (group
//! commit). A few threads read. A timer thread applies what is due in the queues that consumers
//! watch; in other queues, what is due is applied by the next operation that needs it.

mod catalog;
mod connection;
mod due_timer;
mod error;
mod file;
mod options;
#[cfg(test)]
mod plans;
mod pool;
mod queue_row;
mod store;
mod transaction;
mod writer;

pub use self::{options::SqliteOptions, store::Sqlite};
