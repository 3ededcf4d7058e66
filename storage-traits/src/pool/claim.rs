use async_trait::async_trait;

use crate::{
    Limit, Result,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Message, QueueRef,
        Timestamp,
    },
};

/// Claims: reserve messages so that no other consumer gets them for a while.
///
/// A claim is over when its ttl has passed, counted from its creation or last renewal. Then its
/// messages are free again, in their old places.
#[async_trait]
pub trait ClaimStore: Send + Sync {
    /// Reserves up to `spec.limit` free, visible messages, oldest first, in one atomic step, and
    /// raises the claim count of each.
    ///
    /// The messages with one ordering key form a *line*: they are handed out in order, by one claim
    /// at a time. While a claim holds a message of the line, or one of them waits to be tried
    /// again, nobody gets another. (One that is delayed from the start stands in no line until it
    /// is due.) Claims take from the open lines in turn: a line that was taken from, or that was
    /// closed or empty, goes to the end, and the messages without a key together are like a line
    /// that is always open.
    ///
    /// Free messages that were claimed too often already are moved by `spec.dead_letter`, whether
    /// or not anything is left to claim. Returns `None`, and records no claim, when nothing is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if the pool does not know the
    /// dead-letter queue that `spec` names; nothing was changed;
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>>;

    /// Reads a live claim, with the messages that it still holds; a claim outlives its messages.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>>;

    /// Lets a live claim and what it holds start anew from `now`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if the claim is over or was never
    /// there; [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be
    /// reached.
    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()>;

    /// Ends a claim: its messages are free at once and carry no claim any more. Releasing what is
    /// gone succeeds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()>;

    /// Takes what a consumer says of messages that its claim holds, each by itself; the rest of the
    /// claim stays as it is. Answers in the same order; of a message that is named twice, the
    /// first counts.
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

    /// Takes up to `limit` free, visible messages off the queue, as a claim would, in one atomic step.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>>;
}
