//! Background work, in bounded steps: applies what is due in queues without callers, deletes data
//! of dropped queues (`garbage.rs`), and recovers the work of crashed nodes (`recovery.rs`).

use std::collections::BTreeSet;

use mongodb::bson::{RawDocumentBuf, doc, oid::ObjectId};
use storage_traits::{Result, domain::Timestamp, pool::Swept};

use super::{
    MongoPool,
    collections::Query,
    due::ApplyDue,
    indexes::{BUCKETS, BY_TIME, GARBAGE},
    unit_of_work::MAX_UNIT_MESSAGES,
};

/// How many groups one sweep visits at most.
const MAX_GROUPS: usize = 64;
/// How many messages one sweep processes at most, more or less.
const MAX_PROCESSED: u64 = MAX_UNIT_MESSAGES as u64;

impl MongoPool {
    /// Does some of the work of each kind. A failure of one kind does not keep the others from
    /// being done.
    pub(super) async fn run_sweep(&self, now: Timestamp) -> Result<Swept> {
        self.0.ready().await?;
        // The queries below read the documents, so what this node committed has to be applied.
        self.0.flush_all().await;
        let mut swept = Swept::default();
        let mut failed = self.collect_garbage(now, &mut swept).await.err();
        if swept.processed < MAX_PROCESSED {
            failed = self.deliver_pending_transfers(now, &mut swept).await.err().or(failed);
        }
        if swept.processed < MAX_PROCESSED {
            failed = self.apply_due_groups(now, &mut swept).await.err().or(failed);
        }
        if swept.processed < MAX_PROCESSED {
            failed = self.recover_unplaced_buckets(now, &mut swept).await.err().or(failed);
        }
        match failed {
            Some(error) if swept.processed == 0 => Err(error),
            Some(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a part of the sweep failed; will retry");
                Ok(swept)
            }
            None => Ok(swept),
        }
    }

    /// Returns documents of a collection that are due, without the messages in them.
    pub(super) async fn due_documents(
        &self,
        name: &'static str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<RawDocumentBuf>> {
        let filter = doc! { "due": { "$lte": now.as_millis() } };
        let query = Query { filter, sort: Some(doc! { "due": 1 }), index: BY_TIME, limit };
        let fields = Some(doc! { "messages": 0, "bodies": 0 });
        self.0.collections.find_projected(name, query, fields).await
    }

    /// Applies what is due in some groups.
    async fn apply_due_groups(&self, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let filter = doc! { "due": { "$lte": now.as_millis() }, "group_id": { "$exists": true } };
        let sort = Some(doc! { "due": 1 });
        let query = Query { filter, sort, index: BY_TIME, limit: MAX_GROUPS };
        let fields = Some(doc! { "queue_id": 1, "group_id": 1 });
        let due = self.0.collections.find_projected(BUCKETS, query, fields).await?;
        let full = due.len() == MAX_GROUPS;
        let number = |raw: &RawDocumentBuf, name| raw.get_i64(name).ok();
        let groups: BTreeSet<(i64, i64)> = due
            .iter()
            .filter_map(|raw| Some((number(raw, "queue_id")?, number(raw, "group_id")?)))
            .collect();
        let (mut done, mut failed) = (true, None);
        for (queue_id, group_id) in groups {
            match self.0.run(queue_id, ApplyDue { group_id, now, all: false }).await {
                Ok(Some(progress)) => {
                    self.0.flush(queue_id).await;
                    swept.processed += progress.processed;
                    done &= progress.done;
                }
                // The bucket was inserted while the group was being deleted.
                Ok(None) => {
                    let garbage = doc! {
                        "_id": ObjectId::new(), "queue_id": queue_id, "group_id": group_id,
                        "due": 0_i64,
                    };
                    self.0.collections.insert(GARBAGE, &[garbage], false).await?;
                    swept.processed += 1;
                    done = false;
                }
                Err(error) => failed = Some(error),
            }
            if swept.processed >= MAX_PROCESSED {
                swept.more = true;
                return failed.map_or(Ok(()), Err);
            }
        }
        swept.more |= swept.processed > 0 && (!done || full);
        failed.map_or(Ok(()), Err)
    }
}
