//! Background work: applies what is due in queues that no caller uses, and deletes the rows of
//! dropped queues.

use std::time::Duration;

use rusqlite::params;
use storage_traits::{
    Result,
    domain::{Incarnation, Timestamp},
    pool::Swept,
};

use super::{
    bodies::unref_body,
    due::apply_due,
    progress::MAX_STEP_ROWS,
    rows::{execute, message_columns, select_rows},
    transitions::delete_row,
};
use crate::sqlite::{
    error::{store_error, unexpected},
    transaction::Tx,
};

/// How long the tombstone of a dropped queue stays after its other rows are deleted.
const TOMBSTONE_TTL: Duration = Duration::from_mins(10);
/// Queues that one sweep reads at most.
const MAX_QUEUES: usize = 64;

/// A row of `pool_queue` with something due.
struct DueQueue {
    id: i64,
    incarnation: i64,
    is_dropped: bool,
}

/// Does a bounded part of the work that is due.
pub(super) fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> Result<Swept> {
    let due = due_queues(tx, now)?;
    let mut swept = Swept { processed: 0, more: due.len() == MAX_QUEUES };
    for queue in due {
        let done = if queue.is_dropped {
            let (deleted, done) = delete_dropped(tx, queue.id, now)?;
            swept.processed += deleted;
            done
        } else {
            let incarnation = Incarnation::new(queue.incarnation)
                .ok_or_else(|| unexpected("an incarnation is not positive"))?;
            let Some(mut row) = tx.queue(incarnation)? else { continue };
            let applied = apply_due(tx, &mut row, now)?;
            swept.processed += applied.processed;
            applied.done
        };
        swept.more |= !done;
        if swept.processed >= MAX_STEP_ROWS as u64 {
            swept.more = true;
            break;
        }
    }
    Ok(swept)
}

fn due_queues(tx: &Tx<'_>, now: Timestamp) -> Result<Vec<DueQueue>> {
    tx.connection
        .prepare_cached(
            "SELECT id, incarnation, dropped FROM pool_queue
             WHERE next_due <= ?1 ORDER BY next_due LIMIT ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![now.as_millis(), MAX_QUEUES], |row| {
                    let (id, incarnation, is_dropped) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok(DueQueue { id, incarnation, is_dropped })
                })?
                .collect()
        })
        .map_err(store_error)
}

/// Deletes some of the rows of a dropped queue, its own row last. Returns how many, and whether
/// nothing is left to do now.
fn delete_dropped(tx: &Tx<'_>, id: i64, now: Timestamp) -> Result<(u64, bool)> {
    let mut messages = select_rows(
        tx,
        concat!(
            "SELECT ",
            message_columns!(ready_message),
            " FROM ready_message WHERE queue_id = ?1 ORDER BY sequence LIMIT ?2"
        ),
        params![id, MAX_STEP_ROWS],
    )?;
    messages.extend(select_rows(
        tx,
        concat!(
            "SELECT ",
            message_columns!(message_by_state),
            " FROM message_by_state WHERE queue_id = ?1 LIMIT ?2"
        ),
        params![id, MAX_STEP_ROWS],
    )?);
    for message in &messages {
        delete_row(tx, id, message)?;
        unref_body(tx, message.body_id)?;
    }
    let mut deleted = messages.len();
    let mut done = messages.len() < MAX_STEP_ROWS;
    for sql in [
        "DELETE FROM claim WHERE queue_id = ?1 AND id IN (
             SELECT id FROM claim WHERE queue_id = ?1 LIMIT ?2)",
        "DELETE FROM deduplication WHERE queue_id = ?1 AND id IN (
             SELECT id FROM deduplication WHERE queue_id = ?1 LIMIT ?2)",
        "DELETE FROM ordering_key WHERE queue_id = ?1 AND ordering_key IN (
             SELECT ordering_key FROM ordering_key WHERE queue_id = ?1 LIMIT ?2)",
        "DELETE FROM dead_letter WHERE queue_id = ?1 AND sequence IN (
             SELECT sequence FROM dead_letter WHERE queue_id = ?1 LIMIT ?2)",
    ] {
        let rows = execute(tx.connection, sql, params![id, MAX_STEP_ROWS])?;
        deleted += rows;
        done &= rows < MAX_STEP_ROWS;
    }
    if done {
        retire(tx, id, now)?;
    }
    Ok((deleted as u64 + u64::from(done), done))
}

/// Turns the row of a dropped queue that has no other rows left into a tombstone, and deletes it
/// when the tombstone is due. Meanwhile a node that learns late of the drop cannot open the
/// incarnation again, which would use its message ids twice.
fn retire(tx: &Tx<'_>, id: i64, now: Timestamp) -> Result<()> {
    // The incarnation of a group or a retention log is random; no node opens it.
    let sql = "DELETE FROM pool_queue WHERE id = ?1 AND source_queue IS NOT NULL";
    if execute(tx.connection, sql, [id])? > 0 {
        return Ok(());
    }
    let retired = execute(
        tx.connection,
        "UPDATE pool_queue SET retired_at = ?2, next_due = ?3
         WHERE id = ?1 AND retired_at IS NULL",
        [id, now.as_millis(), now.plus(TOMBSTONE_TTL).as_millis()],
    )?;
    if retired == 0 {
        execute(tx.connection, "DELETE FROM pool_queue WHERE id = ?1", [id])?;
    }
    Ok(())
}
