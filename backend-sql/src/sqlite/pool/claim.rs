//! The claim store, and how a claim takes messages.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::params;
use storage_traits::{
    Limit, Result, StoreError,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Message, Origin,
        QueueRef, Timestamp,
    },
    pool::ClaimStore,
};

use super::{
    acknowledge::acknowledge,
    claim_lifecycle::{get_claim, release, renew, set_claim},
    claim_source::next_source,
    dead_letter::move_to_dead_letter_queue,
    due::up_to_date_row,
    pop::pop,
    progress::{MAX_STEP_ROWS, Progress},
    rows::{CLAIMED, StoredMessage, execute, whole_seconds},
    transitions::delete_row,
};
use crate::sqlite::{error::unexpected, queue_row::QueueRow, store::Sqlite, transaction::Tx};

#[async_trait]
impl ClaimStore for Sqlite {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let (queue, spec) = (queue.clone(), spec.clone());
        self.write_until_done(move |tx| claim(tx, &queue, &spec, now)).await
    }

    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let queue = queue.clone();
        self.file.read(move |connection| get_claim(connection, &queue, id, now)).await
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        let queue = queue.clone();
        self.file.write(move |tx| renew(tx, &queue, id, terms, now)).await
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        let queue = queue.clone();
        self.file.write(move |tx| release(tx, &queue, id, now)).await
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let queue = queue.clone();
        let acknowledgements: Arc<[Acknowledgement]> = acknowledgements.into();
        self.file.write(move |tx| acknowledge(tx, &queue, id, &acknowledgements, now)).await
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let queue = queue.clone();
        self.write_until_done(move |tx| pop(tx, &queue, limit, now)).await
    }
}

fn claim(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    spec: &ClaimSpec,
    now: Timestamp,
) -> Result<Progress<Option<Claim>>> {
    let mut row = match up_to_date_row(tx, queue, now)? {
        None => return Ok(Progress::Done(None)),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    // A queue cannot be its own dead-letter queue, nor that of its groups.
    let own = [row.incarnation, row.message_incarnation()];
    let rule = spec.dead_letter.as_ref().filter(|rule| !own.contains(&rule.queue.incarnation));
    if let Some(rule) = rule
        && tx.queue(rule.queue.incarnation)?.is_none()
    {
        return Err(StoreError::not_found("queue", &rule.queue.key));
    }
    let mut claimed = Vec::new();
    let (mut moved, mut after) = (0, 0);
    while claimed.len() < spec.limit.get() {
        let Some(source) = next_source(tx, &row, after)? else { break };
        let messages = source.messages(tx, &row, after, spec.limit.get() - claimed.len())?;
        let before = (claimed.len(), moved);
        for mut stored in messages {
            after = if source.is_keyed() { after } else { stored.sequence() };
            let dead = rule.filter(|rule| stored.message.claim_count >= rule.max_claim_count);
            if let Some(rule) = dead {
                moved += move_to_dead_letter_queue(tx, &mut row, &stored, rule, now)?;
                tx.events.dead_lettered += 1;
            } else {
                take(tx, &mut row, &mut stored, spec, now)?;
                claimed.push(stored.message);
            }
        }
        if before == (claimed.len(), moved) {
            // The counters promise a message in this source, but it has none.
            return Err(unexpected("the queue's counters are wrong"));
        }
        source.finish_claim(tx, &mut row, claimed.len() - before.0)?;
        if moved >= MAX_STEP_ROWS {
            tx.save(row);
            if claimed.is_empty() {
                return Ok(Progress::Again);
            }
            break;
        }
    }
    tx.save(row);
    claimed.sort_by_key(|message| message.id);
    if claimed.is_empty() {
        return Ok(Progress::Done(None));
    }
    let expires_at = now.plus(spec.terms.ttl).as_millis();
    execute(
        tx.connection,
        "INSERT INTO claim (queue_id, id, renewed_at, ttl_seconds, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            row.id,
            spec.id.to_bytes(),
            now.as_millis(),
            whole_seconds(spec.terms.ttl),
            expires_at
        ],
    )?;
    row.record_due(expires_at);
    tx.save(row);
    let (id, ttl) = (spec.id, spec.terms.ttl);
    Ok(Progress::Done(Some(Claim { id, renewed_at: now, ttl, messages: claimed })))
}

/// Adds a ready message to the claim.
fn take(
    tx: &Tx<'_>,
    queue: &mut QueueRow,
    stored: &mut StoredMessage,
    spec: &ClaimSpec,
    now: Timestamp,
) -> Result<()> {
    let row = stored.row();
    let message = &mut stored.message;
    set_claim(message, spec.id, spec.terms, now);
    message.claim_count = message.claim_count.saturating_add(1);
    queue.claimed += 1;
    let due_at = now.plus(spec.terms.ttl).min(message.expires_at).as_millis();
    queue.record_due(due_at);
    if row.ordering_key.is_some() {
        execute(
            tx.connection,
            "UPDATE message_by_state SET state = ?4, due_at = ?5, expires_at = ?6,
                 ttl_seconds = ?7, claim_id = ?8, claim_count = ?9
             WHERE queue_id = ?1 AND state = ?2 AND sequence = ?3",
            params![
                queue.id,
                row.state,
                row.sequence,
                CLAIMED,
                due_at,
                message.expires_at.as_millis(),
                whole_seconds(message.ttl),
                spec.id.to_bytes(),
                message.claim_count,
            ],
        )?;
        return Ok(());
    }
    queue.ready -= 1;
    delete_row(tx, queue.id, &row)?;
    execute(
        tx.connection,
        "INSERT INTO message_by_state (queue_id, state, sequence, due_at, expires_at, visible_at,
             posted_at, ttl_seconds, claim_id, claim_count, client, body_id, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            queue.id,
            CLAIMED,
            row.sequence,
            due_at,
            message.expires_at.as_millis(),
            message.visible_at.as_millis(),
            message.posted_at.as_millis(),
            whole_seconds(message.ttl),
            spec.id.to_bytes(),
            message.claim_count,
            message.client.as_str(),
            row.body_id,
            message.origin.as_ref().map(Origin::to_text),
        ],
    )?;
    Ok(())
}
