use storage_traits::{
    Result,
    domain::{AckOutcome, AckResult, Acknowledgement, ClaimId, QueueRef, Timestamp},
};

use super::{
    lookup::{FoundMessage, lookup},
    transitions::{remove, requeue},
};
use crate::sqlite::transaction::Tx;

/// Applies acknowledgements of messages that a claim holds. Returns a result for each, in order.
pub(super) fn acknowledge(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: ClaimId,
    acknowledgements: &[Acknowledgement],
    now: Timestamp,
) -> Result<Vec<AckResult>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else {
        return Ok(vec![AckResult::NotHeld; acknowledgements.len()]);
    };
    let mut results = Vec::with_capacity(acknowledgements.len());
    for acknowledgement in acknowledgements {
        let message = acknowledgement.id;
        let found = if message.incarnation == row.message_incarnation() {
            lookup(tx, row.id, message.sequence.get(), now)?
        } else {
            None
        };
        results.push(match found {
            Some(FoundMessage { row: message, claimed_by, .. }) if claimed_by == Some(id) => {
                match acknowledgement.outcome {
                    AckOutcome::Ack => {
                        remove(tx, &mut row, &message)?;
                        row.completed.add(1, now);
                    }
                    AckOutcome::Nack { delay } => {
                        requeue(tx, &mut row, &message, now.plus(delay), now)?;
                    }
                }
                AckResult::Applied
            }
            _ => AckResult::NotHeld,
        });
    }
    tx.save(row);
    Ok(results)
}
