use super::{GroupName, Metadata, QueueRef, Sequence, Timestamp};

/// Where a group begins to read. A point beyond the end of the queue is the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPoint {
    /// With the first message that the queue has.
    Start,
    /// With the next message that is posted.
    End,
    /// With the first message that was posted at this time or later.
    Time(Timestamp),
    /// With the message in this position, or the first one behind it.
    Sequence(Sequence),
}

/// A consumer group: another reading of a queue, with its own claims, claim counts and
/// acknowledgements. It gets a copy of every message from its starting point on, under the same
/// id; a message is stored until the queue and all groups are done with it, or its ttl ends; one that
/// is [`retained`](super::NewMessage::retained), until its ttl ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name within the queue.
    pub name: GroupName,
    /// What to claim from. It is used as a queue is (claim, acknowledge, list, stats, watch …), but
    /// cannot be posted to; the ids of its messages are those of the queue.
    pub as_queue: QueueRef,
    /// What its owner set; a pool only keeps it.
    pub settings: Metadata,
    /// When it was created.
    pub created_at: Timestamp,
}
