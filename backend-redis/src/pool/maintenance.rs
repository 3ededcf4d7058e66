//! Life and care of the queues.

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
    guard_of, registry_of,
    reply::Reply,
    shard_of,
};
use crate::{
    Redis,
    error::{unavailable, unexpected},
    server::{Function, Promise, Shard},
};

/// How long a dropped queue's incarnation stays refused.
const RETIREMENT: Duration = Duration::from_mins(10);
/// How much one sweep handles, about.
const SWEEP: u64 = 256;

#[async_trait]
impl PoolMaintenance for Redis {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let function = self.function("open_queue", queue);
        self.call(queue, Promise::Change, &function).await.map(drop)
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let mut function = self.function("drop_queue", queue);
        function.number(i64::try_from(RETIREMENT.as_secs()).map_err(unexpected)?);
        self.call(queue, Promise::Change, &function).await.map(drop)
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        let Some(source) = self.source(queue).await? else { return Ok(Stats::default()) };
        let mut function = self.function("stats", queue);
        function.number(millis(now));
        let reply = self.settle_and_call(queue, Promise::Nothing, &function).await?;
        let Some(mut reply) = reply else { return Ok(Stats::default()) };
        let (free, claimed) = (reply.count()?, reply.count()?);
        let oldest = read_mark(source.queue, &mut reply)?;
        let newest = read_mark(source.queue, &mut reply)?;
        let recent = SlidingMinuteCounter {
            minute: reply.number()?,
            count: reply.count()?,
            previous: reply.count()?,
        };
        Ok(Stats { free, claimed, oldest, newest, completed_last_minute: recent.last_minute(now) })
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
            let reply = self.settle_and_call(queue, Promise::Change, &function).await?;
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
            if swept.processed >= SWEEP {
                swept.more = true;
                return Ok(swept);
            }
            let prefix = &self.servers.options.prefix;
            let (registry, guard) = (registry_of(prefix, shard), guard_of(prefix, shard));
            let mut function = Function::new("sweep", &[&registry, &guard]);
            function.number(millis(now));
            let value = self.servers.call(shard, Promise::Nothing, &function).await?;
            let mut reply = Reply::new(value);
            swept.processed += reply.count()?;
            swept.more |= reply.number()? == 1;
            self.counters.expired(reply.count()?);
        }
        // What could be done is done; of what could not be looked at, somebody is told.
        match failed {
            Some(error) if swept.processed == 0 => Err(error),
            _ => Ok(swept),
        }
    }

    fn counters(&self) -> EventCounts {
        self.counters.read()
    }

    async fn check(&self) -> Result<()> {
        self.servers.check().await.map_err(|error| match error {
            // It cannot take changes, whatever the reason.
            StoreError::Overloaded { .. } => unavailable("redis has no memory left"),
            other => other,
        })
    }

    async fn close(&self) {
        self.servers.close();
        self.wakes.stop();
    }
}

impl Redis {
    /// The shards in which something is due, and what went wrong with others.
    async fn due_shards(&self, now: Timestamp) -> Result<(Vec<Shard>, Option<StoreError>)> {
        let look = async |shard| -> Result<Option<Shard>> {
            let mut command = Cmd::new();
            let registry = registry_of(&self.servers.options.prefix, shard);
            command.arg("ZRANGEBYSCORE").arg(registry).arg("-inf").arg(millis(now));
            command.arg("LIMIT").arg(0).arg(1);
            let found = self.servers.command(shard, Promise::Nothing, &command).await?;
            Ok(matches!(found, Value::Array(due) if !due.is_empty()).then_some(shard))
        };
        // The first one finds out whether the server is there, if there is but one.
        let first = look(0).await;
        if self.servers.is_one_server() && first.is_err() {
            return Err(first.err().unwrap_or_else(|| unexpected("nothing failed")));
        }
        let (mut due, mut failed) = (Vec::new(), None);
        let others = join_all((1..=Shard::MAX).map(look)).await;
        for found in std::iter::once(first).chain(others) {
            match found {
                Ok(shard) => due.extend(shard),
                Err(error) => failed = Some(error),
            }
        }
        Ok((due, failed))
    }

    /// Whether the pool knows a queue.
    pub(super) async fn is_open(&self, queue: &QueueRef) -> Result<bool> {
        let mut command = Cmd::new();
        command.arg("EXISTS").arg(self.key(queue.incarnation));
        let shard = shard_of(queue.incarnation);
        let found = self.servers.command(shard, Promise::Nothing, &command).await?;
        Ok(found == Value::Int(1))
    }

    /// Does all that is due in a reading, in as many steps as it takes.
    pub(super) async fn settle_all(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let mut function = self.function("stats", queue);
        function.number(millis(now));
        self.settle_and_call(queue, Promise::Nothing, &function).await.map(drop)
    }
}

/// One end of a queue: sequence and time, 0 if there is none.
fn read_mark(queue: Incarnation, reply: &mut Reply) -> Result<Option<MessagePosition>> {
    let (sequence, posted_at) = (reply.number()?, reply.number()?);
    if sequence == 0 {
        return Ok(None);
    }
    let id = message_id(queue, sequence)?;
    Ok(Some(MessagePosition { id, posted_at: Timestamp::from_millis(posted_at) }))
}
