//! Dead letters: moving messages to a dead-letter queue and back. See `lua/redrive.lua`.

use std::time::Duration;

use async_trait::async_trait;
use storage_traits::{
    Result, StoreError,
    domain::{
        DeadLetter, GroupName, Incarnation, Message, OrderingKey, Origin, QueueRef, Timestamp,
    },
    pool::{DeadLetterStore, RedriveSpec, Redriven},
    support::RedriveSchedule,
};

use super::{
    codec::{Header, limit_of, millis, read_messages},
    queue_cache::ResolvedQueue,
    redis_pool::Redis,
};
use crate::{
    error::unexpected,
    library::constants::{TRANSFER_MOVED, TRANSFER_ORPHANED, TRANSFER_REJECTED},
    server::Replication,
};

/// How long a queue keeps the ids of transfers to it, unless the source confirms them earlier.
const TRANSFER_ID_TTL: Duration = Duration::from_hours(24);

/// How a transfer ended for messages.
#[derive(Clone, Copy)]
enum TransferOutcome {
    /// They are stored at the destination.
    Moved,
    /// They stay, because the destination does not exist.
    Rejected,
    /// They stay, because their origin does not exist, and are dead letters no longer.
    Orphaned,
}

/// Where messages are moved to.
struct Destination<'d> {
    queue: &'d QueueRef,
    /// Only this group of the queue.
    group: Option<&'d GroupName>,
    /// The queue and all its groups.
    is_for_all_groups: bool,
}

/// Returns the id by which the destination recognizes a message that it already has.
fn transfer_id(from: Incarnation, message: &Message) -> String {
    format!("{} {}", from.get(), message.id.sequence.get())
}

impl Redis {
    /// Moves reserved messages to a dead-letter queue.
    pub(super) async fn move_to_dead_letter_queue(
        &self,
        queue: &QueueRef,
        resolved: &ResolvedQueue,
        rule: &DeadLetter,
        messages: Vec<Message>,
        now: Timestamp,
    ) -> Result<()> {
        let origin =
            |ttl| Origin { queue: resolved.queue, group: resolved.group.clone(), ttl }.to_text();
        let write = |message: &Message| {
            let ttl = rule.ttl.unwrap_or(message.ttl);
            Header {
                posted_at: now,
                visible_at: now,
                expires_at: now.plus(ttl),
                ttl,
                key: message.ordering_key.as_ref().map(OrderingKey::as_str),
                client: message.client.as_str(),
                checksum: message.checksum.as_deref(),
                origin: Some(&origin(message.ttl)),
                retained: rule.retained,
            }
            .write(&message.body)
        };
        let transfer = |message| (transfer_id(queue.incarnation, message), write(message));
        let transfers: Vec<_> = messages.iter().map(transfer).collect();
        let destination = Destination { queue: &rule.queue, group: None, is_for_all_groups: true };
        if !self.accept_transfer(&destination, &transfers, now).await? {
            let rejected = TransferOutcome::Rejected;
            self.finish_transfer(queue, rejected, messages.iter(), None, now).await?;
            return Err(unknown_dead_letter_queue(Some(rule)));
        }
        self.finish_transfer(queue, TransferOutcome::Moved, messages.iter(), None, now).await?;
        self.counters.add_dead_lettered(messages.len() as u64);
        self.forget_transfer_ids(&rule.queue, transfers.iter().map(|(id, _)| id)).await
    }

    /// Stores messages, given with their transfer ids, at their destination. Returns `false` if the
    /// destination does not exist.
    async fn accept_transfer(
        &self,
        destination: &Destination<'_>,
        transfers: &[(String, Vec<u8>)],
        now: Timestamp,
    ) -> Result<bool> {
        let mut function = self.function("accept_transfer", destination.queue);
        function.number(millis(now)).number(millis(now.plus(TRANSFER_ID_TTL)));
        function.bytes(destination.group.map_or("", GroupName::as_str));
        function.number(i64::from(destination.is_for_all_groups));
        for (id, message) in transfers {
            function.bytes(id).bytes(message);
        }
        let reply = self.call(destination.queue, Replication::Wait, &function).await?;
        Ok(!reply.is_nil())
    }

    /// Ends a transfer at the source. With `next_redrive`, replaces the first value, if it is still
    /// the queue's next redrive time, by the second.
    async fn finish_transfer<'m>(
        &self,
        queue: &QueueRef,
        outcome: TransferOutcome,
        messages: impl Iterator<Item = &'m Message> + Send,
        next_redrive: Option<(Timestamp, Timestamp)>,
        now: Timestamp,
    ) -> Result<()> {
        let mut function = self.function("finish_transfer", queue);
        function.number(millis(now)).bytes(match outcome {
            TransferOutcome::Moved => TRANSFER_MOVED,
            TransferOutcome::Rejected => TRANSFER_REJECTED,
            TransferOutcome::Orphaned => TRANSFER_ORPHANED,
        });
        match next_redrive {
            Some((expected, next)) => function.number(millis(expected)).number(millis(next)),
            None => function.bytes("").bytes(""),
        };
        for message in messages {
            function.number(message.id.sequence.get());
        }
        self.apply_due_and_call(queue, Replication::Wait, &function).await.map(drop)
    }

    /// Lets the destination of a transfer forget its ids, once the source has removed the messages.
    async fn forget_transfer_ids(
        &self,
        queue: &QueueRef,
        ids: impl Iterator<Item = &String> + Send,
    ) -> Result<()> {
        let mut function = self.function("forget_transfer_ids", queue);
        for id in ids {
            function.bytes(id);
        }
        self.call(queue, Replication::Skip, &function).await.map(drop)
    }
}

#[async_trait]
impl DeadLetterStore for Redis {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let mut done = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        let Some(resolved) = self.resolve(queue).await? else { return Ok(done) };
        let mut function = self.function("reserve_dead_letters", queue);
        function.number(millis(now)).number(limit_of(spec.limit));
        match spec.rate {
            Some(rate) => function.number(i64::from(rate.get())),
            None => function.bytes(""),
        };
        let reply = self.apply_due_and_call(queue, Replication::Wait, &function).await?;
        let Some(mut reply) = reply else { return Ok(done) };
        done.more = reply.number()? == 1;
        let next_free = Timestamp::from_millis(reply.number()?);
        let reserved = Timestamp::from_millis(reply.number()?);
        let messages = read_messages(resolved.queue, &mut reply)?;
        if messages.is_empty() {
            return Ok(done);
        }
        let schedule = RedriveSchedule::new(spec.rate, next_free, now);
        let (mut moved, mut orphaned) = (Vec::new(), Vec::new());
        // Consecutive messages with one origin share a transfer.
        for chunk in messages.chunk_by(have_one_origin) {
            let start = moved.len() as u64;
            if self.move_back(queue, chunk, &schedule, start, now).await? {
                moved.extend(chunk);
            } else {
                orphaned.extend(chunk);
            }
        }
        done.moved = moved.len() as u64;
        done.orphaned = orphaned.len() as u64;
        if done.moved > 0 {
            done.last_visible_at = schedule.visible_at(done.moved - 1);
        }
        let correction = Some((reserved, schedule.next_free(done.moved, next_free)));
        if !orphaned.is_empty() {
            let (outcome, orphaned) = (TransferOutcome::Orphaned, orphaned.iter().copied());
            self.finish_transfer(queue, outcome, orphaned, correction, now).await?;
        }
        if !moved.is_empty() {
            let outcome = TransferOutcome::Moved;
            self.finish_transfer(queue, outcome, moved.iter().copied(), None, now).await?;
            for chunk in moved.chunk_by(|a, b| have_one_origin(a, b)) {
                let Some(origin) = &chunk[0].origin else { continue };
                let destination = QueueRef { incarnation: origin.queue, ..queue.clone() };
                let ids: Vec<_> =
                    chunk.iter().map(|message| transfer_id(queue.incarnation, message)).collect();
                self.forget_transfer_ids(&destination, ids.iter()).await?;
            }
        }
        Ok(done)
    }
}

impl Redis {
    /// Moves messages with one origin back to it. Returns `false` if it does not exist. `start` is
    /// the number of messages that the redrive has moved before.
    async fn move_back(
        &self,
        from: &QueueRef,
        messages: &[Message],
        schedule: &RedriveSchedule,
        start: u64,
        now: Timestamp,
    ) -> Result<bool> {
        let Some(origin) = &messages[0].origin else { return Ok(false) };
        // The incarnation identifies the queue; project and name are only for error texts.
        let queue = QueueRef { incarnation: origin.queue, ..from.clone() };
        let transfers: Result<Vec<_>> = (start..)
            .zip(messages)
            .map(|(n, message)| {
                let origin = message.origin.as_ref();
                let origin = origin.ok_or_else(|| unexpected("a dead letter has no origin"))?;
                let visible_at = schedule.visible_at(n);
                let header = Header {
                    posted_at: now,
                    visible_at,
                    expires_at: visible_at.plus(origin.ttl),
                    ttl: origin.ttl,
                    key: message.ordering_key.as_ref().map(OrderingKey::as_str),
                    client: message.client.as_str(),
                    checksum: message.checksum.as_deref(),
                    origin: None,
                    retained: false,
                };
                Ok((transfer_id(from.incarnation, message), header.write(&message.body)))
            })
            .collect();
        let group = origin.group.as_ref();
        let destination = Destination { queue: &queue, group, is_for_all_groups: false };
        self.accept_transfer(&destination, &transfers?, now).await
    }
}

/// Returns whether two messages come from the same queue or group.
fn have_one_origin(a: &Message, b: &Message) -> bool {
    match (&a.origin, &b.origin) {
        (Some(a), Some(b)) => (a.queue, &a.group) == (b.queue, &b.group),
        _ => false,
    }
}

/// Returns the error for a claim whose dead-letter queue does not exist.
pub(super) fn unknown_dead_letter_queue(rule: Option<&DeadLetter>) -> StoreError {
    match rule {
        Some(rule) => StoreError::not_found("queue", &rule.queue.key),
        None => unexpected("redis misses the dead-letter queue of a claim that has none"),
    }
}
