//! Life and care of the queues.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use storage_traits::{
    Result,
    domain::{Incarnation, MessageId, QueueRef, Sequence, Timestamp},
    pool::{EventCounts, MessagePosition, PoolMaintenance, Stats, Swept},
};

use super::{
    Progress, STEP,
    rows::{DELAYED, IN_LINE, RETAINED, count, execute},
    settle::{erase, place_of, places, remove, settle},
};
use crate::sqlite::{
    Sqlite,
    error::{store_error, unexpected},
    writer::{NEVER, Tx, read_queue_row},
};

/// How long a dropped queue's incarnation stays refused.
const RETIREMENT: Duration = Duration::from_mins(10);
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
                for reading in tx.readings(queue.incarnation)?.iter() {
                    forget_reading(tx, *reading)?;
                }
                if let Some(log) = tx.queue(queue.incarnation)?.and_then(|row| row.log) {
                    forget_reading(tx, log)?;
                }
                tx.forget_readings(queue.incarnation);
                execute(
                    tx.connection,
                    "DELETE FROM pool_group WHERE queue = ?1",
                    [queue.incarnation.get()],
                )?;
                // Also of a queue that is about to be opened by somebody who heard of it before.
                execute(
                    tx.connection,
                    "INSERT INTO pool_queue (incarnation, project, name, last_sequence, ready,
                         delayed, claimed, next_due)
                     SELECT -?1, ?2, ?3, 0, 0, 0, 0, 0
                     WHERE NOT EXISTS (SELECT 1 FROM pool_queue WHERE incarnation IN (?1, -?1))",
                    params![
                        queue.incarnation.get(),
                        queue.key.project.as_str(),
                        queue.key.name.as_str()
                    ],
                )?;
                forget_reading(tx, queue.incarnation)?;
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
        let mut purged = 0;
        loop {
            let queue = queue.clone();
            let step = move |tx: &mut Tx<'_>| purge_step(tx, &queue, row.last_sequence);
            match self.file.write(step).await? {
                0 => break,
                deleted => purged += deleted,
            }
        }
        let Some(log) = row.log else { return Ok(purged) };
        let step = move |tx: &mut Tx<'_>| purge_log_step(tx, log, row.last_sequence);
        while self.file.write(step).await? > 0 {}
        Ok(purged)
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        self.file.write(move |tx| sweep(tx, now)).await
    }

    fn counters(&self) -> EventCounts {
        self.file.counters()
    }

    async fn check(&self) -> Result<()> {
        self.file.write(|_| Ok(())).await
    }

    async fn close(&self) {
        self.file.close().await;
    }
}

/// Lets nobody find a queue or a reading any more; the sweep removes what it has.
pub(super) fn forget_reading(tx: &mut Tx<'_>, incarnation: Incarnation) -> Result<()> {
    tx.forget(incarnation);
    execute(
        tx.connection,
        "UPDATE pool_queue SET incarnation = -incarnation, next_due = 0 WHERE incarnation = ?1",
        [incarnation.get()],
    )?;
    Ok(())
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
    let ends = |sql: &str| -> Result<Vec<MessagePosition>> {
        let marks: Vec<(i64, i64)> = snapshot
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement.query_map([row.id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(store_error)?;
        marks
            .into_iter()
            .map(|(sequence, posted_at)| mark(row.ids(), sequence, posted_at))
            .collect()
    };
    // Either end is the outermost of those of the four states.
    let first = ends(
        "SELECT * FROM (SELECT sequence, posted_at FROM ready WHERE queue = ?1
             ORDER BY sequence LIMIT 1) UNION ALL
         SELECT * FROM (SELECT sequence, posted_at FROM held WHERE queue = ?1 AND state = 1
             ORDER BY sequence LIMIT 1) UNION ALL
         SELECT * FROM (SELECT sequence, posted_at FROM held WHERE queue = ?1 AND state = 2
             ORDER BY sequence LIMIT 1) UNION ALL
         SELECT * FROM (SELECT sequence, posted_at FROM held WHERE queue = ?1 AND state = 3
             ORDER BY sequence LIMIT 1)",
    )?;
    let last = ends(
        "SELECT * FROM (SELECT sequence, posted_at FROM ready WHERE queue = ?1
             ORDER BY sequence DESC LIMIT 1) UNION ALL
         SELECT * FROM (SELECT sequence, posted_at FROM held WHERE queue = ?1 AND state = 1
             ORDER BY sequence DESC LIMIT 1) UNION ALL
         SELECT * FROM (SELECT sequence, posted_at FROM held WHERE queue = ?1 AND state = 2
             ORDER BY sequence DESC LIMIT 1) UNION ALL
         SELECT * FROM (SELECT sequence, posted_at FROM held WHERE queue = ?1 AND state = 3
             ORDER BY sequence DESC LIMIT 1)",
    )?;
    Ok(Progress::Done(Stats {
        free: count(row.ready + row.in_line + row.delayed)?,
        claimed: count(row.claimed)?,
        oldest: first.into_iter().min_by_key(|mark| mark.id),
        newest: last.into_iter().max_by_key(|mark| mark.id),
        completed_last_minute: row.completed.last_minute(now),
    }))
}

fn mark(incarnation: Incarnation, sequence: i64, posted_at: i64) -> Result<MessagePosition> {
    let sequence = Sequence::new(sequence).ok_or_else(|| unexpected("a sequence is negative"))?;
    Ok(MessagePosition {
        id: MessageId { incarnation, sequence },
        posted_at: Timestamp::from_millis(posted_at),
    })
}

/// Deletes some unclaimed messages up to `last`; answers how many, 0 when none is left.
fn purge_step(tx: &mut Tx<'_>, queue: &QueueRef, last: i64) -> Result<u64> {
    let Some(mut row) = tx.queue(queue.incarnation)? else { return Ok(0) };
    let mut found = places(
        tx,
        concat!(
            "SELECT ",
            place_of!(ready),
            " FROM ready WHERE queue = ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
        ),
        params![row.id, last, STEP],
    )?;
    for state in [DELAYED, IN_LINE] {
        found.extend(places(
            tx,
            concat!(
                "SELECT ",
                place_of!(held),
                " FROM held
                 WHERE queue = ?1 AND state = ?4 AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
            ),
            params![row.id, last, STEP, state],
        )?);
    }
    for place in &found {
        remove(tx, &mut row, place)?;
    }
    tx.put(row);
    Ok(found.len() as u64)
}

/// Deletes some of what is retained up to `last`; answers how many, 0 when none is left.
fn purge_log_step(tx: &mut Tx<'_>, log: Incarnation, last: i64) -> Result<usize> {
    let Some(mut row) = tx.queue(log)? else { return Ok(0) };
    let found = places(
        tx,
        concat!(
            "SELECT ",
            place_of!(held),
            " FROM held
             WHERE queue = ?1 AND state = ?2 AND sequence <= ?3 ORDER BY sequence LIMIT ?4"
        ),
        params![row.id, RETAINED, last, STEP],
    )?;
    for place in &found {
        remove(tx, &mut row, place)?;
    }
    Ok(found.len())
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
    let mut swept = Swept { processed: 0, more: due.len() == SWEEP_QUEUES };
    for (id, incarnation) in due {
        let done = match Incarnation::new(incarnation) {
            None => {
                let (removed, done) = remove_dropped(tx, id, now)?;
                swept.processed += removed;
                done
            }
            Some(incarnation) => {
                let Some(mut row) = tx.queue(incarnation)? else { continue };
                let step = settle(tx, &mut row, now)?;
                swept.processed += step.handled;
                step.done
            }
        };
        swept.more |= !done;
        if swept.processed >= STEP as u64 {
            swept.more = true;
            break;
        }
    }
    Ok(swept)
}

/// Removes some of what a dropped queue left behind, at last its row.
fn remove_dropped(tx: &Tx<'_>, id: i64, now: Timestamp) -> Result<(u64, bool)> {
    let mut found = places(
        tx,
        concat!(
            "SELECT ",
            place_of!(ready),
            " FROM ready WHERE queue = ?1 ORDER BY sequence LIMIT ?2"
        ),
        params![id, STEP],
    )?;
    found.extend(places(
        tx,
        concat!("SELECT ", place_of!(held), " FROM held WHERE queue = ?1 LIMIT ?2"),
        params![id, STEP],
    )?);
    for place in &found {
        erase(tx, id, place)?;
    }
    let claims = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue = ?1 AND id IN (
             SELECT id FROM claim WHERE queue = ?1 LIMIT ?2)",
        params![id, STEP],
    )?;
    let seen = execute(
        tx.connection,
        "DELETE FROM deduplication WHERE queue = ?1 AND id IN (
             SELECT id FROM deduplication WHERE queue = ?1 LIMIT ?2)",
        params![id, STEP],
    )?;
    let lines = execute(
        tx.connection,
        "DELETE FROM line WHERE queue = ?1 AND ordering_key IN (
             SELECT ordering_key FROM line WHERE queue = ?1 LIMIT ?2)",
        params![id, STEP],
    )?;
    let letters = execute(
        tx.connection,
        "DELETE FROM dead_letter WHERE queue = ?1 AND sequence IN (
             SELECT sequence FROM dead_letter WHERE queue = ?1 LIMIT ?2)",
        params![id, STEP],
    )?;
    let done = [found.len(), claims, seen, lines, letters].iter().all(|rows| *rows < STEP);
    if done {
        retire(tx, id, now)?;
    }
    Ok(((found.len() + claims + seen + lines + letters) as u64 + u64::from(done), done))
}

/// Marks an emptied queue, at its next turn removes its row. In between nobody can open it again,
/// not even a node that was slow to hear that it is gone: its ids would be given out twice.
fn retire(tx: &Tx<'_>, id: i64, now: Timestamp) -> Result<()> {
    // Readings are drawn by chance: nobody knows of one before it is there.
    let reading = "DELETE FROM pool_queue WHERE id = ?1 AND mirrors IS NOT NULL";
    if execute(tx.connection, reading, [id])? > 0 {
        return Ok(());
    }
    let marked = execute(
        tx.connection,
        "UPDATE pool_queue SET last_sequence = -1, next_due = ?2
         WHERE id = ?1 AND last_sequence >= 0",
        params![id, now.plus(RETIREMENT).as_millis()],
    )?;
    if marked == 0 {
        execute(tx.connection, "DELETE FROM pool_queue WHERE id = ?1", [id])?;
    }
    Ok(())
}
