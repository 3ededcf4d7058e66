//! Domain types: names, ids, messages, claims and groups. The API parses and checks them; the
//! stores trust them.

mod claim;
mod group;
mod id;
mod message;
mod metadata;
mod name;
mod origin;
mod queue;
mod time;

pub use claim::{AckOutcome, AckResult, Acknowledgement, Claim, ClaimSpec, ClaimTerms, DeadLetter};
pub use group::{Group, StartPoint};
pub use id::{ClaimId, Incarnation, InvalidId, MessageId, Sequence};
pub use message::{
    Body, ClientId, Deduplication, DeduplicationId, Delivery, Message, NewMessage, OrderingKey,
    Posted,
};
pub use metadata::Metadata;
pub use name::{GroupName, InvalidName, ProjectId, QueueName};
pub use origin::Origin;
pub use queue::{QueueKey, QueueRecord, QueueRef};
pub use time::Timestamp;
