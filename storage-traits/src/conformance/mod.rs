//! The specification of the two contracts, as tests that every backend runs.
//!
//! A backend's whole `tests/conformance.rs` is a harness and a macro call:
//!
//! ```text
//! struct Sqlite(tempfile::TempDir, Arc<dyn MessagePool>);
//!
//! impl PoolHarness for Sqlite {
//!     async fn start() -> Self { … }
//!     fn pool(&self) -> Arc<dyn MessagePool> { Arc::clone(&self.1) }
//! }
//!
//! storage_traits::pool_conformance_tests!(Sqlite);
//! ```
//!
//! Each case becomes a test of its own, named after the rule that it holds up. The backend has
//! `tokio` among its dependencies, with the features `macros` and `rt-multi-thread`.
//!
//! A case gets a store that nobody else uses. Its time starts at the machine's and moves forward
//! only, so a server whose own clock collects garbage never collects what a case still needs.
#![expect(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::unwrap_used,
    reason = "a test suite: the name of a case says what holds"
)]

mod builders;
mod fixture;
mod macros;
mod reference;

pub mod acknowledgements;
pub mod claims;
pub mod dead_letters;
pub mod deduplication;
pub mod deletes;
pub mod faults;
pub mod groups;
pub mod isolation;
pub mod leases;
pub mod listing;
pub mod maintenance;
pub mod messages;
pub mod model;
pub mod ordering;
pub mod pops;
pub mod races;
pub mod redrive;
pub mod retention;
pub mod schedules;
pub mod stats;
pub mod wake_ups;

pub mod changes;
pub mod queue_lists;
pub mod queue_races;
pub mod queues;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use fixture::{ManualClock, TestCatalog, TestPool, TestQueue};
pub use reference::ReferencePool;

use crate::{catalog::Catalog, pool::MessagePool};

/// How the suite gets a message pool.
pub trait PoolHarness: Sized + Send + Sync {
    /// Starts on an empty store that only this harness uses; it lives as long as the harness.
    fn start() -> impl Future<Output = Self> + Send;

    /// The pool under test.
    fn pool(&self) -> Arc<dyn MessagePool>;
}

/// How the suite gets a catalog.
pub trait CatalogHarness: Sized + Send + Sync {
    /// Starts on an empty store that only this harness uses; it lives as long as the harness.
    fn start() -> impl Future<Output = Self> + Send;

    /// The catalog under test.
    fn catalog(&self) -> Arc<dyn Catalog>;
}
