//! Applies what time alone changes: messages expire, delays and claims end.

use rusqlite::params;
use storage_traits::{
    Result,
    domain::{Incarnation, QueueRef, Timestamp},
};

use super::{
    backfill::backfill,
    progress::{MAX_STEP_ROWS, Progress},
    rows::{MessageRow, execute, message_columns, select_rows},
    transitions::{make_ready, remove},
};
use crate::sqlite::{
    error::store_error,
    queue_row::{NEVER, QueueRow},
    transaction::Tx,
};

/// Result of one step of [`apply_due`].
pub(super) struct DueProgress {
    /// Whether nothing is due any more; if not, the caller repeats the step.
    pub(super) done: bool,
    /// Rows that the step removed or made ready.
    pub(super) processed: u64,
}

/// Applies a bounded part of what is due in a queue at `now`.
pub(super) fn apply_due(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    now: Timestamp,
) -> Result<DueProgress> {
    if !queue.is_due(now) {
        return Ok(DueProgress { done: true, processed: 0 });
    }
    if let Some(range) = queue.backfill {
        backfill(tx, queue, range, now)?;
        if queue.backfill.is_none() {
            queue.next_due = next_due(tx, queue.id)?;
        }
        tx.save(*queue);
        return Ok(DueProgress { done: !queue.is_due(now), processed: MAX_STEP_ROWS as u64 });
    }
    let expired = select_rows(
        tx,
        concat!(
            "SELECT ",
            message_columns!(ready_message),
            " FROM ready_message
             WHERE queue_id = ?1 AND expires_at <= ?2 ORDER BY expires_at LIMIT ?3"
        ),
        params![queue.id, now.as_millis(), MAX_STEP_ROWS],
    )?;
    for message in &expired {
        remove(tx, queue, message)?;
    }
    // A message that expires in a queue and its groups is one event, the queue's.
    let events = u64::from(queue.source_queue.is_none());
    tx.events.expired += events * expired.len() as u64;
    let due = due_by_state(tx, queue.id, now)?;
    for (message, is_expired) in &due {
        if *is_expired {
            remove(tx, queue, message)?;
            tx.events.expired += events;
        } else {
            make_ready(tx, queue, message)?;
        }
    }
    let claims = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue_id = ?1 AND id IN (
             SELECT id FROM claim WHERE queue_id = ?1 AND expires_at <= ?2 LIMIT ?3)",
        params![queue.id, now.as_millis(), MAX_STEP_ROWS],
    )?;
    let deduplication_ids = execute(
        tx.connection,
        "DELETE FROM deduplication WHERE queue_id = ?1 AND id IN (
             SELECT id FROM deduplication WHERE queue_id = ?1 AND expires_at <= ?2 LIMIT ?3)",
        params![queue.id, now.as_millis(), MAX_STEP_ROWS],
    )?;
    let processed = [expired.len(), due.len(), claims, deduplication_ids];
    let done = processed.iter().all(|rows| *rows < MAX_STEP_ROWS);
    if done {
        queue.next_due = next_due(tx, queue.id)?;
    }
    tx.save(*queue);
    Ok(DueProgress { done, processed: processed.iter().sum::<usize>() as u64 })
}

/// Applies what is due, in one step, and returns the queue's row; `None` if the pool does not know
/// the queue.
pub(super) fn up_to_date_row(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    now: Timestamp,
) -> Result<Option<Progress<QueueRow>>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else { return Ok(None) };
    let applied = apply_due(tx, &mut row, now)?;
    Ok(Some(if applied.done { Progress::Done(row) } else { Progress::Again }))
}

/// Applies a bounded part of what is due. Returns when the queue next has something due; `None` if
/// the pool does not know the queue.
pub(in crate::sqlite) fn apply_due_and_next(
    tx: &mut Tx<'_>,
    queue: Incarnation,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let Some(mut row) = tx.queue(queue)? else { return Ok(None) };
    apply_due(tx, &mut row, now)?;
    Ok(Some(Timestamp::from_millis(row.next_due)))
}

/// Returns due rows of `message_by_state`, each with whether its message is expired.
fn due_by_state(tx: &Tx<'_>, queue_id: i64, now: Timestamp) -> Result<Vec<(MessageRow, bool)>> {
    tx.connection
        .prepare_cached(concat!(
            "SELECT ",
            message_columns!(message_by_state),
            ", expires_at <= ?2 FROM message_by_state
             WHERE queue_id = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3"
        ))
        .and_then(|mut statement| {
            statement
                .query_map(params![queue_id, now.as_millis(), MAX_STEP_ROWS], |row| {
                    Ok((MessageRow::read(row)?, row.get(5)?))
                })?
                .collect()
        })
        .map_err(store_error)
}

/// Returns when the queue next has something due, from its rows.
fn next_due(tx: &Tx<'_>, queue_id: i64) -> Result<i64> {
    tx.connection
        .prepare_cached(
            "SELECT min(
                 coalesce((SELECT min(expires_at) FROM ready_message WHERE queue_id = ?1), ?2),
                 coalesce((SELECT min(due_at) FROM message_by_state WHERE queue_id = ?1), ?2),
                 coalesce((SELECT min(expires_at) FROM claim WHERE queue_id = ?1), ?2),
                 coalesce((SELECT min(expires_at) FROM deduplication WHERE queue_id = ?1), ?2))",
        )
        .and_then(|mut statement| statement.query_row([queue_id, NEVER], |row| row.get(0)))
        .map_err(store_error)
}
