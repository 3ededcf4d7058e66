use async_trait::async_trait;

use crate::{
    Limit, Page, Result,
    domain::{
        ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Sequence, Timestamp,
    },
};

/// Selection of the messages that [`MessageStore::list`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSpec {
    /// Marker: only messages after this position. No message need have it.
    pub after: Option<Sequence>,
    /// Greatest number of messages in the page.
    pub limit: Limit,
    /// Excludes the messages of this client. The only filter whose cost grows with the number of
    /// messages that it excludes.
    pub hide_client: Option<ClientId>,
    /// Whether ready messages are listed.
    pub include_free: bool,
    /// Whether claimed messages are listed.
    pub include_claimed: bool,
    /// Whether delayed messages are listed.
    pub include_delayed: bool,
}

/// Result of [`MessageStore::delete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The message was deleted.
    Deleted,
    /// The message does not exist: it was deleted before, has expired or was never posted.
    Missing,
    /// The message exists and was not deleted.
    Refused(DeleteRefusal),
}

/// Reason for not deleting a message (Zaqar v2 API, delete a message).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteRefusal {
    /// The message is claimed, and no claim was given.
    Claimed,
    /// The claim that was given has expired, was released or never existed in this queue.
    UnknownClaim,
    /// A claim was given, but the message is not claimed.
    NotClaimed,
    /// The message is claimed by another claim than the given one.
    ClaimedByOther,
}

/// Result of [`MessageStore::reschedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescheduled {
    /// The message becomes visible at the new time.
    Moved,
    /// The message does not exist.
    Missing,
    /// The message is already visible, or claimed. Nothing was changed.
    Visible,
}

/// Messages: post, list, get, delete and reschedule.
///
/// A method that takes a message id ignores ids of other queues. Every method but
/// [`MessageStore::post`] also applies to a group through
/// [`Group::as_queue`](crate::domain::Group::as_queue).
#[async_trait]
pub trait MessageStore: Send + Sync {
    /// Appends messages to a queue, all or none, in consecutive positions, in one atomic step.
    /// Returns the results in the same order.
    ///
    /// A post that commits later gets greater sequences, so a reader that lists by position misses
    /// no message. Each group of the queue gets each message too.
    ///
    /// A message is a duplicate if its deduplication id was posted before, within the window of
    /// that post, or earlier in the same batch. It is not stored, takes no position, and does not
    /// prolong the window.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if the pool does not know the queue,
    /// or it is a group; the caller opens the queue if it is still in the catalog, and retries;
    /// [`StoreError::Overloaded`](crate::StoreError::Overloaded) if too many posts are waiting;
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>>;

    /// Lists messages in the order of the queue, without claiming them. A page has fewer items than
    /// the limit only at the end of the queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>>;

    /// Returns messages by id, in any state, in the order of `ids`. Omits messages that do not
    /// exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>>;

    /// Deletes one message: a claimed message if `claim` holds it, any other if `claim` is `None`.
    ///
    /// Deletes it from the queue or from the group only, except that a queue's message which is not
    /// visible yet and was never claimed is deleted from all groups too: its post is cancelled.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome>;

    /// Changes the time at which a delayed message becomes visible to `visible_at`, or to `now` if
    /// that is later. The ttl of the message counts from the new time.
    ///
    /// If the message was never claimed, changes it in all groups of the queue too.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled>;

    /// Deletes messages in any state, in one atomic step, and returns how many of them existed
    /// (Zaqar v2 API, delete messages). Cancels scheduled messages for all groups, as
    /// [`MessageStore::delete`] does.
    ///
    /// Each of `claims` must hold one of the messages; otherwise deletes none and returns `None`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>>;
}
