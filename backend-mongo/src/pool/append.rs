//! Messages that a unit of work adds to the end of a queue: posts with an ordering key, a
//! deduplication id or retention, and transfers from other queues.

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{ClientId, Deduplication, NewMessage, Posted, Timestamp},
};

use super::{
    bucket::{Bucket, CAPACITY_BYTES, CAPACITY_SPAN},
    operation::Operation,
    ordering::KeyDelta,
    queue_document::GroupState,
    side_documents::{DedupRecord, ttl_after},
    stored_message::{State, StoredMessage, message_id},
    unit_of_work::{NewBucket, Progress, UnitOfWork},
};

/// Posts messages.
pub(super) struct Append {
    pub(super) client: ClientId,
    pub(super) messages: Vec<NewMessage>,
    pub(super) now: Timestamp,
}

#[async_trait]
impl Operation for Append {
    type Reply = Option<Vec<Posted>>;

    const APPENDS: bool = true;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        if !unit.has_group(unit.queue_id) {
            return Ok(Progress::Done(None));
        }
        let ids = unit.incarnation()?;
        let mut posted = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            if let Some(deduplication) = &message.deduplication
                && let Some(first) = find_duplicate(unit, deduplication, self.now).await?
            {
                posted.push(Posted { id: message_id(ids, first)?, duplicate: true });
                continue;
            }
            let stored = StoredMessage::new(&self.client, message, self.now);
            let body = message.body.as_bytes();
            let sequence = append(unit, &stored, body, message.retained, self.now).await?;
            posted.push(Posted { id: message_id(ids, sequence)?, duplicate: false });
        }
        Ok(Progress::Done(Some(posted)))
    }
}

/// Returns the position of the message that was stored with this deduplication id, if its window
/// has not passed. Otherwise opens a window for the message that is stored next.
async fn find_duplicate(
    unit: &mut UnitOfWork<'_>,
    deduplication: &Deduplication,
    now: Timestamp,
) -> Result<Option<i64>> {
    let name = DedupRecord::document_id(unit.queue_id, deduplication.id.as_str());
    let found = unit.dedup_record(&name).await?;
    if let Some(window) = found.filter(|window| window.expires_at > now.as_millis()) {
        return Ok(Some(window.sequence));
    }
    let expires_at = now.plus(deduplication.window).as_millis();
    let window = DedupRecord {
        id: name.clone(),
        queue_id: unit.queue_id,
        sequence: unit.document()?.tail + 1,
        expires_at,
        garbage_at: ttl_after(expires_at),
    };
    unit.dirty = true;
    unit.dedup_records.insert(name.clone());
    unit.cache.dedup_records.insert(name, Some(window));
    Ok(None)
}

/// Adds a message to the queue and all its groups, and to the retention log if it is `retained`.
/// Returns its position.
pub(super) async fn append(
    unit: &mut UnitOfWork<'_>,
    message: &StoredMessage,
    body: &[u8],
    retained: bool,
    now: Timestamp,
) -> Result<i64> {
    let record = unit.document()?;
    record.tail += 1;
    let sequence = record.tail;
    for group_id in record.receiving_groups() {
        append_to_group(unit, group_id, sequence, message, body, now).await?;
    }
    if retained {
        let retention_log = unit.ensure_retention_log()?;
        let kept = StoredMessage { state: State::Retained, ..message.clone() };
        place(unit, retention_log, sequence, kept, body, false);
    }
    Ok(sequence)
}

/// Adds a message to the end of one group.
pub(super) async fn append_to_group(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    sequence: i64,
    message: &StoredMessage,
    body: &[u8],
    now: Timestamp,
) -> Result<()> {
    count_arrival(unit, group_id, message, now).await?;
    place(unit, group_id, sequence, message.clone(), body, false);
    Ok(())
}

/// Counts a message that was added to a group.
pub(super) async fn count_arrival(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    message: &StoredMessage,
    now: Timestamp,
) -> Result<()> {
    unit.dirty = true;
    unit.record_due(group_id, message.next_transition());
    let counters = unit.group(group_id)?;
    counters.dead_letters += i64::from(message.origin.is_some());
    match (message.state, &message.key) {
        (State::Delayed, _) => counters.delayed += 1,
        (State::ReadyKeyed, Some(key)) => {
            unit.update_key(group_id, key, KeyDelta::ENQUEUED, now).await?;
        }
        _ => {
            counters.ready += 1;
            unit.record_claimable(group_id, 1);
        }
    }
    Ok(())
}

/// Adds a message to a bucket that the unit of work creates.
pub(super) fn place(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    sequence: i64,
    message: StoredMessage,
    body: &[u8],
    absolute: bool,
) {
    let queue_id = unit.queue_id;
    let fits = |new: &&mut NewBucket| {
        let bytes: usize = new.bodies.iter().map(Vec::len).sum();
        let offset = sequence - new.bucket.first;
        new.bucket.group_id == group_id
            && new.absolute == absolute
            && offset < CAPACITY_SPAN
            && bytes + body.len() <= CAPACITY_BYTES
            && (absolute || offset == i64::from(new.bucket.span))
    };
    let last = unit.new_buckets.iter_mut().rev().find(|new| new.bucket.group_id == group_id);
    let new = if let Some(new) = last.filter(fits) {
        new
    } else {
        let bucket = Bucket::new(queue_id, group_id, sequence);
        unit.new_buckets.push(NewBucket { bucket, bodies: Vec::new(), absolute });
        let last = unit.new_buckets.len() - 1;
        &mut unit.new_buckets[last]
    };
    let offset = u32::try_from(sequence - new.bucket.first).unwrap_or(0);
    new.bucket.insert(offset, message);
    new.bodies.push(body.to_vec());
    unit.dirty = true;
}

impl UnitOfWork<'_> {
    /// Returns the id of the retention log, which is created with the first retained message.
    fn ensure_retention_log(&mut self) -> Result<i64> {
        let record = self.document()?;
        if let Some(log) = record.retention_log() {
            return Ok(log);
        }
        let log = storage_traits::domain::Incarnation::generate_for_group().get();
        record.groups.insert(
            log.to_string(),
            GroupState { is_retention_log: true, ..GroupState::default() },
        );
        Ok(log)
    }
}
