use async_trait::async_trait;

use crate::{
    Limit, Result,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Message, QueueRef,
        Timestamp,
    },
};

/// Claims: reservations of messages, so that no other consumer receives them for a while (Zaqar v2
/// API, claims).
///
/// A claim expires when its ttl has passed since its creation or last renewal. Then its messages
/// are ready again, in their old positions. Every method applies to a queue, and to a group through
/// [`Group::as_queue`](crate::domain::Group::as_queue).
#[async_trait]
pub trait ClaimStore: Send + Sync {
    /// Claims up to `spec.limit` ready messages, oldest first, in one atomic step.
    ///
    /// Increases the claim count of each message by one. A message that would expire before the
    /// claim expires at `now + ttl + grace` instead (Zaqar v2 API, claims). Returns `None`, and
    /// records no claim, if no message can be claimed.
    ///
    /// The messages of one ordering key are claimed in order, by one claim at a time. Keys are
    /// served round-robin. A key with a message in flight, or waiting for a retry, is blocked. A
    /// key that was served, and one that becomes available after it was blocked or empty, moves to
    /// the end of the rotation. The messages without a key take part in the rotation like one key
    /// that is never blocked. A message that was posted with a delay does not block its key.
    ///
    /// The claim moves the ready messages that it meets and that have reached
    /// [`DeadLetter::max_claim_count`](crate::domain::DeadLetter::max_claim_count) to the
    /// dead-letter queue of `spec.dead_letter`, even if no message is left to claim. It stops at
    /// the limit: a claim that is full moves no more messages.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if `spec` names a dead-letter queue
    /// that the pool does not know; nothing was changed;
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>>;

    /// Returns a claim with the messages that it still holds; `None` if it has expired, was
    /// released or never existed. A claim exists until it expires, even if it holds no message any
    /// more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>>;

    /// Renews a claim: its ttl counts from `now`, and may be shorter than before. Extends its
    /// messages as [`ClaimStore::claim`] does; the claim counts stay as they are.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if the claim has expired, was released
    /// or never existed; [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store
    /// cannot be reached.
    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()>;

    /// Ends a claim: its messages are ready at once, and [`Message::claim`] is `None`. Idempotent:
    /// succeeds if the claim has expired, was released or never existed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()>;

    /// Applies the outcomes that a consumer reports for messages of its claim.
    ///
    /// Each acknowledgement is applied or refused on its own; together they are one atomic step.
    /// Returns their results in the same order. Of two acknowledgements of the same message, the
    /// first is applied. The other messages of the claim stay claimed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>>;

    /// Removes up to `limit` ready messages and returns them in the order of the queue, in one
    /// atomic step (Zaqar v2 API, pop). Selects them as [`ClaimStore::claim`] does without a
    /// dead-letter rule.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>>;
}
