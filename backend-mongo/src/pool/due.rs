//! Applies what is due: expires messages, ends delays and claims.

use async_trait::async_trait;
use storage_traits::{Result, domain::Timestamp};

use super::{
    bodies::Final,
    bucket::MessageLocation,
    operation::Operation,
    ordering::KeyDelta,
    stored_message::{State, StoredMessage},
    unit_of_work::{MAX_UNIT_MESSAGES, Progress, UnitOfWork},
};

/// The result of one bounded step.
pub(super) struct DueProgress {
    /// Whether nothing is due any more; otherwise the step is to be repeated.
    pub(super) done: bool,
    /// Messages that it removed or made ready.
    pub(super) processed: u64,
}

/// Applies what is due in a group: in one step, or in as many as it takes. Returns `None` if there
/// is no such group.
pub(super) struct ApplyDue {
    pub(super) group_id: i64,
    pub(super) now: Timestamp,
    pub(super) all: bool,
}

#[async_trait]
impl Operation for ApplyDue {
    type Reply = Final<Option<DueProgress>>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        if !unit.has_group(self.group_id) {
            return Ok(Progress::done(None));
        }
        let progress = unit.apply_due(self.group_id, self.now).await?;
        let again = self.all && !progress.done;
        Ok(if again { Progress::Again } else { Progress::done(Some(progress)) })
    }
}

impl UnitOfWork<'_> {
    /// Applies what is due in a group at `now`, up to [`MAX_UNIT_MESSAGES`] messages.
    pub(super) async fn apply_due(&mut self, group_id: i64, now: Timestamp) -> Result<DueProgress> {
        let mut processed = 0;
        if self.group(group_id)?.backfill.is_some() {
            return Ok(DueProgress { done: false, processed: 0 });
        }
        let is_retention_log = self.group(group_id)?.is_retention_log;
        let is_default_group = group_id == self.queue_id;
        let due = self.due_buckets(group_id, now).await?;
        // The next commit deletes empty buckets that were kept because the journal named them.
        let journal = self.base.as_ref().map_or(&[][..], |document| &document.journal);
        let is_named =
            |id| journal.iter().any(|entry| entry.placements.iter().any(|it| it.bucket == id));
        self.dirty |= self.cache.empty_buckets().any(|id| !is_named(id));
        for id in due {
            let Some(bucket) = self.cache.bucket(id) else { continue };
            let due = bucket
                .messages
                .iter()
                .filter(|(_, message)| message.next_transition() <= now.as_millis());
            let due: Vec<(MessageLocation, bool)> = due
                .map(|(offset, message)| (bucket.location(*offset), message.is_expired(now)))
                .collect();
            for (at, is_expired) in due {
                if processed >= MAX_UNIT_MESSAGES as u64 {
                    return Ok(DueProgress { done: false, processed });
                }
                processed += 1;
                if is_retention_log {
                    self.delete_message(at)?;
                } else if is_expired {
                    self.remove_message(at, now).await?;
                    // Expiry in a named group is not counted: the message is the queue's.
                    self.event_counts.expired += u64::from(is_default_group);
                } else {
                    self.make_ready(at, now).await?;
                }
            }
        }
        Ok(DueProgress { done: true, processed })
    }

    /// Removes a message from its group, whatever its state, and updates the counters.
    pub(super) async fn remove_message(
        &mut self,
        at: MessageLocation,
        now: Timestamp,
    ) -> Result<StoredMessage> {
        let message = self.delete_message(at)?;
        let group = self.group(at.group_id)?;
        group.dead_letters -= i64::from(message.origin.is_some());
        match message.state {
            State::Claimed => group.claimed -= 1,
            State::Delayed => group.delayed -= 1,
            State::Ready => group.ready -= 1,
            State::ReadyKeyed | State::Retained => {} // the former are counted with their key
        }
        match &message.key {
            Some(key) if message.state == State::ReadyKeyed => {
                self.update_key(at.group_id, key, KeyDelta::DEQUEUED, now).await?;
            }
            Some(key) if message.is_in_flight() => {
                self.update_key(at.group_id, key, KeyDelta::COMPLETED, now).await?;
            }
            _ => {}
        }
        Ok(message)
    }

    /// Makes a delayed or claimed message ready. It keeps the id of an expired claim until the next
    /// claim takes it.
    pub(super) async fn make_ready(&mut self, at: MessageLocation, now: Timestamp) -> Result<()> {
        let before = self.stored(at)?.clone();
        let message = self.change(at, |message| {
            message.state = message.ready_state();
            message.claim_expires_at = None;
        })?;
        self.record_due(at.group_id, message.next_transition());
        let group = self.group(at.group_id)?;
        match before.state {
            State::Claimed => group.claimed -= 1,
            State::Delayed => group.delayed -= 1,
            _ => {}
        }
        let Some(key) = &message.key else {
            group.ready += 1;
            self.record_claimable(at.group_id, 1);
            return Ok(());
        };
        let by = if before.is_in_flight() { KeyDelta::REQUEUED } else { KeyDelta::ENQUEUED };
        self.update_key(at.group_id, key, by, now).await
    }
}
