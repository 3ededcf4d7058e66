use storage_traits::{
    Result,
    domain::{ClaimId, MessageId, QueueRef, Timestamp},
    pool::{DeleteOutcome, DeleteRefusal},
};

use super::{
    enqueue::retained_row,
    lookup::{FoundMessage, is_live, lookup, scheduled_copies},
    rows::own_sequences,
    transitions::remove,
};
use crate::sqlite::{queue_row::QueueRow, transaction::Tx};

/// Deletes a message: an unclaimed one without a claim id, a claimed one with that of its claim.
pub(super) fn delete(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: MessageId,
    claim: Option<ClaimId>,
    now: Timestamp,
) -> Result<DeleteOutcome> {
    let row = tx.queue(queue.incarnation)?;
    let Some(mut row) = row.filter(|row| id.incarnation == row.message_incarnation()) else {
        return Ok(DeleteOutcome::Missing);
    };
    let Some(found) = lookup(tx, row.id, id.sequence.get(), now)? else {
        return Ok(DeleteOutcome::Missing);
    };
    let refusal = match (claim, found.claimed_by) {
        (None, None) => None,
        (None, Some(_)) => Some(DeleteRefusal::Claimed),
        (Some(claim), _) if !is_live(tx, row.id, claim, now)? => Some(DeleteRefusal::UnknownClaim),
        (Some(_), None) => Some(DeleteRefusal::NotClaimed),
        (Some(claim), Some(by)) => (claim != by).then_some(DeleteRefusal::ClaimedByOther),
    };
    if let Some(refusal) = refusal {
        return Ok(DeleteOutcome::Refused(refusal));
    }
    remove_with_copies(tx, &mut row, &found, now)?;
    row.completed.add(1, now);
    tx.save(row);
    Ok(DeleteOutcome::Deleted)
}

/// Deletes messages. Deletes none and returns `None` if one of the claims holds none of them.
pub(super) fn delete_many(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    ids: &[MessageId],
    claims: &[ClaimId],
    now: Timestamp,
) -> Result<Option<u64>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else {
        return Ok(claims.is_empty().then_some(0));
    };
    let mut found = Vec::with_capacity(ids.len());
    for sequence in own_sequences(&row, ids) {
        found.extend(lookup(tx, row.id, sequence, now)?);
    }
    let holds = |claim: &ClaimId| found.iter().any(|message| message.claimed_by == Some(*claim));
    if !claims.iter().all(holds) {
        return Ok(None);
    }
    found.sort_by_key(|message| message.row.sequence);
    found.dedup_by_key(|message| message.row.sequence);
    for message in &found {
        remove_with_copies(tx, &mut row, message, now)?;
    }
    row.completed.add(found.len() as u64, now);
    tx.save(row);
    Ok(Some(found.len() as u64))
}

/// Removes a message. If no consumer has seen it yet, removes its copies in the groups and in the
/// retention log too.
fn remove_with_copies(
    tx: &mut Tx<'_>,
    queue: &mut QueueRow,
    found: &FoundMessage,
    now: Timestamp,
) -> Result<()> {
    for (mut group, copy) in scheduled_copies(tx, queue, found, now)? {
        remove(tx, &mut group, &copy)?;
        tx.save(group);
    }
    if found.is_scheduled
        && let Some((mut log, copy)) = retained_row(tx, queue, found.row.sequence)?
    {
        remove(tx, &mut log, &copy)?;
    }
    remove(tx, queue, &found.row)
}
