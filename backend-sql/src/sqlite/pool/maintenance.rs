//! Life and care of the queues.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Result,
    domain::{Incarnation, MessageId, QueueRef, Sequence, Timestamp},
    pool::{MessageMark, PoolCounters, PoolMaintenance, Stats, Swept},
};

use super::{
    Progress, STEP,
    rows::{CLAIMED, count, execute},
    settle::{erase, remove, settle},
};
use crate::sqlite::{
    Sqlite,
    error::{store_error, unexpected},
    writer::{NEVER, Tx, read_queue_row},
};

/// How many queues one sweep looks at.
const SWEEP_QUEUES: usize = 64;

#[async_trait]
impl PoolMaintenance for Sqlite {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let queue = queue.clone();
        self.file
            .write(move |tx| {
                execute(
                    tx.connection,
                    "INSERT INTO pool_queue (incarnation, project, name, last_sequence, ready,
                         delayed, claimed, next_due)
                     SELECT ?1, ?2, ?3, 0, 0, 0, 0, ?4
                     WHERE NOT EXISTS (SELECT 1 FROM pool_queue WHERE incarnation IN (?1, -?1))",
                    params![
                        queue.incarnation.get(),
                        queue.key.project.as_str(),
                        queue.key.name.as_str(),
                        NEVER
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let queue = queue.clone();
        self.file
            .write(move |tx| {
                tx.forget(queue.incarnation);
                execute(
                    tx.connection,
                    "UPDATE pool_queue SET incarnation = -incarnation, next_due = 0
                     WHERE incarnation = ?1",
                    [queue.incarnation.get()],
                )?;
                Ok(())
            })
            .await
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        loop {
            let reading = queue.clone();
            match self.file.read(move |connection| stats(connection, &reading, now)).await? {
                Progress::Done(stats) => return Ok(stats),
                Progress::Again => self.settle_all(queue, now).await?,
            }
        }
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        self.settle_all(queue, now).await?;
        let reading = queue.clone();
        let read =
            move |connection: &mut Connection| read_queue_row(connection, reading.incarnation);
        let Some(row) = self.file.read(read).await? else { return Ok(0) };
        let (mut purged, mut after) = (0, 0);
        loop {
            let queue = queue.clone();
            let step = move |tx: &mut Tx<'_>| purge_step(tx, &queue, after, row.last_sequence);
            let (deleted, reached) = self.file.write(step).await?;
            purged += deleted;
            match reached {
                Some(sequence) => after = sequence,
                None => return Ok(purged),
            }
        }
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        self.file.write(move |tx| sweep(tx, now)).await
    }

    fn counters(&self) -> PoolCounters {
        self.file.counters()
    }

    async fn check(&self) -> Result<()> {
        self.file.write(|_| Ok(())).await
    }

    async fn close(&self) {
        self.file.close().await;
    }
}

impl Sqlite {
    /// Settles a queue in as many steps as it takes.
    pub(super) async fn settle_all(&self, queue: &QueueRef, now: Timestamp) -> Result<()> {
        let queue = queue.clone();
        self.write_until_done(move |tx| {
            let Some(mut row) = tx.queue(queue.incarnation)? else {
                return Ok(Progress::Done(()));
            };
            let step = settle(tx, &mut row, now)?;
            Ok(if step.done { Progress::Done(()) } else { Progress::Again })
        })
        .await
    }
}

fn stats(connection: &mut Connection, queue: &QueueRef, now: Timestamp) -> Result<Progress<Stats>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else {
        return Ok(Progress::Done(Stats::default()));
    };
    if row.is_due(now) {
        return Ok(Progress::Again);
    }
    let mark = |sql: &str| -> Result<Option<MessageMark>> {
        let found = snapshot
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement.query_row([row.id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(store_error)?;
        let Some((sequence, posted_at)) = found else { return Ok(None) };
        let sequence =
            Sequence::new(sequence).ok_or_else(|| unexpected("a sequence is negative"))?;
        Ok(Some(MessageMark {
            id: MessageId { incarnation: queue.incarnation, sequence },
            posted_at: Timestamp::from_millis(posted_at),
        }))
    };
    Ok(Progress::Done(Stats {
        free: count(row.ready + row.delayed)?,
        claimed: count(row.claimed)?,
        oldest: mark(
            "SELECT sequence, posted_at FROM entry WHERE queue = ?1 ORDER BY sequence LIMIT 1",
        )?,
        newest: mark(
            "SELECT sequence, posted_at FROM entry WHERE queue = ?1 ORDER BY sequence DESC LIMIT 1",
        )?,
    }))
}

/// Deletes some unclaimed messages behind `after` and up to `last`; answers how many, and how far
/// it came unless it came to the end.
fn purge_step(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    after: i64,
    last: i64,
) -> Result<(u64, Option<i64>)> {
    let Some(mut row) = tx.queue(queue.incarnation)? else { return Ok((0, None)) };
    let found = places(
        tx.connection,
        "SELECT sequence, state, body FROM entry
         WHERE queue = ?1 AND sequence > ?2 AND sequence <= ?3 ORDER BY sequence LIMIT ?4",
        params![row.id, after, last, STEP],
    )?;
    let mut deleted = 0;
    for (sequence, state, body) in &found {
        if *state != CLAIMED {
            remove(tx, &mut row, *sequence, *state, *body)?;
            deleted += 1;
        }
    }
    tx.put(row);
    let reached = found.last().filter(|_| found.len() == STEP).map(|(sequence, ..)| *sequence);
    Ok((deleted, reached))
}

fn places(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<(i64, i64, i64)>> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement
                .query_map(params, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
        .map_err(store_error)
}

fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> Result<Swept> {
    let due: Vec<(i64, i64)> = tx
        .connection
        .prepare_cached(
            "SELECT id, incarnation FROM pool_queue WHERE next_due <= ?1 ORDER BY next_due LIMIT ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![now.as_millis(), SWEEP_QUEUES], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        })
        .map_err(store_error)?;
    let mut swept = Swept { handled: 0, more: due.len() == SWEEP_QUEUES };
    for (id, incarnation) in due {
        let done = match Incarnation::new(incarnation) {
            None => {
                let (removed, done) = remove_dropped(tx, id)?;
                swept.handled += removed;
                done
            }
            Some(incarnation) => {
                let Some(mut row) = tx.queue(incarnation)? else { continue };
                let step = settle(tx, &mut row, now)?;
                swept.handled += step.handled;
                step.done
            }
        };
        swept.more |= !done;
        if swept.handled >= STEP as u64 {
            swept.more = true;
            break;
        }
    }
    Ok(swept)
}

/// Removes some of what a dropped queue left behind, at last its row.
fn remove_dropped(tx: &Tx<'_>, id: i64) -> Result<(u64, bool)> {
    let found = places(
        tx.connection,
        "SELECT sequence, state, body FROM entry WHERE queue = ?1 ORDER BY sequence LIMIT ?2",
        params![id, STEP],
    )?;
    for (sequence, _, body) in &found {
        erase(tx, id, *sequence, *body)?;
    }
    let claims = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue = ?1 AND id IN (
             SELECT id FROM claim WHERE queue = ?1 LIMIT ?2)",
        params![id, STEP],
    )?;
    let done = found.len() < STEP && claims < STEP;
    if done {
        execute(tx.connection, "DELETE FROM pool_queue WHERE id = ?1", [id])?;
    }
    Ok(((found.len() + claims) as u64 + u64::from(done), done))
}
