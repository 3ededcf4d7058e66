//! Waits for replicas: many changes share one `WAIT`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::sync::{Mutex, OnceCell};

/// Time that a `WAIT` leaves of the call's timeout, for the reply.
const REPLY_TIME: Duration = Duration::from_millis(20);

/// A connection of a session that is used for `WAIT` only, because `WAIT` blocks it.
pub(super) struct Replicas {
    wanted: u32,
    fsync: bool,
    connection: OnceCell<MultiplexedConnection>,
    /// Number of changes made by calls that wait.
    changes: AtomicU64,
    progress: Mutex<Progress>,
}

/// Changes are counted in the order in which their calls began to wait.
#[derive(Default)]
struct Progress {
    /// Up to this one a `WAIT` has ended, with or without success.
    asked: u64,
    /// Up to this one the replicas have them.
    replicated: u64,
}

impl Replicas {
    pub(super) fn new(wanted: u32, fsync: bool) -> Self {
        Self {
            wanted,
            fsync,
            connection: OnceCell::new(),
            changes: AtomicU64::new(0),
            progress: Mutex::default(),
        }
    }

    /// Waits until the replicas have what the caller has just changed on the same server.
    ///
    /// One call at a time writes a key, after all changes made so far, and waits for that write:
    /// calls that come meanwhile share the next one. The connection belongs to the same process as
    /// those of the changes, so a failover cannot lose the changes and keep the key.
    pub(super) async fn wait(
        &self,
        key: &str,
        deadline: Instant,
        connect: impl AsyncFnOnce() -> RedisResult<MultiplexedConnection>,
    ) -> RedisResult<()> {
        let mine = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        let mut progress = self.progress.lock().await;
        if progress.replicated >= mine {
            return Ok(());
        }
        if progress.asked >= mine {
            return Err(too_few());
        }
        let all = self.changes.load(Ordering::Acquire);
        let mut connection = self.connection.get_or_try_init(|| connect()).await?.clone();
        let timeout = deadline.saturating_duration_since(Instant::now());
        let millis = timeout.saturating_sub(REPLY_TIME).as_millis().max(1);
        let millis = u64::try_from(millis).unwrap_or(1);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(key).arg(1).ignore();
        if self.fsync {
            pipeline.cmd("WAITAOF").arg(1).arg(self.wanted).arg(millis);
            let ((local, replicas),): ((u32, u32),) = pipeline.query_async(&mut connection).await?;
            progress.asked = all;
            if local < 1 || replicas < self.wanted {
                return Err(too_few());
            }
        } else {
            pipeline.cmd("WAIT").arg(self.wanted).arg(millis);
            let (replicas,): (u32,) = pipeline.query_async(&mut connection).await?;
            progress.asked = all;
            if replicas < self.wanted {
                return Err(too_few());
            }
        }
        progress.replicated = all;
        Ok(())
    }
}

fn too_few() -> RedisError {
    RedisError::from((redis::ErrorKind::Client, "too few replicas have the change"))
}
