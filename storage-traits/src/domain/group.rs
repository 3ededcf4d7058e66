use super::{GroupName, Metadata, QueueRef, Sequence, Timestamp};

/// Point of a queue at which a group starts. A point beyond the end of the queue means the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPoint {
    /// The first message that the queue has or retains.
    Start,
    /// The next message that is posted.
    End,
    /// The first message that was posted at this time or later.
    Time(Timestamp),
    /// The message with this sequence, or the first one after it.
    Sequence(Sequence),
}

/// Consumer group: a delivery state of its own for every message of a queue from a starting point
/// on, with claims, claim counts and acknowledgements. (The queue itself is the default group.)
///
/// A group has the messages of the queue under the same ids. A message is stored until the queue
/// and all its groups have removed it or its ttl ends; a [`retained`](super::NewMessage::retained)
/// message until its ttl ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Name of the group, unique within its queue.
    pub name: GroupName,
    /// Reference by which the store methods use the group like a queue: claim, acknowledge, list,
    /// stats, watch and so on. Messages cannot be posted to it, and it has no groups.
    pub as_queue: QueueRef,
    /// Settings of the service, such as the group's dead-letter rule. The pool stores them and does
    /// not interpret them.
    pub settings: Metadata,
    /// Time at which the group was created.
    pub created_at: Timestamp,
}
