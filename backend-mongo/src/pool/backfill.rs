//! Copies the messages that a new group starts with from its queue.

use async_trait::async_trait;
use mongodb::bson::oid::ObjectId;
use storage_traits::{Result, domain::Timestamp};

use super::{
    append::{count_arrival, place},
    bodies::{Final, load_bodies},
    loading::Scan,
    operation::Operation,
    queue_document::Backfill,
    stored_message::StoredMessage,
    unit_of_work::{MAX_UNIT_MESSAGES, Progress, UnitOfWork},
};
use crate::error::unexpected;

/// How many buckets of each source are loaded at a time.
const BACKFILL_BUCKETS: usize = 8;

/// Does one bounded step of the backfill of a group.
pub(super) struct BackfillOp {
    pub(super) group_id: i64,
    pub(super) now: Timestamp,
}

#[async_trait]
impl Operation for BackfillOp {
    type Reply = Final<()>;

    const APPENDS: bool = true;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, now } = *self;
        if !unit.has_group(group_id) {
            return Ok(Progress::done(()));
        }
        let Some(backfill) = unit.group(group_id)?.backfill else { return Ok(Progress::done(())) };
        if unit.first_missing.is_some_and(|missing| missing <= backfill.up_to) {
            return Ok(Progress::Again);
        }
        let sources: Vec<i64> =
            [Some(unit.queue_id), unit.document()?.retention_log()].into_iter().flatten().collect();
        let mut known = backfill.up_to;
        if backfill.after < backfill.up_to {
            for source in &sources {
                let loaded =
                    unit.load_after(*source, backfill.after, Scan::All, BACKFILL_BUCKETS).await?;
                known = known.min(loaded);
            }
        }
        // A message that is both in the queue and in the retention log is copied from the queue.
        let mut found: Vec<(i64, (ObjectId, u32), StoredMessage)> = Vec::new();
        for source in &sources {
            for bucket in unit.cache.buckets_after(*source, backfill.after) {
                for (offset, message) in &bucket.messages {
                    let sequence = bucket.sequence(*offset);
                    if sequence > backfill.after && sequence <= known {
                        found.push((sequence, (bucket.id, *offset), message.clone()));
                    }
                }
            }
        }
        found.sort_by_key(|(sequence, ..)| *sequence);
        found.dedup_by_key(|(sequence, ..)| *sequence);
        if found.len() > MAX_UNIT_MESSAGES {
            found.truncate(MAX_UNIT_MESSAGES);
            known = found.last().map_or(known, |(sequence, ..)| *sequence);
        }
        found.retain(|(_, _, message)| {
            !message.is_expired(now) && message.posted_at >= backfill.since
        });
        let wanted: Vec<_> = found.iter().map(|(_, body, _)| *body).collect();
        let bodies = load_bodies(&unit.collections, &wanted).await?;
        for (sequence, body, message) in found {
            let body = bodies.get(&body).ok_or_else(|| unexpected("a body is missing"))?;
            let copy = reset_delivery_state(message, now);
            count_arrival(unit, group_id, &copy, now).await?;
            place(unit, group_id, sequence, copy, body, true);
        }
        let is_done = known >= backfill.up_to;
        let rest = Backfill { after: known, ..backfill };
        unit.group(group_id)?.backfill = (!is_done).then_some(rest);
        unit.dirty = true;
        Ok(if is_done { Progress::done(()) } else { Progress::Again })
    }
}

/// Returns a copy of a message that was never claimed. One that waits for a retry in the queue is
/// visible in the new group.
fn reset_delivery_state(message: StoredMessage, now: Timestamp) -> StoredMessage {
    let was_claimed = message.claim_count > 0;
    let mut copy = StoredMessage { claim_expires_at: None, claim_count: 0, ..message };
    copy.set_claim(None);
    if was_claimed {
        copy.set_visible_at(copy.posted_at);
    }
    copy.state = copy.initial_state(now);
    copy
}
