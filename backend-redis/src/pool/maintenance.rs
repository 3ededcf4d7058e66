//! Queue lifecycle and maintenance.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};
use storage_traits::{
    Result, StoreError,
    domain::{Incarnation, QueueRef, Timestamp},
    pool::{EventCounts, MessagePosition, PoolMaintenance, Stats, Swept},
    support::SlidingMinuteCounter,
};

use super::{
    codec::{message_id, millis},
    redis_pool::Redis,
    reply::Reply,
};
use crate::{
    error::{unavailable, unexpected},
    keys::{Shard, shard_of},
    server::{Function, Replication},
};

/// How long a dropped queue cannot be opened again.
const TOMBSTONE_TTL: Duration = Duration::from_mins(10);
/// Number of messages after which a sweep ends.
const MAX_SWEEP: u64 = 256;

#[async_trait]
impl PoolMaintenance for Redis {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let function = self.function("open_queue", queue);
        self.call(queue, Replication::Wait, &function).await.map(drop)
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let mut function = self.function("drop_queue", queue);
        function.number(i64::try_from(TOMBSTONE_TTL.as_secs()).map_err(unexpected)?);
        self.call(queue, Replication::Wait, &function).await.map(drop)
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        let Some(resolved) = self.resolve(queue).await? else { return Ok(Stats::default()) };
        let mut function = self.function("stats", queue);
        function.number(millis(now));
        let reply = self.apply_due_and_call(queue, Replication::Skip, &function).await?;
        let Some(mut reply) = reply else { return Ok(Stats::default()) };
        let (free, claimed) = (reply.count()?, reply.count()?);
        let oldest = read_position(resolved.queue, &mut reply)?;
        let newest = read_position(resolved.queue, &mut reply)?;
        let counter = SlidingMinuteCounter {
            minute: reply.number()?,
            count: reply.count()?,
            previous: reply.count()?,
        };
        Ok(Stats { free, claimed, oldest, newest, completed_last_minute: counter.last_minute(now) })
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        let (mut purged, mut last) = (0, None);
        loop {
            let mut function = self.function("purge", queue);
            function.number(millis(now));
            match last {
                Some(last) => function.number(last),
                None => function.bytes(""),
            };
            let reply = self.apply_due_and_call(queue, Replication::Wait, &function).await?;
            let Some(mut reply) = reply else { return Ok(purged) };
            purged += reply.count()?;
            last = Some(reply.number()?);
            if reply.number()? == 0 {
                return Ok(purged);
            }
        }
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        let mut swept = Swept::default();
        let (due, failed) = self.due_shards(now).await?;
        for shard in due {
            if swept.processed >= MAX_SWEEP {
                swept.more = true;
                return Ok(swept);
            }
            let keys = &self.servers.keys;
            let (registry, guard) = (keys.registry(shard), keys.guard(shard));
            let mut function = Function::new("sweep", &[&registry, &guard]);
            function.number(millis(now));
            let value = self.servers.call(shard, Replication::Skip, &function).await?;
            let mut reply = Reply::new(value);
            swept.processed += reply.count()?;
            swept.more |= reply.number()? == 1;
            self.counters.add_expired(reply.count()?);
        }
        // A failure on one server does not hide the progress on others.
        match failed {
            Some(error) if swept.processed == 0 => Err(error),
            _ => Ok(swept),
        }
    }

    fn counters(&self) -> EventCounts {
        self.counters.snapshot()
    }

    async fn check(&self) -> Result<()> {
        self.servers.check().await.map_err(|error| match error {
            // The pool cannot write, so it is not healthy.
            StoreError::Overloaded { .. } => unavailable("redis has no memory left"),
            other => other,
        })
    }

    async fn close(&self) {
        self.servers.close();
        self.watches.stop();
    }
}

impl Redis {
    /// Returns the shards in which something is due, and the error of those that could not be read.
    async fn due_shards(&self, now: Timestamp) -> Result<(Vec<Shard>, Option<StoreError>)> {
        let is_due = async |shard| -> Result<Option<Shard>> {
            let mut command = Cmd::new();
            command
                .arg("ZRANGEBYSCORE")
                .arg(self.servers.keys.registry(shard))
                .arg("-inf")
                .arg(millis(now));
            command.arg("LIMIT").arg(0).arg(1);
            let found = self.servers.command(shard, Replication::Skip, &command).await?;
            Ok(matches!(found, Value::Array(due) if !due.is_empty()).then_some(shard))
        };
        let first = match is_due(0).await {
            // All shards are on the server that has just failed.
            Err(error) if self.servers.is_one_server() => return Err(error),
            first => first,
        };
        let (mut due, mut failed) = (Vec::new(), None);
        let others = join_all((1..=Shard::MAX).map(is_due)).await;
        for found in std::iter::once(first).chain(others) {
            match found {
                Ok(shard) => due.extend(shard),
                Err(error) => failed = Some(error),
            }
        }
        Ok((due, failed))
    }

    /// Returns whether a queue exists.
    pub(super) async fn is_open(&self, queue: &QueueRef) -> Result<bool> {
        let mut command = Cmd::new();
        command.arg("EXISTS").arg(self.key(queue.incarnation));
        let shard = shard_of(queue.incarnation);
        let found = self.servers.command(shard, Replication::Skip, &command).await?;
        Ok(found == Value::Int(1))
    }
}

/// Reads the position of a message: sequence and post time, 0 and 0 if there is none.
fn read_position(queue: Incarnation, reply: &mut Reply) -> Result<Option<MessagePosition>> {
    let (sequence, posted_at) = (reply.number()?, reply.number()?);
    if sequence == 0 {
        return Ok(None);
    }
    let id = message_id(queue, sequence)?;
    Ok(Some(MessagePosition { id, posted_at: Timestamp::from_millis(posted_at) }))
}
