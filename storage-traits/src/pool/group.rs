use async_trait::async_trait;

use crate::{
    Limit, Page, Result,
    domain::{Group, GroupName, Metadata, QueueRef, StartPoint, Timestamp},
};

/// Consumer groups of a queue, each with its own delivery state. The queue itself is the default
/// group, which is not listed here. The API allows 100 groups for a queue.
#[async_trait]
pub trait GroupStore: Send + Sync {
    /// Creates a group and returns it, with whether it is new. A group that exists is not changed
    /// in any way.
    ///
    /// The new group gets the messages that the queue has or retains from `start` on, as if none
    /// had been claimed: ready, or delayed as posted. It misses no message that is posted during
    /// the call. The messages are copied in bounded steps, before the call returns.
    ///
    /// # Errors
    /// [`StoreError::NotFound`](crate::StoreError::NotFound) if the pool does not know the queue;
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn create_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        settings: &Metadata,
        now: Timestamp,
    ) -> Result<(Group, bool)>;

    /// Returns a group; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>>;

    /// Lists the groups of a queue by name, ascending in byte order, from the first name greater
    /// than `after` on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>>;

    /// Moves a group forward or backward to another point and returns it; `None` if the group does
    /// not exist.
    ///
    /// Replaces all messages and claims of the group by the messages that the queue has or retains
    /// from `to` on, as [`GroupStore::create_group`] does. The group gets a new incarnation in
    /// [`Group::as_queue`], so that messages which were claimed before cannot be acknowledged any
    /// more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn seek_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        to: StartPoint,
        now: Timestamp,
    ) -> Result<Option<Group>>;

    /// Deletes a group with its messages and claims; returns whether it existed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool>;
}
