//! Consumer groups.

use async_trait::async_trait;
use storage_traits::{
    Limit, Page, Result, StoreError,
    domain::{Group, GroupName, Incarnation, Metadata, QueueRef, StartPoint, Timestamp},
    pool::GroupStore,
};

use super::{codec::millis, redis_pool::Redis, reply::Reply};
use crate::{
    error::unexpected,
    keys::incarnation_of,
    library::constants::{NEVER, START_AT_END, START_AT_SEQUENCE, START_AT_START, START_AT_TIME},
    server::{Function, Replication},
};

#[async_trait]
impl GroupStore for Redis {
    async fn create_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        settings: &Metadata,
        now: Timestamp,
    ) -> Result<(Group, bool)> {
        let mut function = self.function("create_group", queue);
        self.add_new_group(&mut function, queue, name, start, now);
        function.bytes(settings.to_json());
        let mut reply = self.call(queue, Replication::Wait, &function).await?;
        if reply.is_nil() {
            return Err(StoreError::not_found("queue", &queue.key));
        }
        let group = read_group(queue, name.clone(), &mut reply)?;
        let is_new = reply.number()? == 1;
        self.apply_all_due(&group.as_queue, now).await?;
        Ok((group, is_new))
    }

    async fn get_group(&self, queue: &QueueRef, name: &GroupName) -> Result<Option<Group>> {
        let mut function = self.function("get_group", queue);
        function.bytes(name.as_str());
        let mut reply = self.call(queue, Replication::Skip, &function).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        read_group(queue, name.clone(), &mut reply).map(Some)
    }

    async fn list_groups(
        &self,
        queue: &QueueRef,
        after: Option<&GroupName>,
        limit: Limit,
    ) -> Result<Page<Group>> {
        let mut function = self.function("list_groups", queue);
        function.bytes(after.map_or("", GroupName::as_str));
        function.number(i64::from(limit.with_spare()));
        let mut reply = self.call(queue, Replication::Skip, &function).await?;
        let mut groups = Vec::new();
        while !reply.is_empty() {
            let name = reply.text()?;
            let name = name.parse().map_err(|_| unexpected("a group has a wrong name"))?;
            groups.push(read_group(queue, name, &mut reply)?);
        }
        Ok(Page::cut(groups, limit))
    }

    async fn seek_group(
        &self,
        queue: &QueueRef,
        name: &GroupName,
        to: StartPoint,
        now: Timestamp,
    ) -> Result<Option<Group>> {
        let mut function = self.function("seek_group", queue);
        self.add_new_group(&mut function, queue, name, to, now);
        let mut reply = self.call(queue, Replication::Wait, &function).await?;
        if reply.is_nil() {
            return Ok(None);
        }
        let group = read_group(queue, name.clone(), &mut reply)?;
        self.apply_all_due(&group.as_queue, now).await?;
        Ok(Some(group))
    }

    async fn delete_group(&self, queue: &QueueRef, name: &GroupName) -> Result<bool> {
        let mut function = self.function("delete_group", queue);
        function.bytes(name.as_str());
        Ok(self.call(queue, Replication::Wait, &function).await?.number()? == 1)
    }
}

impl Redis {
    /// Adds the arguments for a new group, whose incarnation gets the shard of the queue.
    fn add_new_group(
        &self,
        function: &mut Function,
        queue: &QueueRef,
        name: &GroupName,
        start: StartPoint,
        now: Timestamp,
    ) {
        const SHARD_BITS: i64 = 0xff;
        let number = Incarnation::generate_for_group().get() & !SHARD_BITS
            | (queue.incarnation.get() & SHARD_BITS);
        let group = Incarnation::new(number).unwrap_or(queue.incarnation);
        function.number(millis(now)).bytes(name.as_str()).bytes(self.key(group));
        match start {
            StartPoint::Start => function.bytes(START_AT_START).number(0),
            StartPoint::End => function.bytes(START_AT_END).number(0),
            StartPoint::Time(time) => function.bytes(START_AT_TIME).number(millis(time)),
            StartPoint::Sequence(sequence) => {
                function.bytes(START_AT_SEQUENCE).number(sequence.get().min(NEVER))
            }
        };
    }
}

fn read_group(queue: &QueueRef, name: GroupName, reply: &mut Reply) -> Result<Group> {
    let incarnation = incarnation_of(&reply.text()?)?;
    let created_at = Timestamp::from_millis(reply.number()?);
    let settings = Metadata::from_json(&reply.text()?).map_err(unexpected)?;
    let as_queue = QueueRef { key: queue.key.clone(), incarnation };
    Ok(Group { name, as_queue, settings, created_at })
}
