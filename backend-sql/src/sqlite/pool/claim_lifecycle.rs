//! Reads, renews and releases claims.

use rusqlite::{Connection, OptionalExtension, params};
use storage_traits::{
    Result, StoreError,
    domain::{Claim, ClaimId, ClaimTerms, Message, QueueRef, Timestamp},
};

use super::{
    lookup::claimed_messages,
    rows::{CLAIMED, execute, message_columns, seconds, select_rows, state, whole_seconds},
    transitions::requeue,
};
use crate::sqlite::{error::store_error, queue_row::read_queue_row, transaction::Tx};

/// Sets the claim of a message. A message that would expire before the claim gets a new ttl, so
/// that it outlives the claim by the grace.
pub(super) fn set_claim(message: &mut Message, claim: ClaimId, terms: ClaimTerms, now: Timestamp) {
    message.claim = Some(claim);
    if message.expires_at < now.plus(terms.ttl) {
        message.ttl = terms.ttl.saturating_add(terms.grace);
        message.expires_at = now.plus(message.ttl);
    }
}

pub(super) fn get_claim(
    connection: &mut Connection,
    queue: &QueueRef,
    id: ClaimId,
    now: Timestamp,
) -> Result<Option<Claim>> {
    let snapshot = connection.transaction().map_err(store_error)?;
    let Some(row) = read_queue_row(&snapshot, queue.incarnation)? else { return Ok(None) };
    let found = snapshot
        .prepare_cached(
            "SELECT renewed_at, ttl_seconds FROM claim
             WHERE queue_id = ?1 AND id = ?2 AND expires_at > ?3",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![row.id, id.to_bytes(), now.as_millis()], |row| {
                    Ok((Timestamp::from_millis(row.get(0)?), seconds(row.get(1)?)))
                })
                .optional()
        })
        .map_err(store_error)?;
    let Some((renewed_at, ttl)) = found else { return Ok(None) };
    let claimed = claimed_messages(&snapshot, &row, id, now)?;
    let messages = claimed.into_iter().map(|stored| stored.message).collect();
    Ok(Some(Claim { id, renewed_at, ttl, messages }))
}

pub(super) fn renew(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: ClaimId,
    terms: ClaimTerms,
    now: Timestamp,
) -> Result<()> {
    let missing = || StoreError::not_found("claim", &id);
    let mut row = tx.queue(queue.incarnation)?.ok_or_else(missing)?;
    let expires_at = now.plus(terms.ttl).as_millis();
    let renewed = execute(
        tx.connection,
        "UPDATE claim SET renewed_at = ?3, ttl_seconds = ?4, expires_at = ?5
         WHERE queue_id = ?1 AND id = ?2 AND expires_at > ?3",
        params![row.id, id.to_bytes(), now.as_millis(), whole_seconds(terms.ttl), expires_at],
    )?;
    if renewed == 0 {
        return Err(missing());
    }
    for mut stored in claimed_messages(tx.connection, &row, id, now)? {
        let message = &mut stored.message;
        set_claim(message, id, terms, now);
        let due_at = now.plus(terms.ttl).min(message.expires_at).as_millis();
        row.record_due(due_at);
        execute(
            tx.connection,
            "UPDATE message_by_state SET due_at = ?4, expires_at = ?5, ttl_seconds = ?6
             WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3",
            params![
                row.id,
                CLAIMED,
                message.id.sequence.get(),
                due_at,
                message.expires_at.as_millis(),
                whole_seconds(message.ttl)
            ],
        )?;
    }
    row.record_due(expires_at);
    tx.save(row);
    Ok(())
}

pub(super) fn release(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: ClaimId,
    now: Timestamp,
) -> Result<()> {
    let Some(mut row) = tx.queue(queue.incarnation)? else { return Ok(()) };
    let released = execute(
        tx.connection,
        "DELETE FROM claim WHERE queue_id = ?1 AND id = ?2 AND expires_at > ?3",
        params![row.id, id.to_bytes(), now.as_millis()],
    )?;
    if released == 0 {
        return Ok(());
    }
    if row.keys > 0 {
        let keyed = select_rows(
            tx,
            concat!(
                "SELECT ",
                message_columns!(message_by_state),
                " FROM message_by_state INDEXED BY message_by_claim
                 WHERE queue_id = ?1 AND claim_id = ?2 AND state = ",
                state!(CLAIMED),
                " AND ordering_key IS NOT NULL"
            ),
            params![row.id, id.to_bytes()],
        )?;
        for message in &keyed {
            requeue(tx, &mut row, message, now, now)?;
        }
    }
    // The messages without a key move in one statement.
    let moved = execute(
        tx.connection,
        concat!(
            "INSERT INTO ready_message (queue_id, sequence, expires_at, visible_at, posted_at,
                 ttl_seconds, claim_count, client, body_id, origin)
             SELECT queue_id, sequence, expires_at, visible_at, posted_at, ttl_seconds,
                 claim_count, client, body_id, origin
             FROM message_by_state INDEXED BY message_by_claim
             WHERE queue_id = ?1 AND claim_id = ?2 AND state = ",
            state!(CLAIMED)
        ),
        params![row.id, id.to_bytes()],
    )?;
    execute(
        tx.connection,
        concat!(
            "DELETE FROM message_by_state INDEXED BY message_by_claim
             WHERE queue_id = ?1 AND claim_id = ?2 AND state = ",
            state!(CLAIMED)
        ),
        params![row.id, id.to_bytes()],
    )?;
    let moved = i64::try_from(moved).unwrap_or(i64::MAX);
    row.claimed -= moved;
    row.ready += moved;
    tx.save(row);
    Ok(())
}
