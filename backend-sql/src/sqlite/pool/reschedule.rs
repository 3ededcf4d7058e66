use rusqlite::OptionalExtension;
use storage_traits::{
    Result,
    domain::{MessageId, QueueRef, Timestamp},
    pool::Rescheduled,
};

use super::{
    enqueue::retained_row,
    lookup::{lookup, scheduled_copies},
    rows::{DELAYED, MessageRow},
    transitions::make_ready,
};
use crate::sqlite::{error::store_error, queue_row::QueueRow, transaction::Tx};

/// Changes when a message that is not visible yet becomes visible. If no consumer has seen it yet,
/// changes its copies in the groups and in the retention log too.
pub(super) fn reschedule(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: MessageId,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<Rescheduled> {
    let row = tx.queue(queue.incarnation)?;
    let Some(mut row) = row.filter(|row| id.incarnation == row.message_incarnation()) else {
        return Ok(Rescheduled::Missing);
    };
    let Some(found) = lookup(tx, row.id, id.sequence.get(), now)? else {
        return Ok(Rescheduled::Missing);
    };
    if !reschedule_delayed(tx, &mut row, &found.row, visible_at, now)? {
        return Ok(Rescheduled::Visible);
    }
    tx.save(row);
    for (mut group, copy) in scheduled_copies(tx, &row, &found, now)? {
        reschedule_delayed(tx, &mut group, &copy, visible_at, now)?;
        tx.save(group);
    }
    if found.is_scheduled {
        reschedule_retained(tx, &row, found.row.sequence, visible_at.max(now))?;
    }
    Ok(Rescheduled::Moved)
}

/// Reschedules a message in one queue or group. Returns `false` if it is visible already.
fn reschedule_delayed(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    message: &MessageRow,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let expires_at: Option<i64> = tx
        .connection
        .prepare_cached(
            "UPDATE message_by_state
             SET due_at = ?5, visible_at = ?5, expires_at = ?5 + 1000 * ttl_seconds
             WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3 AND visible_at > ?4
             RETURNING expires_at",
        )
        .and_then(|mut statement| {
            let new = visible_at.max(now).as_millis();
            let params = [queue.id, DELAYED, message.sequence, now.as_millis(), new];
            statement.query_row(params, |row| row.get(0)).optional()
        })
        .map_err(store_error)?;
    let Some(expires_at) = expires_at else { return Ok(false) };
    if visible_at > now {
        queue.record_due(visible_at.as_millis());
    } else {
        make_ready(tx, queue, message)?;
        queue.record_due(expires_at);
    }
    Ok(true)
}

/// Reschedules a message in the retention log of its queue, if it is there.
fn reschedule_retained(
    tx: &mut Tx<'_>,
    queue: &QueueRow,
    sequence: i64,
    visible_at: Timestamp,
) -> Result<()> {
    let Some((mut log, message)) = retained_row(tx, queue, sequence)? else { return Ok(()) };
    let expires_at = tx
        .connection
        .prepare_cached(
            "UPDATE message_by_state SET visible_at = ?4, expires_at = ?4 + 1000 * ttl_seconds,
                 due_at = ?4 + 1000 * ttl_seconds
             WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3 RETURNING expires_at",
        )
        .and_then(|mut statement| {
            let params = [log.id, message.state, message.sequence, visible_at.as_millis()];
            statement.query_row(params, |row| row.get(0))
        })
        .map_err(store_error)?;
    log.record_due(expires_at);
    tx.save(log);
    Ok(())
}
