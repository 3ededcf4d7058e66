//! Messages: post, list, get, delete, reschedule.

use async_trait::async_trait;
use redis::Cmd;
use storage_traits::{
    Page, Result, StoreError,
    domain::{ClaimId, ClientId, Message, MessageId, NewMessage, Posted, QueueRef, Timestamp},
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, MessageStore, Rescheduled},
};

use super::{
    codec::{message_id, millis, position, read_entries, read_messages, write_new},
    post_batcher::Post,
    queue_cache::ResolvedQueue,
    redis_pool::Redis,
    reply::Reply,
};
use crate::{
    error::unexpected,
    keys::shard_of,
    library::constants::{
        DELETE_CLAIMED, DELETE_CLAIMED_BY_OTHER, DELETE_DONE, DELETE_MISSING, DELETE_NOT_CLAIMED,
        DELETE_UNKNOWN_CLAIM, LIST_AS_READ, NEVER, RESCHEDULE_DONE, RESCHEDULE_MISSING, STATUS_OK,
    },
    server::Replication,
};

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
            let sequences = self.posts.post(queue.incarnation, post).await?;
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
        let mut reply = self.call(queue, Replication::Wait, &function).await?;
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
        let Some(resolved) = self.resolve(queue).await? else { return Ok(Page::empty()) };
        let wanted = i64::from(spec.limit.with_spare());
        let mut after = spec.after.map_or(0, |after| after.get().min(NEVER - 1));
        let mut found = Vec::new();
        if let Some(page) = self.list_posted(queue, &resolved, spec, after, now).await? {
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
            let reply = self.apply_due_and_call(queue, Replication::Skip, &function).await?;
            let Some(mut reply) = reply else { return Ok(Page::empty()) };
            after = reply.number()?;
            self.cache.remember_cursor(queue.incarnation, reply.number()?);
            found.extend(read_messages(resolved.queue, &mut reply)?);
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
        let Some(resolved) = self.resolve(queue).await? else { return Ok(Vec::new()) };
        let mut function = self.function("get", queue);
        function.number(millis(now));
        for id in ids.iter().filter(|id| id.incarnation == resolved.queue) {
            function.number(position(id.sequence));
        }
        match self.apply_due_and_call(queue, Replication::Skip, &function).await? {
            Some(mut reply) => read_messages(resolved.queue, &mut reply),
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
        let resolved = self.resolve(queue).await?;
        if resolved.is_none_or(|resolved| resolved.queue != id.incarnation) {
            return Ok(DeleteOutcome::Missing);
        }
        let mut function = self.function("delete", queue);
        function.number(millis(now)).number(position(id.sequence));
        match claim {
            Some(claim) => function.bytes(claim.to_bytes()),
            None => function.bytes(""),
        };
        let Some(mut reply) = self.apply_due_and_call(queue, Replication::Wait, &function).await?
        else {
            return Ok(DeleteOutcome::Missing);
        };
        Ok(match reply.number()? {
            DELETE_DONE => DeleteOutcome::Deleted,
            DELETE_MISSING => DeleteOutcome::Missing,
            DELETE_CLAIMED => DeleteOutcome::Refused(DeleteRefusal::Claimed),
            DELETE_UNKNOWN_CLAIM => DeleteOutcome::Refused(DeleteRefusal::UnknownClaim),
            DELETE_NOT_CLAIMED => DeleteOutcome::Refused(DeleteRefusal::NotClaimed),
            DELETE_CLAIMED_BY_OTHER => DeleteOutcome::Refused(DeleteRefusal::ClaimedByOther),
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
        let resolved = self.resolve(queue).await?;
        if resolved.is_none_or(|resolved| resolved.queue != id.incarnation) {
            return Ok(Rescheduled::Missing);
        }
        let mut function = self.function("reschedule", queue);
        function.number(millis(now)).number(position(id.sequence)).number(millis(visible_at));
        let Some(mut reply) = self.apply_due_and_call(queue, Replication::Wait, &function).await?
        else {
            return Ok(Rescheduled::Missing);
        };
        Ok(match reply.number()? {
            RESCHEDULE_DONE => Rescheduled::Moved,
            RESCHEDULE_MISSING => Rescheduled::Missing,
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
        let nothing_deleted = claims.is_empty().then_some(0);
        let Some(resolved) = self.resolve(queue).await? else { return Ok(nothing_deleted) };
        let mut function = self.function("delete_many", queue);
        function.number(millis(now)).number(i64::try_from(claims.len()).map_err(unexpected)?);
        for claim in claims {
            function.bytes(claim.to_bytes());
        }
        for id in ids.iter().filter(|id| id.incarnation == resolved.queue) {
            function.number(position(id.sequence));
        }
        let Some(mut reply) = self.apply_due_and_call(queue, Replication::Wait, &function).await?
        else {
            return Ok(nothing_deleted);
        };
        Ok(u64::try_from(reply.number()?).ok())
    }
}

impl Redis {
    /// Lists messages that are as they were posted, by reading the stream directly, which is faster
    /// than through a function. The read starts where the page probably begins; the function
    /// confirms that in the same transaction. Returns `None` if it does not.
    async fn list_posted(
        &self,
        queue: &QueueRef,
        resolved: &ResolvedQueue,
        spec: &ListSpec,
        after: i64,
        now: Timestamp,
    ) -> Result<Option<Page<Message>>> {
        let cursor = self.cache.cursor(queue.incarnation);
        let Some(cursor) = cursor.filter(|_| spec.include_free) else { return Ok(None) };
        let start = after.max(cursor) + 1;
        let mut function = self.function("list", queue);
        function.number(millis(now)).number(after).number(0);
        for included in [spec.include_free, spec.include_claimed, spec.include_delayed] {
            function.number(i64::from(included));
        }
        function.number(start);
        let mut range = Cmd::new();
        range
            .arg("XRANGE")
            .arg(self.servers.keys.messages_1(queue.incarnation))
            .arg(start)
            .arg("+");
        range.arg("COUNT").arg(spec.limit.with_spare());
        let shard = shard_of(queue.incarnation);
        let replies = self.servers.call_and_read(shard, &function, &range).await?;
        let Some((reply, entries)) = replies else { return Ok(None) };
        let mut reply = Reply::new(reply);
        let status = reply.number()?;
        self.counters.add_expired(reply.count()?);
        if status != STATUS_OK {
            return Ok(None);
        }
        let next = reply.number()?;
        self.cache.remember_cursor(queue.incarnation, reply.number()?);
        if next != LIST_AS_READ {
            return Ok(None);
        }
        let mut found = read_entries(resolved.queue, entries)?;
        let read = found.len();
        if let Some(client) = &spec.hide_client {
            found.retain(|message| message.client != *client);
        }
        // Hidden messages leave room on the page for others that follow.
        let is_complete = found.len() == read || read <= spec.limit.get();
        Ok(is_complete.then(|| Page::cut(found, spec.limit)))
    }
}
