use async_trait::async_trait;

use crate::{
    Limit, Page, Result,
    domain::{Group, GroupName, Metadata, QueueRef, StartPoint, Timestamp},
};

/// Consumer groups: any number of readings beside that of the queue itself.
#[async_trait]
pub trait GroupStore: Send + Sync {
    /// Creates a group; one that exists stays as it is. Says whether it is new. The messages that
    /// the queue has or retains from the starting point on are copied in bounded steps, before the
    /// call ends.
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

    /// Looks a group up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>>;

    /// Lists the groups of a queue by name, behind `after`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>>;

    /// Moves a group to another point, backward too: what it has, claims and all, is replaced by
    /// what the queue has or retains from there on. Its reading changes, so that what was claimed
    /// before cannot be acknowledged any more. `None` if there is no such group.
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

    /// Deletes a group with all that it has; says whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) if the store cannot be reached.
    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool>;
}
