//! Looks up messages and claims by id.

use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Result,
    domain::{ClaimId, Timestamp},
};

use super::rows::{
    CLAIMED, DELAYED, MessageRow, StoredMessage, message_columns, select_by_state, select_messages,
    state,
};
use crate::sqlite::{error::store_error, queue_row::QueueRow, transaction::Tx};

/// An unexpired message, with what decides whether a consumer may change it.
pub(super) struct FoundMessage {
    pub(super) row: MessageRow,
    /// The live claim that holds it.
    pub(super) claimed_by: Option<ClaimId>,
    /// Whether it is not visible yet and was never claimed.
    pub(super) is_scheduled: bool,
}

/// Looks up an unexpired message, whatever its state.
pub(super) fn lookup(
    tx: &Tx<'_>,
    queue_id: i64,
    sequence: i64,
    now: Timestamp,
) -> Result<Option<FoundMessage>> {
    let find = |sql: &str| {
        tx.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement
                    .query_row([queue_id, sequence, now.as_millis()], |columns| {
                        let row = MessageRow::read(columns)?;
                        // What is due may not be applied yet, so the state alone does not decide.
                        let is_claimed =
                            row.state == CLAIMED && columns.get::<_, i64>(5)? > now.as_millis();
                        let claim = columns.get::<_, Option<[u8; 16]>>(6)?;
                        let is_scheduled = row.state == DELAYED
                            && !row.was_claimed
                            && columns.get::<_, i64>(7)? > now.as_millis();
                        let claimed_by = claim.filter(|_| is_claimed).map(ClaimId::from_bytes);
                        Ok(FoundMessage { row, claimed_by, is_scheduled })
                    })
                    .optional()
            })
            .map_err(store_error)
    };
    let found = find(concat!(
        "SELECT ",
        message_columns!(message_by_state),
        ", due_at, claim_id, visible_at FROM message_by_state WHERE queue_id = ?1 AND state IN ",
        state!(SERVED),
        " AND sequence = ?2 AND expires_at > ?3"
    ))?;
    match found {
        Some(found) => Ok(Some(found)),
        None => find(concat!(
            "SELECT ",
            message_columns!(ready_message),
            ", expires_at, claim_id, visible_at FROM ready_message
             WHERE queue_id = ?1 AND sequence = ?2 AND expires_at > ?3"
        )),
    }
}

/// Returns the copies that groups have of a message which no consumer has seen yet. When its
/// producer deletes or reschedules it, they change too.
pub(super) fn scheduled_copies(
    tx: &mut Tx<'_>,
    queue: &QueueRow,
    found: &FoundMessage,
    now: Timestamp,
) -> Result<Vec<(QueueRow, MessageRow)>> {
    let mut copies = Vec::new();
    if queue.group_count == 0 || !found.is_scheduled {
        return Ok(copies);
    }
    for group in tx.groups(queue.incarnation)?.iter() {
        let Some(group) = tx.queue(*group)? else { continue };
        let copy = lookup(tx, group.id, found.row.sequence, now)?;
        copies.extend(copy.filter(|copy| copy.is_scheduled).map(|copy| (group, copy.row)));
    }
    Ok(copies)
}

/// Returns whether a claim is live at `now`.
pub(super) fn is_live(tx: &Tx<'_>, queue_id: i64, id: ClaimId, now: Timestamp) -> Result<bool> {
    tx.connection
        .prepare_cached("SELECT 1 FROM claim WHERE queue_id = ?1 AND id = ?2 AND expires_at > ?3")
        .and_then(|mut statement| {
            statement.exists(params![queue_id, id.to_bytes(), now.as_millis()])
        })
        .map_err(store_error)
}

/// Returns the unexpired messages that a claim holds, in order.
pub(super) fn claimed_messages(
    connection: &Connection,
    queue: &QueueRow,
    id: ClaimId,
    now: Timestamp,
) -> Result<Vec<StoredMessage>> {
    select_messages(
        connection,
        queue.message_incarnation(),
        select_by_state!(
            INDEXED BY "message_by_claim",
            "WHERE m.queue_id = ?1 AND m.claim_id = ?2 AND m.state = ",
            state!(CLAIMED),
            " AND m.expires_at > ?3 ORDER BY m.sequence"
        ),
        params![queue.id, id.to_bytes(), now.as_millis()],
    )
}
