use storage_traits::{
    Limit, Result,
    domain::{Message, QueueRef, Timestamp},
};

use super::{
    claim_source::next_source, due::up_to_date_row, progress::Progress, transitions::remove,
};
use crate::sqlite::{error::unexpected, transaction::Tx};

/// Removes up to `limit` claimable messages and returns them.
pub(super) fn pop(
    tx: &mut Tx<'_>,
    queue: &QueueRef,
    limit: Limit,
    now: Timestamp,
) -> Result<Progress<Vec<Message>>> {
    let mut row = match up_to_date_row(tx, queue, now)? {
        None => return Ok(Progress::Done(Vec::new())),
        Some(Progress::Again) => return Ok(Progress::Again),
        Some(Progress::Done(row)) => row,
    };
    let mut popped: Vec<Message> = Vec::new();
    let mut after = 0;
    while popped.len() < limit.get() {
        let Some(source) = next_source(tx, &row, after)? else { break };
        let messages = source.messages(tx, &row, after, limit.get() - popped.len())?;
        if messages.is_empty() {
            // The counters promise a message in this source, but it has none.
            return Err(unexpected("the queue's counters are wrong"));
        }
        for stored in &messages {
            after = if source.is_keyed() { after } else { stored.sequence() };
            remove(tx, &mut row, &stored.row())?;
        }
        row.completed.add(messages.len() as u64, now);
        popped.extend(messages.into_iter().map(|stored| stored.message));
        source.finish_pop(tx, &mut row)?;
    }
    tx.save(row);
    popped.sort_by_key(|message| message.id);
    Ok(Progress::Done(popped))
}
