//! Waiting for replicas: many changes share one `WAIT`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::sync::{Mutex, OnceCell};

/// One connection of a session for `WAIT`, which nothing else is kept waiting by.
pub(super) struct Replicas {
    wanted: u32,
    fsync: bool,
    connection: OnceCell<MultiplexedConnection>,
    /// How many changes were made that somebody waits for.
    changes: AtomicU64,
    /// Up to which of them the replicas were asked, and up to which they have them.
    waiting: Mutex<(u64, u64)>,
}

impl Replicas {
    pub(super) fn new(wanted: u32, fsync: bool) -> Self {
        Self {
            wanted,
            fsync,
            connection: OnceCell::new(),
            changes: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Answers when the replicas have what the caller has just changed on the same server.
    ///
    /// A mark is written behind all changes made so far, and waited for: who comes while that is
    /// under way shares the next one. The connection belongs to the same process as those of the
    /// changes, so what it waits for is not lost by a failover in between.
    pub(super) async fn have(
        &self,
        key: &str,
        deadline: Instant,
        connect: impl AsyncFnOnce() -> RedisResult<MultiplexedConnection>,
    ) -> RedisResult<()> {
        let mine = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let mut waiting = self.waiting.lock().await;
        if waiting.1 >= mine {
            return Ok(());
        }
        if waiting.0 >= mine {
            return Err(too_few());
        }
        let all = self.changes.load(Ordering::Acquire);
        let mut connection = self.connection.get_or_try_init(|| connect()).await?.clone();
        let patience = deadline.saturating_duration_since(Instant::now());
        let millis = patience.saturating_sub(Duration::from_millis(20)).as_millis().max(1);
        let millis = u64::try_from(millis).unwrap_or(1);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(key).arg(1).ignore();
        if self.fsync {
            pipeline.cmd("WAITAOF").arg(1).arg(self.wanted).arg(millis);
            let ((local, replicas),): ((u32, u32),) = pipeline.query_async(&mut connection).await?;
            waiting.0 = all;
            if local < 1 || replicas < self.wanted {
                return Err(too_few());
            }
        } else {
            pipeline.cmd("WAIT").arg(self.wanted).arg(millis);
            let (replicas,): (u32,) = pipeline.query_async(&mut connection).await?;
            waiting.0 = all;
            if replicas < self.wanted {
                return Err(too_few());
            }
        }
        waiting.1 = all;
        Ok(())
    }
}

fn too_few() -> RedisError {
    RedisError::from((redis::ErrorKind::Client, "too few replicas have the change"))
}
