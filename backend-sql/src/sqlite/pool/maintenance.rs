//! Queue lifecycle, statistics and background work.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use storage_traits::{
    Result,
    domain::{Incarnation, MessageId, QueueRef, Sequence, Timestamp},
    pool::{EventCounts, MessagePosition, PoolMaintenance, Stats, Swept},
};

use super::{
    progress::Progress,
    purge::{purge_log_step, purge_step},
    rows::{count, execute, state},
    sweep::sweep,
};
use crate::sqlite::{
    error::{store_error, unexpected},
    queue_row::{DUE_NOW, NEVER, read_queue_row},
    store::Sqlite,
    transaction::Tx,
};

/// Selects the first message of each state, in the order that is given: the first of the queue is
/// among them.
macro_rules! first_of_each_state {
    ($order:literal) => {
        concat!(
            "SELECT * FROM (SELECT sequence, posted_at FROM ready_message WHERE queue_id = ?1 ",
            $order,
            ")",
            first_of_each_state!(@ state!(DELAYED), $order),
            first_of_each_state!(@ state!(CLAIMED), $order),
            first_of_each_state!(@ state!(READY_KEYED), $order)
        )
    };
    (@ $state:expr, $order:literal) => {
        concat!(
            " UNION ALL SELECT * FROM (SELECT sequence, posted_at FROM message_by_state \
             WHERE queue_id = ?1 AND state = ",
            $state,
            " ",
            $order,
            ")"
        )
    };
}

#[async_trait]
impl PoolMaintenance for Sqlite {
    async fn open_queue(&self, queue: &QueueRef) -> Result<()> {
        let queue = queue.clone();
        self.file.write(move |tx| open_queue(tx, &queue)).await
    }

    async fn drop_queue(&self, queue: &QueueRef) -> Result<()> {
        let queue = queue.clone();
        self.file.write(move |tx| drop_queue(tx, &queue)).await
    }

    async fn stats(&self, queue: &QueueRef, now: Timestamp) -> Result<Stats> {
        loop {
            let of = queue.clone();
            match self.file.read(move |connection| stats(connection, &of, now)).await? {
                Progress::Done(stats) => return Ok(stats),
                Progress::Again => self.apply_all_due(queue, now).await?,
            }
        }
    }

    async fn purge(&self, queue: &QueueRef, now: Timestamp) -> Result<u64> {
        self.apply_all_due(queue, now).await?;
        let queue = queue.incarnation;
        let read = move |connection: &mut Connection| read_queue_row(connection, queue);
        let Some(row) = self.file.read(read).await? else { return Ok(0) };
        let mut purged = 0;
        let step = move |tx: &mut Tx<'_>| purge_step(tx, queue, row.last_sequence);
        loop {
            match self.file.write(step).await? {
                0 => break,
                deleted => purged += deleted,
            }
        }
        let Some(log) = row.retention_log else { return Ok(purged) };
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

/// Inserts the row of a queue. An incarnation that is known stays as it is, open or dropped.
fn open_queue(tx: &Tx<'_>, queue: &QueueRef) -> Result<()> {
    execute(
        tx.connection,
        "INSERT INTO pool_queue (incarnation, project, name, last_sequence, next_due)
         VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT (incarnation) DO NOTHING",
        params![
            queue.incarnation.get(),
            queue.key.project.as_str(),
            queue.key.name.as_str(),
            NEVER
        ],
    )?;
    Ok(())
}

/// Drops a queue with its groups and its retention log. The sweep deletes their messages.
fn drop_queue(tx: &mut Tx<'_>, queue: &QueueRef) -> Result<()> {
    for group in tx.groups(queue.incarnation)?.iter() {
        tx.mark_dropped(*group)?;
    }
    if let Some(log) = tx.queue(queue.incarnation)?.and_then(|row| row.retention_log) {
        tx.mark_dropped(log)?;
    }
    tx.invalidate_groups(queue.incarnation);
    execute(
        tx.connection,
        "DELETE FROM pool_group WHERE queue_incarnation = ?1",
        [queue.incarnation.get()],
    )?;
    // An unknown queue gets a tombstone: a node that still has it in its cache may be about to open
    // it.
    execute(
        tx.connection,
        "INSERT INTO pool_queue (incarnation, project, name, last_sequence, next_due, dropped)
         VALUES (?1, ?2, ?3, 0, ?4, 1) ON CONFLICT (incarnation) DO NOTHING",
        params![
            queue.incarnation.get(),
            queue.key.project.as_str(),
            queue.key.name.as_str(),
            DUE_NOW
        ],
    )?;
    tx.mark_dropped(queue.incarnation)
}

/// Reads the statistics of a queue. Returns `Again` if something is due in it: a reader cannot
/// apply it.
fn stats(connection: &mut Connection, queue: &QueueRef, now: Timestamp) -> Result<Progress<Stats>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else {
        return Ok(Progress::Done(Stats::default()));
    };
    if row.is_due(now) {
        return Ok(Progress::Again);
    }
    let positions = |sql: &str| -> Result<Vec<MessagePosition>> {
        let found: Vec<(i64, i64)> = snapshot
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement.query_map([row.id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(store_error)?;
        let incarnation = row.message_incarnation();
        found
            .into_iter()
            .map(|(sequence, posted_at)| position(incarnation, sequence, posted_at))
            .collect()
    };
    let first = positions(first_of_each_state!("ORDER BY sequence LIMIT 1"))?;
    let last = positions(first_of_each_state!("ORDER BY sequence DESC LIMIT 1"))?;
    Ok(Progress::Done(Stats {
        free: count(row.ready + row.ready_keyed + row.delayed)?,
        claimed: count(row.claimed)?,
        oldest: first.into_iter().min_by_key(|position| position.id),
        newest: last.into_iter().max_by_key(|position| position.id),
        completed_last_minute: row.completed.last_minute(now),
    }))
}

fn position(incarnation: Incarnation, sequence: i64, posted_at: i64) -> Result<MessagePosition> {
    let sequence = Sequence::new(sequence).ok_or_else(|| unexpected("a sequence is negative"))?;
    Ok(MessagePosition {
        id: MessageId { incarnation, sequence },
        posted_at: Timestamp::from_millis(posted_at),
    })
}
