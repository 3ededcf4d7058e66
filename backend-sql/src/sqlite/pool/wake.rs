//! Waiting for a queue to have something.

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{Incarnation, QueueRef, Timestamp},
    pool::{Watch, WatchFor, Watchable},
};

use super::settle::settle;
use crate::sqlite::{
    Sqlite,
    writer::{Tx, read_queue_row},
};

#[async_trait]
impl Watchable for Sqlite {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let (alarm, queue) = (self.file.alarm(), queue.incarnation);
        let watch = alarm.registry.watch(queue, what);
        alarm.synchronize(now);
        let row = self.file.read(move |connection| read_queue_row(connection, queue)).await?;
        if let Some(row) = row {
            if row.claimable() > 0 || row.is_due(now) {
                alarm.registry.notify_claimable(queue, 1);
            }
            alarm.lower(queue, row.next_due);
        } else {
            alarm.registry.notify_all(queue);
        }
        Ok(watch)
    }
}

/// Does some of what is due in a queue; answers when it has to be done again, or `None` if the
/// queue is gone.
pub(in crate::sqlite) fn settle_until(
    tx: &mut Tx<'_>,
    queue: Incarnation,
    now: Timestamp,
) -> Result<Option<i64>> {
    let Some(mut row) = tx.queue(queue)? else { return Ok(None) };
    settle(tx, &mut row, now)?;
    Ok(Some(row.next_due))
}
