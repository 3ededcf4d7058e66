//! The contract between Chapar and its stores.
//!
//! Two contracts, each cut into small object-safe traits:
//!
//! - [`Catalog`](catalog::Catalog), the control plane: which queues exist, with their metadata.
//! - [`MessagePool`](pool::MessagePool), the data plane: the messages of the queues placed in it.
//!
//! # Adding a backend
//!
//! 1. Implement the traits of [`catalog`] or [`pool`] (or both). Every method is **one atomic
//!    step** and costs O(log n + k) for k messages, whatever the length of the queue.
//! 2. Take the time from the `now` argument, never from a clock: something is over when its time
//!    `<= now`, whether or not it was swept.
//! 3. Sort the driver's errors into [`StoreError`] in one file: what a retry may cure is
//!    [`StoreError::Unavailable`], what is a bug is [`StoreError::Unexpected`].
//! 4. Run the conformance suite (feature `conformance`) against a real server: implement
//!    `conformance::PoolHarness` or `CatalogHarness` and call
//!    `pool_conformance_tests!` or `catalog_conformance_tests!`. The suite is the specification; a backend may
//!    be slower than another, never different.
#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod catalog;
mod clock;
mod error;
mod page;
pub mod pool;
pub mod random;
pub mod support;

pub mod domain;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use clock::{Clock, SystemClock};
pub use error::{Result, Source, StoreError};
pub use page::{Limit, Page};
