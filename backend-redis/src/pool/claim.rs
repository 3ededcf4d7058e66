//! Claims, acknowledgements and pops.

use async_trait::async_trait;
use redis::Cmd;
use storage_traits::{
    Limit, Result, StoreError,
    domain::{
        AckOutcome, AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, Message,
        QueueRef, Timestamp,
    },
    pool::ClaimStore,
};

use super::{
    codec::{
        claim_posted, limit_of, millis, position, read_entries, read_message, read_messages,
        seconds,
    },
    queue_cache::ResolvedQueue,
    redis_pool::Redis,
    redrive::unknown_dead_letter_queue,
};
use crate::{
    keys::shard_of,
    library::constants::{STATUS_AGAIN, STATUS_UNKNOWN},
    server::{Function, Replication},
};

#[async_trait]
impl ClaimStore for Redis {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let Some(resolved) = self.resolve(queue).await? else { return Ok(None) };
        let function = self.claim_function(queue, spec, now).await?;
        loop {
            let mut reply = self.call(queue, Replication::Wait, &function).await?;
            let status = reply.number()?;
            self.counters.add_expired(reply.count()?);
            if status == STATUS_UNKNOWN {
                return Err(unknown_dead_letter_queue(spec.dead_letter.as_ref()));
            }
            let mut messages = Vec::new();
            let (count, first, last) = (reply.count()?, reply.number()?, reply.number()?);
            for _ in 0..count {
                messages.push(read_message(resolved.queue, &mut reply)?);
            }
            if first > 0 {
                messages = self.read_claimed(queue, spec.id, first, last).await?;
            }
            let dead_letters = read_messages(resolved.queue, &mut reply)?;
            self.dead_letter_all(queue, &resolved, spec, dead_letters, messages.is_empty(), now)
                .await?;
            if status == STATUS_AGAIN {
                continue;
            }
            if messages.is_empty() {
                return Ok(None);
            }
            return Ok(Some(Claim { id: spec.id, renewed_at: now, ttl: spec.terms.ttl, messages }));
        }
    }

    async fn get_claim(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let Some(resolved) = self.resolve(queue).await? else { return Ok(None) };
        let mut function = self.function("get_claim", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        let reply = self.apply_due_and_call(queue, Replication::Skip, &function).await?;
        let Some(mut reply) = reply else { return Ok(None) };
        Ok(Some(Claim {
            id,
            renewed_at: Timestamp::from_millis(reply.number()?),
            ttl: std::time::Duration::from_secs(reply.count()?),
            messages: read_messages(resolved.queue, &mut reply)?,
        }))
    }

    async fn renew(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        terms: ClaimTerms,
        now: Timestamp,
    ) -> Result<()> {
        let mut function = self.function("renew", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        function.number(seconds(terms.ttl)).number(seconds(terms.grace));
        match self.apply_due_and_call(queue, Replication::Wait, &function).await? {
            Some(_) => Ok(()),
            None => Err(StoreError::not_found("claim", &id)),
        }
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        let mut function = self.function("release", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        self.apply_due_and_call(queue, Replication::Wait, &function).await.map(drop)
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let not_held = || vec![AckResult::NotHeld; acknowledgements.len()];
        let Some(resolved) = self.resolve(queue).await? else { return Ok(not_held()) };
        let mut function = self.function("acknowledge", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        for acknowledgement in acknowledgements {
            // No message has sequence 0.
            let own = acknowledgement.id.incarnation == resolved.queue;
            function.number(if own { position(acknowledgement.id.sequence) } else { 0 });
            match acknowledgement.outcome {
                AckOutcome::Ack => function.bytes(""),
                AckOutcome::Nack { delay } => function.number(millis(now.plus(delay))),
            };
        }
        let reply = self.apply_due_and_call(queue, Replication::Wait, &function).await?;
        let Some(mut reply) = reply else { return Ok(not_held()) };
        let mut results = Vec::with_capacity(acknowledgements.len());
        while !reply.is_empty() {
            let is_applied = reply.number()? == 1;
            results.push(if is_applied { AckResult::Applied } else { AckResult::NotHeld });
        }
        Ok(results)
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let Some(resolved) = self.resolve(queue).await? else { return Ok(Vec::new()) };
        let mut function = self.function("pop", queue);
        function.number(millis(now)).number(limit_of(limit));
        match self.apply_due_and_call(queue, Replication::Wait, &function).await? {
            Some(mut reply) => read_messages(resolved.queue, &mut reply),
            None => Ok(Vec::new()),
        }
    }
}

impl Redis {
    /// Reads the messages that a claim has just taken as they were posted: reading the stream
    /// directly is much faster than through a function. Messages that are deleted meanwhile are
    /// left out.
    async fn read_claimed(
        &self,
        queue: &QueueRef,
        claim: ClaimId,
        first: i64,
        last: i64,
    ) -> Result<Vec<Message>> {
        let mut range = Cmd::new();
        range
            .arg("XRANGE")
            .arg(self.servers.keys.messages_1(queue.incarnation))
            .arg(first)
            .arg(last);
        let shard = shard_of(queue.incarnation);
        let entries = self.servers.command(shard, Replication::Skip, &range).await?;
        let mut messages = read_entries(queue.incarnation, entries)?;
        for message in &mut messages {
            claim_posted(message, claim);
        }
        Ok(messages)
    }

    async fn claim_function(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Function> {
        let own = self.key(queue.incarnation);
        let shard = shard_of(queue.incarnation);
        let (registry, guard) = (self.servers.keys.registry(shard), self.servers.keys.guard(shard));
        let target = spec.dead_letter.as_ref().map(|rule| self.key(rule.queue.incarnation));
        let mut keys = vec![own.as_str(), &registry, &guard];
        if let (Some(rule), Some(target)) = (&spec.dead_letter, &target) {
            let same_slot = shard_of(rule.queue.incarnation) == shard;
            if self.servers.is_one_server() || same_slot {
                // The function checks that the dead-letter queue exists.
                keys.push(target);
            } else if !self.is_open(&rule.queue).await? {
                return Err(unknown_dead_letter_queue(Some(rule)));
            }
        }
        let mut function = Function::new("claim", &keys);
        function.number(millis(now)).bytes(spec.id.to_bytes());
        function.number(seconds(spec.terms.ttl)).number(seconds(spec.terms.grace));
        function.number(limit_of(spec.limit));
        match &spec.dead_letter {
            Some(rule) => function.number(i64::from(rule.max_claim_count)),
            None => function.bytes(""),
        };
        function.bytes(target.unwrap_or_default());
        Ok(function)
    }

    /// Moves messages that were claimed too often to the dead-letter queue. If that fails, the
    /// messages are ready again after a while, and the claim succeeds unless it is empty.
    async fn dead_letter_all(
        &self,
        queue: &QueueRef,
        resolved: &ResolvedQueue,
        spec: &ClaimSpec,
        dead_letters: Vec<Message>,
        is_claim_empty: bool,
        now: Timestamp,
    ) -> Result<()> {
        let Some(rule) = &spec.dead_letter else { return Ok(()) };
        if dead_letters.is_empty() {
            return Ok(());
        }
        match self.move_to_dead_letter_queue(queue, resolved, rule, dead_letters, now).await {
            Err(error) if is_claim_empty => Err(error),
            Err(error) => {
                tracing::warn!(%error, "cannot dead-letter messages; a later claim will retry");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
