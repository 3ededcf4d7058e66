//! The data plane: the messages of the queues that are placed in a pool.
//!
//! A pool identifies a queue by its incarnation. A queue is unknown to the pool if it was never
//! opened there or was dropped. Methods treat an unknown queue as empty, unless they are documented
//! to return [`StoreError::NotFound`](crate::StoreError::NotFound).
//!
//! At any time a message that has not expired is in one of these states: *delayed* (not visible
//! yet), *claimed* (held by a claim that has not expired), or *ready*. A delayed message that was
//! never claimed is scheduled; one that was claimed before waits for its retry.

mod claim;
mod group;
mod maintenance;
mod message;
mod redrive;
mod watch;

pub use claim::ClaimStore;
pub use group::GroupStore;
pub use maintenance::{MessagePosition, PoolMaintenance, Stats, Swept};
pub use message::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore, Rescheduled};
pub use redrive::{DeadLetterStore, RedriveSpec, Redriven};
pub use watch::Watchable;

pub use crate::support::{EventCounts, Watch, WatchFor};

/// Data plane: all traits that a message pool implements.
pub trait MessagePool:
    MessageStore + ClaimStore + DeadLetterStore + GroupStore + Watchable + PoolMaintenance
{
    /// Returns the durability of a change that the pool has reported as done.
    fn durability(&self) -> Durability;
}

/// Durability of a change when the store method that made it returns. Ordered from weakest to
/// strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In memory: lost when the store's process ends.
    Memory,
    /// Handed to the operating system: survives the store's process, not the machine.
    OsBuffer,
    /// Synchronized to disk: survives a crash of the machine.
    Fsync,
    /// Stored by a majority of the replicas: survives the loss of any minority.
    Majority,
}

impl Durability {
    /// Returns the name that configuration, logs and API responses use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::OsBuffer => "os-buffer",
            Self::Fsync => "fsync",
            Self::Majority => "majority",
        }
    }
}
