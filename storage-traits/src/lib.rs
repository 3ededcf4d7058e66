//! The contract between Chapar's services and its stores: domain types, store traits, errors.
//!
//! There are two contracts, each a set of small object-safe traits:
//!
//! - [`Catalog`](catalog::Catalog), the control plane: queues and their metadata.
//! - [`MessagePool`](pool::MessagePool), the data plane: the messages of the queues placed in it.
//!
//! # Adding a backend
//!
//! 1. Create a crate that depends on this one, and implement the traits of [`catalog`], of
//!    [`pool`], or of both. Every method is **one atomic step** and costs O(log n + k) for k
//!    messages, whatever the length of the queue; a method that works in several steps says so. No
//!    trait has default methods. A method that looks an object up returns `None` if the object is
//!    missing; [`StoreError::NotFound`] is for a command that needs it.
//! 2. Take the time from the `now` argument, never from a clock. A claim, a delay or a ttl has
//!    ended when its time is `<= now`, whether or not a sweep has run since. A TTL feature of the
//!    server may only collect garbage.
//! 3. Map the driver's errors to [`StoreError`] in one file, `error.rs`. Use
//!    [`StoreError::Unavailable`] for an error that a retry may cure and
//!    [`StoreError::Unexpected`] for a bug.
//! 4. Use the parts of [`support`] instead of writing them again: [`WatchRegistry`] for
//!    [`Watchable`], with [`WatchSchedule`] or [`WatchDriver`] for changes that only the time
//!    brings about; [`SlidingMinuteCounter`] for [`Stats::completed_last_minute`];
//!    [`EventCounters`] for [`PoolMaintenance::counters`]; [`RedriveSchedule`] for
//!    [`DeadLetterStore::redrive`]. [`random`] generates tokens and spreads retries.
//! 5. Run the conformance suite against a real server. Enable the feature `conformance` among the
//!    dev-dependencies, with `tokio` and its features `macros` and `rt-multi-thread`; implement
//!    `conformance::PoolHarness` or `conformance::CatalogHarness` on a type that starts an empty
//!    store; and call `pool_conformance_tests!` or `catalog_conformance_tests!` with its name. The
//!    suite is the specification: a backend may be slower than another, never different.
//!
//! [`WatchRegistry`]: support::WatchRegistry
//! [`WatchSchedule`]: support::WatchSchedule
//! [`WatchDriver`]: support::WatchDriver
//! [`SlidingMinuteCounter`]: support::SlidingMinuteCounter
//! [`EventCounters`]: support::EventCounters
//! [`RedriveSchedule`]: support::RedriveSchedule
//! [`Watchable`]: pool::Watchable
//! [`Stats::completed_last_minute`]: pool::Stats::completed_last_minute
//! [`PoolMaintenance::counters`]: pool::PoolMaintenance::counters
//! [`DeadLetterStore::redrive`]: pool::DeadLetterStore::redrive
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod catalog;
mod clock;
pub mod domain;
mod error;
mod page;
pub mod pool;
pub mod random;
pub mod support;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use clock::{Clock, SystemClock};
pub use error::{Result, Source, StoreError};
pub use page::{Limit, Page};
