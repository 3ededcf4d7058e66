//! The data plane: the messages of the queues that are placed in a pool.
//!
//! A queue is known to a pool by its incarnation. A queue that the pool does not know, because it
//! was not opened here or was dropped, is empty to every method but
//! [`post`](MessageStore::post), which refuses it.

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

/// Everything a data plane does.
pub trait MessagePool:
    MessageStore + ClaimStore + DeadLetterStore + GroupStore + Watchable + PoolMaintenance
{
    /// What an acknowledgement of this pool means.
    fn durability(&self) -> Durability;
}

/// What the store has done with a change when it says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Kept in memory: lost with the store's process.
    Memory,
    /// Handed to the operating system: survives the process, not the machine.
    OsBuffer,
    /// On the disk: survives the machine.
    Fsync,
    /// On the disks of most replicas.
    Majority,
}

impl Durability {
    /// The name in configuration, logs and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::OsBuffer => "os-buffer",
            Self::Fsync => "fsync",
            Self::Majority => "majority",
        }
    }
}
