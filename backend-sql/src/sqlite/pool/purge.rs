use rusqlite::params;
use storage_traits::{Result, domain::Incarnation};

use super::{
    progress::MAX_STEP_ROWS,
    rows::{DELAYED, READY_KEYED, message_columns, select_rows, state},
    transitions::remove,
};
use crate::sqlite::transaction::Tx;

/// Deletes some of the unclaimed messages up to the sequence `last`. Returns how many; 0 if none is
/// left.
pub(super) fn purge_step(tx: &mut Tx<'_>, queue: Incarnation, last: i64) -> Result<u64> {
    let Some(mut row) = tx.queue(queue)? else { return Ok(0) };
    let mut found = select_rows(
        tx,
        concat!(
            "SELECT ",
            message_columns!(ready_message),
            " FROM ready_message
             WHERE queue_id = ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
        ),
        params![row.id, last, MAX_STEP_ROWS],
    )?;
    for state in [DELAYED, READY_KEYED] {
        found.extend(select_rows(
            tx,
            concat!(
                "SELECT ",
                message_columns!(message_by_state),
                " FROM message_by_state
                 WHERE queue_id = ?1 AND state = ?4 AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
            ),
            params![row.id, last, MAX_STEP_ROWS, state],
        )?);
    }
    for message in &found {
        remove(tx, &mut row, message)?;
    }
    tx.save(row);
    Ok(found.len() as u64)
}

/// Deletes some of the messages in a retention log up to the sequence `last`. Returns how many; 0
/// if none is left.
pub(super) fn purge_log_step(tx: &mut Tx<'_>, log: Incarnation, last: i64) -> Result<usize> {
    let Some(mut row) = tx.queue(log)? else { return Ok(0) };
    let found = select_rows(
        tx,
        concat!(
            "SELECT ",
            message_columns!(message_by_state),
            " FROM message_by_state WHERE queue_id = ?1 AND state = ",
            state!(RETAINED),
            " AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
        ),
        params![row.id, last, MAX_STEP_ROWS],
    )?;
    for message in &found {
        remove(tx, &mut row, message)?;
    }
    Ok(found.len())
}
