//! Changes of a message's state, with the counters of its queue and its ordering key.

use rusqlite::params;
use storage_traits::{Result, domain::Timestamp};

use super::{
    bodies::unref_body,
    ordering::{KeyDelta, update_key},
    rows::{CLAIMED, DELAYED, MessageRow, READY, READY_KEYED, execute},
};
use crate::sqlite::{queue_row::QueueRow, transaction::Tx};

/// Removes a message from the queue, whatever its state.
pub(super) fn remove(tx: &Tx<'_>, queue: &mut QueueRow, message: &MessageRow) -> Result<()> {
    detach(tx, queue, message)?;
    unref_body(tx, message.body_id)
}

/// Removes a message from the queue, whatever its state, but keeps its reference to the body.
pub(super) fn detach(tx: &Tx<'_>, queue: &mut QueueRow, message: &MessageRow) -> Result<()> {
    uncount(tx, queue, message)?;
    clear_dead_letter_flag(tx, queue, message.sequence)?;
    delete_row(tx, queue.id, message)
}

/// Removes a message from the dead letters of its queue, if it is one.
pub(super) fn clear_dead_letter_flag(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    sequence: i64,
) -> Result<()> {
    if queue.dead_letters > 0 {
        let sql = "DELETE FROM dead_letter WHERE queue_id = ?1 AND sequence = ?2";
        let deleted = execute(tx.connection, sql, [queue.id, sequence])?;
        queue.dead_letters -= i64::try_from(deleted).unwrap_or(0);
    }
    Ok(())
}

/// Deletes the row of a message. Changes no counter and no body.
pub(super) fn delete_row(tx: &Tx<'_>, queue_id: i64, message: &MessageRow) -> Result<()> {
    let MessageRow { sequence, state, .. } = *message;
    if state == READY {
        let sql = "DELETE FROM ready_message WHERE queue_id = ?1 AND sequence = ?2";
        execute(tx.connection, sql, [queue_id, sequence])?;
    } else {
        let sql =
            "DELETE FROM message_by_state WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3";
        execute(tx.connection, sql, [queue_id, state, sequence])?;
    }
    Ok(())
}

/// Subtracts a message that leaves its state from the counters of the queue and its ordering key.
fn uncount(tx: &Tx<'_>, queue: &mut QueueRow, message: &MessageRow) -> Result<()> {
    match message.state {
        CLAIMED => queue.claimed -= 1,
        DELAYED => queue.delayed -= 1,
        READY => queue.ready -= 1,
        _ => {} // `update_key` counts those that are ready with a key
    }
    match &message.ordering_key {
        Some(key) if message.state == READY_KEYED => update_key(tx, queue, key, KeyDelta::DEQUEUED),
        Some(key) if message.is_in_flight() => update_key(tx, queue, key, KeyDelta::COMPLETED),
        _ => Ok(()),
    }
}

/// Makes a delayed or claimed message ready. Its row keeps the id of an expired claim until the
/// next one.
pub(super) fn make_ready(tx: &Tx<'_>, queue: &mut QueueRow, message: &MessageRow) -> Result<()> {
    if let Some(key) = &message.ordering_key {
        if message.state == CLAIMED {
            queue.claimed -= 1;
        } else {
            queue.delayed -= 1;
        }
        execute(
            tx.connection,
            "UPDATE message_by_state SET state = ?4, due_at = expires_at
             WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3",
            [queue.id, message.state, message.sequence, READY_KEYED],
        )?;
        let in_flight = message.is_in_flight();
        let delta = if in_flight { KeyDelta::REQUEUED } else { KeyDelta::ENQUEUED };
        return update_key(tx, queue, key, delta);
    }
    uncount(tx, queue, message)?;
    queue.ready += 1;
    execute(
        tx.connection,
        "INSERT INTO ready_message (queue_id, sequence, expires_at, visible_at, posted_at,
             ttl_seconds, claim_id, claim_count, client, body_id, origin)
         SELECT queue_id, sequence, expires_at, visible_at, posted_at, ttl_seconds, claim_id,
             claim_count, client, body_id, origin
         FROM message_by_state WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3",
        [queue.id, message.state, message.sequence],
    )?;
    delete_row(tx, queue.id, message)
}

/// Removes a message from its claim: it becomes ready, or delayed until `visible_at`.
pub(super) fn requeue(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    message: &MessageRow,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    if visible_at <= now {
        execute(
            tx.connection,
            "UPDATE message_by_state SET claim_id = NULL
             WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3",
            params![queue.id, CLAIMED, message.sequence],
        )?;
        return make_ready(tx, queue, message);
    }
    queue.claimed -= 1;
    queue.delayed += 1;
    // If the message expires before that, `next_due` is early enough already: the due time under
    // the claim was no later than `expires_at`.
    queue.record_due(visible_at.as_millis());
    execute(
        tx.connection,
        "UPDATE message_by_state
         SET state = ?4, claim_id = NULL, visible_at = ?5, due_at = min(?5, expires_at)
         WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3",
        params![queue.id, CLAIMED, message.sequence, DELAYED, visible_at.as_millis()],
    )?;
    Ok(())
}
