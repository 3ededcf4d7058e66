//! Claims and pops.

use async_trait::async_trait;
use redis::Cmd;
use storage_traits::{
    Limit, Result, StoreError,
    domain::{
        AckOutcome, AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, ClaimTerms, DeadLetter,
        Message, QueueRef, Timestamp,
    },
    pool::ClaimStore,
};

use super::{
    Source,
    codec::{claim_posted, millis, position, read_entries, read_message, read_messages, seconds},
    guard_of,
    message::number_of,
    registry_of,
    reply::{AGAIN, UNKNOWN},
    shard_of,
};
use crate::{
    Redis,
    error::unexpected,
    server::{Function, Promise},
};

#[async_trait]
impl ClaimStore for Redis {
    async fn claim(
        &self,
        queue: &QueueRef,
        spec: &ClaimSpec,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        let Some(source) = self.source(queue).await? else { return Ok(None) };
        let function = self.claim_function(queue, spec, now).await?;
        loop {
            let mut reply = self.call(queue, Promise::Change, &function).await?;
            let status = reply.number()?;
            self.counters.expired(reply.count()?);
            if status == UNKNOWN {
                return Err(missing(spec.dead_letter.as_ref()));
            }
            let mut messages = Vec::new();
            let (count, first, last) = (reply.count()?, reply.number()?, reply.number()?);
            for _ in 0..count {
                messages.push(read_message(source.queue, &mut reply)?);
            }
            if first > 0 {
                messages = self.read_claimed(queue, spec.id, first, last).await?;
            }
            let letters = read_messages(source.queue, &mut reply)?;
            self.bury(queue, &source, spec, letters, messages.is_empty(), now).await?;
            if status == AGAIN {
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
        let Some(source) = self.source(queue).await? else { return Ok(None) };
        let mut function = self.function("get_claim", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        let reply = self.settle_and_call(queue, Promise::Nothing, &function).await?;
        let Some(mut reply) = reply else { return Ok(None) };
        Ok(Some(Claim {
            id,
            renewed_at: Timestamp::from_millis(reply.number()?),
            ttl: std::time::Duration::from_secs(reply.count()?),
            messages: read_messages(source.queue, &mut reply)?,
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
        match self.settle_and_call(queue, Promise::Change, &function).await? {
            Some(_) => Ok(()),
            None => Err(StoreError::not_found("claim", &id)),
        }
    }

    async fn release(&self, queue: &QueueRef, id: ClaimId, now: Timestamp) -> Result<()> {
        let mut function = self.function("release", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        self.settle_and_call(queue, Promise::Change, &function).await.map(drop)
    }

    async fn acknowledge(
        &self,
        queue: &QueueRef,
        id: ClaimId,
        acknowledgements: &[Acknowledgement],
        now: Timestamp,
    ) -> Result<Vec<AckResult>> {
        let unknown = || vec![AckResult::NotHeld; acknowledgements.len()];
        let Some(source) = self.source(queue).await? else { return Ok(unknown()) };
        let mut function = self.function("acknowledge", queue);
        function.number(millis(now)).bytes(id.to_bytes());
        for said in acknowledgements {
            // No message is in position 0.
            let own = said.id.incarnation == source.queue;
            function.number(if own { position(said.id.sequence) } else { 0 });
            match said.outcome {
                AckOutcome::Ack => function.bytes(""),
                AckOutcome::Nack { delay } => function.number(millis(now.plus(delay))),
            };
        }
        let reply = self.settle_and_call(queue, Promise::Change, &function).await?;
        let Some(mut reply) = reply else { return Ok(unknown()) };
        let mut answers = Vec::with_capacity(acknowledgements.len());
        while !reply.is_empty() {
            let taken = reply.number()? == 1;
            answers.push(if taken { AckResult::Applied } else { AckResult::NotHeld });
        }
        Ok(answers)
    }

    async fn pop(&self, queue: &QueueRef, limit: Limit, now: Timestamp) -> Result<Vec<Message>> {
        let Some(source) = self.source(queue).await? else { return Ok(Vec::new()) };
        let mut function = self.function("pop", queue);
        function.number(millis(now)).number(number_of(limit));
        match self.settle_and_call(queue, Promise::Change, &function).await? {
            Some(mut reply) => read_messages(source.queue, &mut reply),
            None => Ok(Vec::new()),
        }
    }
}

impl Redis {
    /// Reads what a claim has just taken, where it was as it had been posted: so many bytes are read
    /// from the stream for much less than through a function. What is deleted in between is not
    /// there any more.
    async fn read_claimed(
        &self,
        queue: &QueueRef,
        claim: ClaimId,
        first: i64,
        last: i64,
    ) -> Result<Vec<Message>> {
        let mut range = Cmd::new();
        range.arg("XRANGE").arg(format!("{}:1", self.key(queue.incarnation))).arg(first).arg(last);
        let shard = shard_of(queue.incarnation);
        let entries = self.servers.command(shard, Promise::Nothing, &range).await?;
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
        let (prefix, shard) = (&self.servers.options.prefix, shard_of(queue.incarnation));
        let (registry, guard) = (registry_of(prefix, shard), guard_of(prefix, shard));
        let target = spec.dead_letter.as_ref().map(|rule| self.key(rule.queue.incarnation));
        let mut keys = vec![own.as_str(), &registry, &guard];
        if let (Some(rule), Some(target)) = (&spec.dead_letter, &target) {
            let same_slot = shard_of(rule.queue.incarnation) == shard_of(queue.incarnation);
            if self.servers.is_one_server() || same_slot {
                // The claim itself looks whether it is there.
                keys.push(target);
            } else if !self.is_open(&rule.queue).await? {
                return Err(missing(Some(rule)));
            }
        }
        let mut function = Function::new("claim", &keys);
        function.number(millis(now)).bytes(spec.id.to_bytes());
        function.number(seconds(spec.terms.ttl)).number(seconds(spec.terms.grace));
        function.number(number_of(spec.limit));
        match &spec.dead_letter {
            Some(rule) => function.number(i64::from(rule.max_claim_count)),
            None => function.bytes(""),
        };
        function.bytes(target.unwrap_or_default());
        Ok(function)
    }

    /// Moves what was claimed too often to the dead letters. If it cannot be moved, it is free again
    /// after a while, and the claim counts all the same, unless it is empty.
    async fn bury(
        &self,
        queue: &QueueRef,
        source: &Source,
        spec: &ClaimSpec,
        letters: Vec<Message>,
        alone: bool,
        now: Timestamp,
    ) -> Result<()> {
        let Some(rule) = &spec.dead_letter else { return Ok(()) };
        if letters.is_empty() {
            return Ok(());
        }
        match self.move_letters(queue, source, rule, letters, now).await {
            Err(error) if alone => Err(error),
            Err(error) => {
                tracing::warn!(%error, "dead letters could not be moved; they are tried again");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// The dead-letter queue is unknown.
pub(super) fn missing(rule: Option<&DeadLetter>) -> StoreError {
    match rule {
        Some(rule) => StoreError::not_found("queue", &rule.queue.key),
        None => unexpected("a claim without a rule misses a dead-letter queue"),
    }
}
