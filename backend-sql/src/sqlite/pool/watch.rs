use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{QueueRef, Timestamp},
    pool::{Watch, WatchFor, Watchable},
};

use crate::sqlite::{queue_row::read_queue_row, store::Sqlite};

#[async_trait]
impl Watchable for Sqlite {
    async fn watch(&self, queue: &QueueRef, what: WatchFor, now: Timestamp) -> Result<Watch> {
        let (timer, queue) = (self.file.timer(), queue.incarnation);
        // The watch comes before the read: a commit between the two notifies it.
        let watch = timer.watch(queue, what, now);
        let row = self.file.read(move |connection| read_queue_row(connection, queue)).await?;
        if let Some(row) = row {
            if row.claimable() > 0 || row.is_due(now) {
                timer.registry().notify_claimable(queue, 1);
            }
            timer.schedule_no_later_than(queue, Timestamp::from_millis(row.next_due));
        } else {
            timer.registry().notify_all(queue);
        }
        Ok(watch)
    }
}
