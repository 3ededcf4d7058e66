use async_trait::async_trait;

use crate::{
    Limit, Page, Result,
    domain::{
        ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Sequence, Timestamp,
    },
};

/// Which messages to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSpec {
    /// Only messages behind this position.
    pub after: Option<Sequence>,
    /// How many.
    pub limit: Limit,
    /// Not the messages of this client. The only filter that is paid for by what it hides.
    pub hide_client: Option<ClientId>,
    /// Messages that may be claimed now.
    pub include_free: bool,
    /// Also messages under a live claim.
    pub include_claimed: bool,
    /// Also messages that are not visible yet.
    pub include_delayed: bool,
}

/// What became of [`MessageStore::delete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The message is gone now.
    Deleted,
    /// It was gone already, or never there.
    Missing,
    /// It is there and stays.
    Refused(DeleteRefusal),
}

/// Why a message was not deleted (Zaqar v2 API, messages).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteRefusal {
    /// A live claim holds it, and none was named.
    Claimed,
    /// The claim that was named is not alive in this queue.
    UnknownClaim,
    /// A claim was named, but none holds the message.
    NotClaimed,
    /// Another live claim than the one named holds it.
    ClaimedByOther,
}

/// What became of [`MessageStore::reschedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescheduled {
    /// It becomes visible at the new time.
    Moved,
    /// There is no such message.
    Missing,
    /// It is visible already, or claimed: nothing changed.
    Visible,
}

/// Messages: post them, look at them, delete them.
#[async_trait]
pub trait MessageStore: Send + Sync {
    /// Stores messages at the end of the queue, all or none, in consecutive positions; answers
    /// in the same order. What is posted later gets a greater sequence and becomes
    /// visible no earlier: a reader that pages by position misses nothing.
    ///
    /// A message whose deduplication id was posted before, within the window of that post or in
    /// the same batch, is a duplicate: it is not stored, and takes no position.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if the pool does not know the queue:
    /// it has to be opened, if the catalog still has it;
    /// [`StoreError::Overloaded`](crate::StoreError::Overloaded) if too much is waiting;
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>>;

    /// Lists messages in the order of the queue, without claiming them. A page is short only at
    /// the end of the queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>>;

    /// Reads messages by id, claimed and delayed ones too, in the order of `ids`; leaves out what
    /// is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>>;

    /// Deletes one message: a free one without a claim, a claimed one by its live claim. One that
    /// is not visible yet, and was never claimed, is cancelled for all groups as well.
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

    /// Moves a message that is not visible yet to another time, or to now if that has passed. Its
    /// ttl counts from then on. As long as nobody has seen it, this is so for all groups as well.
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

    /// Deletes messages, claimed or not; answers how many there were. If `claims` are named, each
    /// must be alive and hold one of the messages, or nothing is deleted and the answer is `None`.
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
