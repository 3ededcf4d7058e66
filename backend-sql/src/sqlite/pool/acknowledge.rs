//! What consumers say of the messages that their claims hold.

use rusqlite::params;
use storage_traits::{
    Result,
    domain::{AckOutcome, AckResult, Acknowledgement, ClaimId, QueueRef, Timestamp},
};

use super::{
    message::{Target, target},
    rows::{CLAIMED, DELAYED, execute},
    settle::{Place, free, remove},
};
use crate::sqlite::writer::{QueueRow, Tx};

pub(super) fn acknowledge(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    id: ClaimId,
    said: &[Acknowledgement],
    now: Timestamp,
) -> Result<Vec<AckResult>> {
    let Some(mut row) = tx.queue(queue.incarnation)? else {
        return Ok(vec![AckResult::NotHeld; said.len()]);
    };
    let mut answers = Vec::with_capacity(said.len());
    for one in said {
        let found = if one.id.incarnation == row.ids() {
            target(tx, row.id, one.id.sequence.get(), now)?
        } else {
            None
        };
        answers.push(match found {
            Some(Target { place, holder, .. }) if holder == Some(id) => {
                match one.outcome {
                    AckOutcome::Ack => {
                        remove(tx, &mut row, &place)?;
                        row.completed.add(1, now);
                    }
                    AckOutcome::Nack { delay } => {
                        put_back(tx, &mut row, &place, now.plus(delay), now)?;
                    }
                }
                AckResult::Applied
            }
            _ => AckResult::NotHeld,
        });
    }
    tx.put(row);
    Ok(answers)
}

/// Takes a message out of its claim: free at once, or at a later moment.
pub(super) fn put_back(
    tx: &Tx<'_>,
    row: &mut QueueRow,
    place: &Place,
    retry_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    if retry_at <= now {
        execute(
            tx.connection,
            "UPDATE held SET claim = NULL WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
            params![row.id, CLAIMED, place.sequence],
        )?;
        return free(tx, row, place);
    }
    row.claimed -= 1;
    row.delayed += 1;
    // It may expire before, which then is what comes next.
    row.due(retry_at.as_millis());
    execute(
        tx.connection,
        "UPDATE held SET state = ?4, claim = NULL, visible_at = ?5, due_at = min(?5, expires_at)
         WHERE queue = ?1 AND state = ?2 AND sequence = ?3",
        params![row.id, CLAIMED, place.sequence, DELAYED, retry_at.as_millis()],
    )?;
    Ok(())
}
