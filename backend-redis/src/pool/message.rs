//! Messages: post them, look at them, delete them.

use async_trait::async_trait;
use redis::Cmd;
use storage_traits::{
    Limit, Page, Result, StoreError,
    domain::{ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Timestamp},
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore, Rescheduled},
};

use super::{
    Source,
    codec::{NEVER, message_id, millis, position, read_entries, read_messages, write_new},
    posts::Post,
    reply::{OK, Reply},
    shard_of,
};
use crate::{Redis, error::unexpected, server::Promise};

/// What a list answers if the page is what was read of the stream.
const AS_READ: i64 = -1;

#[async_trait]
impl MessageStore for Redis {
    async fn post(
        &self,
        queue: &QueueRef,
        client: &ClientId,
        messages: Vec<NewMessage>,
        now: Timestamp,
    ) -> Result<Vec<Posted>> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let deduplicates = messages.iter().any(|message| message.deduplication.is_some());
        if !deduplicates {
            let post = Post { client: client.clone(), messages, now };
            let sequences = self.posts.store(queue.incarnation, post).await?;
            let sequences = sequences.ok_or_else(|| StoreError::not_found("queue", &queue.key))?;
            let posted = |sequence| {
                Ok(Posted { id: message_id(queue.incarnation, sequence)?, duplicate: false })
            };
            return sequences.into_iter().map(posted).collect();
        }
        let mut function = self.function("post", queue);
        function.number(millis(now)).number(3);
        for message in &messages {
            let deduplication = message.deduplication.as_ref();
            function.bytes(write_new(client, message, now));
            function.bytes(deduplication.map_or("", |d| d.id.as_str()));
            function.number(deduplication.map_or(0, |d| millis(now.plus(d.window))));
        }
        let mut reply = self.call(queue, Promise::Change, &function).await?;
        if reply.is_nil() {
            return Err(StoreError::not_found("queue", &queue.key));
        }
        let mut posted = Vec::with_capacity(messages.len());
        while !reply.is_empty() {
            let sequence = reply.number()?;
            let id = message_id(queue.incarnation, sequence.abs())?;
            posted.push(Posted { id, duplicate: sequence < 0 });
        }
        Ok(posted)
    }

    async fn list(
        &self,
        queue: &QueueRef,
        spec: &ListSpec,
        now: Timestamp,
    ) -> Result<Page<Message>> {
        let Some(source) = self.source(queue).await? else { return Ok(Page::empty()) };
        let wanted = i64::from(spec.limit.with_spare());
        let mut after = spec.after.map_or(0, |after| after.get().min(NEVER - 1));
        let mut found = Vec::new();
        if let Some(page) = self.list_posted(queue, &source, spec, after, now).await? {
            return Ok(page);
        }
        loop {
            let mut function = self.function("list", queue);
            let missing = wanted - i64::try_from(found.len()).unwrap_or(wanted);
            function.number(millis(now)).number(after).number(missing);
            for included in [spec.include_free, spec.include_claimed, spec.include_delayed] {
                function.number(i64::from(included));
            }
            function.number(0);
            if let Some(client) = &spec.hide_client {
                function.bytes(client.as_str());
            }
            let reply = self.settle_and_call(queue, Promise::Nothing, &function).await?;
            let Some(mut reply) = reply else { return Ok(Page::empty()) };
            after = reply.number()?;
            self.sources.remember_cursor(queue.incarnation, reply.number()?);
            found.extend(read_messages(source.queue, &mut reply)?);
            if after == 0 {
                return Ok(Page::cut(found, spec.limit));
            }
        }
    }

    async fn get(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<Message>> {
        let Some(source) = self.source(queue).await? else { return Ok(Vec::new()) };
        let mut function = self.function("get", queue);
        function.number(millis(now));
        for id in ids.iter().filter(|id| id.incarnation == source.queue) {
            function.number(position(id.sequence));
        }
        match self.settle_and_call(queue, Promise::Nothing, &function).await? {
            Some(mut reply) => read_messages(source.queue, &mut reply),
            None => Ok(Vec::new()),
        }
    }

    async fn delete(
        &self,
        queue: &QueueRef,
        id: MessageId,
        claim: Option<ClaimId>,
        now: Timestamp,
    ) -> Result<DeleteOutcome> {
        let source = self.source(queue).await?;
        if source.is_none_or(|source| source.queue != id.incarnation) {
            return Ok(DeleteOutcome::Missing);
        }
        let mut function = self.function("delete", queue);
        function.number(millis(now)).number(position(id.sequence));
        match claim {
            Some(claim) => function.bytes(claim.to_bytes()),
            None => function.bytes(""),
        };
        let Some(mut reply) = self.settle_and_call(queue, Promise::Change, &function).await? else {
            return Ok(DeleteOutcome::Missing);
        };
        Ok(match reply.number()? {
            0 => DeleteOutcome::Deleted,
            1 => DeleteOutcome::Missing,
            2 => DeleteOutcome::Refused(DeleteRefusal::Claimed),
            3 => DeleteOutcome::Refused(DeleteRefusal::UnknownClaim),
            4 => DeleteOutcome::Refused(DeleteRefusal::NotClaimed),
            5 => DeleteOutcome::Refused(DeleteRefusal::ClaimedByOther),
            _ => return Err(unexpected("an unknown outcome of a delete")),
        })
    }

    async fn reschedule(
        &self,
        queue: &QueueRef,
        id: MessageId,
        visible_at: Timestamp,
        now: Timestamp,
    ) -> Result<Rescheduled> {
        let source = self.source(queue).await?;
        if source.is_none_or(|source| source.queue != id.incarnation) {
            return Ok(Rescheduled::Missing);
        }
        let mut function = self.function("reschedule", queue);
        function.number(millis(now)).number(position(id.sequence)).number(millis(visible_at));
        let Some(mut reply) = self.settle_and_call(queue, Promise::Change, &function).await? else {
            return Ok(Rescheduled::Missing);
        };
        Ok(match reply.number()? {
            0 => Rescheduled::Moved,
            1 => Rescheduled::Missing,
            _ => Rescheduled::Visible,
        })
    }

    async fn delete_many(
        &self,
        queue: &QueueRef,
        ids: &[MessageId],
        claims: &[ClaimId],
        now: Timestamp,
    ) -> Result<Option<u64>> {
        let unknown = claims.is_empty().then_some(0);
        let Some(source) = self.source(queue).await? else { return Ok(unknown) };
        let mut function = self.function("delete_many", queue);
        function.number(millis(now)).number(i64::try_from(claims.len()).map_err(unexpected)?);
        for claim in claims {
            function.bytes(claim.to_bytes());
        }
        for id in ids.iter().filter(|id| id.incarnation == source.queue) {
            function.number(position(id.sequence));
        }
        let Some(mut reply) = self.settle_and_call(queue, Promise::Change, &function).await? else {
            return Ok(unknown);
        };
        Ok(u64::try_from(reply.number()?).ok())
    }
}

impl Redis {
    /// Lists messages that are as they were posted, and lie behind one another in the stream. Then
    /// the server need not pass them through a function: it reads the stream from where the page
    /// probably begins, and the function says, in the same transaction, whether it does. `None` if
    /// it does not.
    async fn list_posted(
        &self,
        queue: &QueueRef,
        source: &Source,
        spec: &ListSpec,
        after: i64,
        now: Timestamp,
    ) -> Result<Option<Page<Message>>> {
        let cursor = self.sources.cursor(queue.incarnation);
        let Some(cursor) = cursor.filter(|_| spec.include_free) else { return Ok(None) };
        let start = after.max(cursor) + 1;
        let mut function = self.function("list", queue);
        function.number(millis(now)).number(after).number(0);
        for included in [spec.include_free, spec.include_claimed, spec.include_delayed] {
            function.number(i64::from(included));
        }
        function.number(start);
        let mut range = Cmd::new();
        range.arg("XRANGE").arg(format!("{}:1", self.key(queue.incarnation))).arg(start).arg("+");
        range.arg("COUNT").arg(spec.limit.with_spare());
        let shard = shard_of(queue.incarnation);
        let both = self.servers.both(shard, &function, &range).await?;
        let Some((reply, entries)) = both else { return Ok(None) };
        let mut reply = Reply::new(reply);
        let status = reply.number()?;
        self.counters.expired(reply.count()?);
        if status != OK {
            return Ok(None);
        }
        let what = reply.number()?;
        self.sources.remember_cursor(queue.incarnation, reply.number()?);
        if what != AS_READ {
            return Ok(None);
        }
        let mut found = read_entries(source.queue, entries)?;
        let looked = found.len();
        if let Some(client) = &spec.hide_client {
            found.retain(|message| message.client != *client);
        }
        // What is hidden makes room for what follows, if anything does.
        let is_whole = found.len() == looked || looked <= spec.limit.get();
        Ok(is_whole.then(|| Page::cut(found, spec.limit)))
    }
}

/// A limit as the functions take it.
pub(super) fn number_of(limit: Limit) -> i64 {
    i64::try_from(limit.get()).unwrap_or(i64::MAX)
}
