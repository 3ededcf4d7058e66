//! Conformance suite: the specification of the two contracts, as tests that every backend runs.
//!
//! The file `tests/conformance.rs` of a backend contains a harness and a macro call:
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
//! Each case becomes a test of its own, named after the rule that it proves. The backend depends on
//! `tokio` with the features `macros` and `rt-multi-thread`.
//!
//! Each case has a store of its own. Its clock starts at the real time and only moves forward, so
//! that a server which collects garbage by its own clock does not collect data that the case still
//! uses. The cases do not depend on the machine's speed: they wait for events, with generous
//! deadlines.
//!
//! [`ReferencePool`] is a pool in memory that passes the suite; the cases of [`model`] compare
//! other pools with it. [`faults`] is for tests of failing servers and is not part of the
//! specification.
#![expect(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::unwrap_used,
    reason = "a test suite: the name of a case is the rule that it proves"
)]

mod builders;
mod dead_letter_rules;
mod fixture;
mod macros;
mod reference;

pub mod acknowledgements;
pub mod claim_lifecycle;
pub mod claims;
pub mod dead_letters;
pub mod deduplication;
pub mod deletes;
pub mod faults;
pub mod group_lifecycle;
pub mod group_positions;
pub mod groups;
pub mod isolation;
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

/// Provider of the message pool under test.
pub trait PoolHarness: Sized + Send + Sync {
    /// Starts with an empty store that only this harness uses, and that is kept until the harness
    /// is dropped.
    fn start() -> impl Future<Output = Self> + Send;

    /// Returns the pool under test.
    fn pool(&self) -> Arc<dyn MessagePool>;
}

/// Provider of the catalog under test.
pub trait CatalogHarness: Sized + Send + Sync {
    /// Starts with an empty store that only this harness uses, and that is kept until the harness
    /// is dropped.
    fn start() -> impl Future<Output = Self> + Send;

    /// Returns the catalog under test.
    fn catalog(&self) -> Arc<dyn Catalog>;
}
