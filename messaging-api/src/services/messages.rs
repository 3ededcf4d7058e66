//! Messages: post, list, read, delete, pop.

use std::{sync::Arc, time::Duration};

use md5::{Digest as _, Md5};
use storage_traits::{
    Page, StoreError,
    domain::{
        Body, ClaimId, ClientId, Deduplication, DeduplicationId, Delivery, Message, MessageId,
        Metadata, NewMessage, OrderingKey, Posted, QueueKey, Timestamp,
    },
    pool::{DeleteOutcome, DeleteRefusal, ListSpec, Rescheduled, WatchFor},
};

use super::{
    context::Services,
    error::{Error, Result},
    long_poll::WaitBudget,
    queue_cache::CachedQueue,
    queues::page_limit,
};
use crate::config::{Compat, Limits, MIN_TTL};

/// A message of a post, before its values are checked.
#[derive(Debug, Clone)]
pub(crate) struct MessageDraft {
    pub body: Body,
    /// Seconds, unchecked.
    pub ttl: Option<i64>,
    /// The delay in seconds, or an error if it is not an integer. It is used and checked only in
    /// queues that have a default delay.
    pub delay: Option<std::result::Result<i64, ()>>,
    pub ordering_key: Option<OrderingKey>,
    pub deduplication_id: Option<DeduplicationId>,
    /// When the message becomes visible, unchecked.
    pub deliver_at: Option<Timestamp>,
}

/// Which messages to list.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub marker: Option<String>,
    pub limit: Option<i64>,
    pub echo: bool,
    pub include_claimed: bool,
    pub delayed: Delayed,
}

/// How a listing treats messages that are not visible yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delayed {
    /// They are omitted, if the queue has a default delay.
    Hidden,
    /// They are listed with the visible ones.
    Included,
    /// Only they are listed.
    Alone,
}

/// Which messages a bulk deletion names.
#[derive(Debug, Clone)]
pub(crate) struct PopOrIds<'q> {
    pub ids: Option<&'q [String]>,
    pub claim_ids: Option<&'q [String]>,
    pub pop: Option<i64>,
}

/// The queue of a post, which is looked up before the body is read.
pub(crate) struct PostTarget(Arc<CachedQueue>);

impl Services {
    /// Looks up the queue of a post, and creates it if it is missing. Also returns the limit of a
    /// post to it, in bytes.
    pub(crate) async fn post_target(&self, key: &QueueKey) -> Result<(PostTarget, usize)> {
        let empty = Metadata::default();
        let cached = match self.queues.find_or_create(key, &empty, self.now()).await {
            Ok((cached, _)) => cached,
            Err(error @ StoreError::Overloaded { .. }) => return Err(error.into()),
            // If the catalog can be read, then the pool could not open the queue.
            Err(error @ StoreError::Unavailable { .. }) if self.catalog.get(key).await.is_ok() => {
                return Err(error.into());
            }
            Err(error) => return Err(Error::QueueLookup(error)),
        };
        let limit = self.config.limits.max_messages_post_size;
        let limit = cached.settings.max_post_size.map_or(limit, |own| own.min(limit));
        Ok((PostTarget(cached), limit))
    }

    /// Posts messages. Returns their ids in the same order, and which of them are duplicates.
    pub(crate) async fn post(
        &self,
        target: PostTarget,
        client: &ClientId,
        drafts: Vec<MessageDraft>,
    ) -> Result<Vec<Posted>> {
        let PostTarget(cached) = target;
        let now = self.now();
        let messages =
            new_messages(&cached, drafts, &self.config.limits, &self.config.compat, now)?;
        self.check_post_to_groups(&cached, messages.len()).await?;
        let posted = self.pool.post(cached.queue(), client, messages.clone(), now).await;
        match posted {
            // The queue was deleted by another node, or a crash kept it from being opened.
            Err(StoreError::NotFound { .. }) => {
                self.queues.reopen(&cached).await?;
                let again = async |cached: Arc<CachedQueue>| {
                    self.pool.post(cached.queue(), client, messages.clone(), now).await
                };
                Ok(self.queues.with_queue(&cached.queue().key, now, again).await?)
            }
            result => Ok(result?),
        }
    }

    /// Lists messages, and waits if there are none. The flag says whether the queue has a default
    /// delay, in which case delayed messages are listed only on request.
    pub(crate) async fn list_messages(
        &self,
        key: &QueueKey,
        client: &ClientId,
        listing: &Listing,
        budget: &WaitBudget,
    ) -> Result<(Page<Message>, bool)> {
        let mut watched = None;
        loop {
            let cached = self.queues.find(key).await?;
            let (page, delays) = self.page_of_messages(cached.as_deref(), client, listing).await?;
            if !page.items.is_empty() || !budget.has_time() {
                return Ok((page, delays));
            }
            if !self.wait_for(cached.as_deref(), WatchFor::Posts, &mut watched, budget).await? {
                return Ok((page, delays));
            }
        }
    }

    async fn page_of_messages(
        &self,
        cached: Option<&CachedQueue>,
        client: &ClientId,
        listing: &Listing,
    ) -> Result<(Page<Message>, bool)> {
        let limit = page_limit(listing.limit, self.config.limits.max_messages_per_page)?;
        let Some(cached) = cached else { return Ok((Page::empty(), false)) };
        let delays = cached.settings.default_delay.is_some();
        let after = match &listing.marker {
            None => None,
            Some(marker) => match own_id(cached, marker) {
                Some(id) => Some(id.sequence),
                None => return Ok((Page::empty(), delays)),
            },
        };
        let spec = ListSpec {
            after,
            limit,
            hide_client: (!listing.echo).then(|| client.clone()),
            include_free: listing.delayed != Delayed::Alone,
            include_claimed: listing.include_claimed && listing.delayed != Delayed::Alone,
            include_delayed: listing.delayed != Delayed::Hidden || !delays,
        };
        Ok((self.pool.list(cached.queue(), &spec, self.now()).await?, delays))
    }

    /// Reads messages by id. Messages that do not exist are omitted.
    pub(crate) async fn get_messages(
        &self,
        key: &QueueKey,
        ids: &[String],
    ) -> Result<Vec<Message>> {
        let ids = self.bounded_ids(ids)?;
        match self.queues.find(key).await? {
            Some(cached) => Ok(self.pool.get(cached.queue(), &ids, self.now()).await?),
            None => Ok(Vec::new()),
        }
    }

    fn bounded_ids(&self, ids: &[String]) -> Result<Vec<MessageId>> {
        let max = self.config.limits.max_messages_per_page as usize;
        if !(1..=max).contains(&ids.len()) {
            return Err(Error::InvalidValue(format!("\"ids\" must name 1 to {max} messages")));
        }
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Changes when a message becomes visible. The message must not be visible yet.
    pub(crate) async fn reschedule_message(
        &self,
        key: &QueueKey,
        id: &str,
        time: Timestamp,
    ) -> Result<()> {
        let missing = || Error::NotFound(format!("the message {id:?} does not exist"));
        let now = self.now();
        let time = visible_at(time, now, &self.config.limits)?;
        let cached = self.queues.find(key).await?.ok_or_else(missing)?;
        let message = id.parse().map_err(|_| missing())?;
        match self.pool.reschedule(cached.queue(), message, time, now).await? {
            Rescheduled::Moved => Ok(()),
            Rescheduled::Missing => Err(missing()),
            Rescheduled::Visible => {
                Err(Error::Conflict(format!("the message {id} is visible already")))
            }
        }
    }

    /// Deletes one message.
    pub(crate) async fn delete_message(
        &self,
        key: &QueueKey,
        id: &str,
        claim: Option<&str>,
    ) -> Result<()> {
        let (Ok(id), Some(cached)) = (id.parse::<MessageId>(), self.queues.find(key).await?) else {
            return Ok(());
        };
        // A malformed claim id is treated as one that does not exist.
        let named = claim.map(|claim| claim.parse().unwrap_or_else(|_| ClaimId::random()));
        match self.pool.delete(cached.queue(), id, named, self.now()).await? {
            DeleteOutcome::Deleted | DeleteOutcome::Missing => Ok(()),
            DeleteOutcome::Refused(refusal) => {
                Err(refusal_error(refusal, id, claim.unwrap_or_default()))
            }
        }
    }

    /// Deletes messages by id, or pops the oldest claimable messages. Returns the popped messages,
    /// or `None` for a deletion by id.
    pub(crate) async fn delete_messages(
        &self,
        key: &QueueKey,
        selection: &PopOrIds<'_>,
    ) -> Result<Option<Vec<Message>>> {
        let requires_claims = self.config.compat.message_delete_with_claim_id;
        let claims: Vec<ClaimId> = selection
            .claim_ids
            .filter(|_| requires_claims)
            .unwrap_or_default()
            .iter()
            .filter_map(|claim| claim.parse().ok())
            .collect();
        if requires_claims && selection.ids.is_some() != selection.claim_ids.is_some() {
            let text = "\"ids\" and \"claim_ids\" must be given together";
            return Err(Error::InvalidValue(text.into()));
        }
        match (selection.ids, selection.pop) {
            (Some(ids), None) => {
                let ids = self.bounded_ids(ids)?;
                let Some(cached) = self.queues.find(key).await? else { return Ok(None) };
                let deleted =
                    self.pool.delete_many(cached.queue(), &ids, &claims, self.now()).await?;
                match deleted {
                    Some(_) => Ok(None),
                    None => Err(Error::ClaimMismatch(
                        "each of \"claim_ids\" must hold one of the messages".into(),
                    )),
                }
            }
            (None, Some(pop)) => {
                let max = self.config.limits.max_messages_per_claim_or_pop;
                let limit = page_limit(Some(pop), max)
                    .map_err(|_| Error::InvalidValue(format!("\"pop\" must be 1 to {max}")))?;
                let Some(cached) = self.queues.find(key).await? else {
                    return Ok(Some(Vec::new()));
                };
                Ok(Some(self.pool.pop(cached.queue(), limit, self.now()).await?))
            }
            _ => Err(Error::InvalidValue("give either \"ids\" or \"pop\"".into())),
        }
    }
}

fn own_id(cached: &CachedQueue, text: &str) -> Option<MessageId> {
    text.parse::<MessageId>().ok().filter(|id| id.incarnation == cached.queue().incarnation)
}

fn new_messages(
    cached: &CachedQueue,
    drafts: Vec<MessageDraft>,
    limits: &Limits,
    compat: &Compat,
    now: Timestamp,
) -> Result<Vec<NewMessage>> {
    if drafts.is_empty() {
        return Err(Error::InvalidValue("\"messages\" must hold at least one message".into()));
    }
    let delays = cached.settings.default_delay;
    // The types of all messages are checked before the range of any value.
    if delays.is_some() && drafts.iter().any(|draft| draft.delay == Some(Err(()))) {
        return Err(Error::WrongType("\"delay\" must be an integer".into()));
    }
    let default_ttl = cached
        .settings
        .default_ttl
        .unwrap_or(Duration::from_secs(limits.default_message_ttl.unsigned_abs()));
    drafts
        .into_iter()
        .map(|draft| {
            let ttl = match draft.ttl {
                Some(ttl) => bounded("ttl", ttl, MIN_TTL, limits.max_message_ttl)?,
                None => default_ttl,
            };
            let delivery = match (draft.deliver_at, delays, draft.delay) {
                (Some(_), Some(_), Some(_)) => {
                    let text = "give either \"delay\" or \"deliver_at\"".to_owned();
                    return Err(Error::InvalidValue(text));
                }
                (Some(time), ..) => Delivery::At(visible_at(time, now, limits)?),
                (None, Some(_), Some(Ok(delay))) => {
                    Delivery::After(bounded("delay", delay, 0, limits.max_message_delay)?)
                }
                (None, Some(default), _) => Delivery::After(default),
                (None, None, _) => Delivery::IMMEDIATE,
            };
            let window = cached.settings.deduplication_window;
            let deduplication = draft.deduplication_id.map(|id| Deduplication { id, window });
            let checksum = (compat.enable_checksum && draft.body.as_bytes() != b"null")
                .then(|| checksum(&draft.body));
            let ordering_key = match (cached.settings.fifo, draft.ordering_key) {
                (true, None) => Some(OrderingKey::whole_queue()),
                (true, Some(_)) => {
                    let text = "\"ordering_key\" cannot be given: all messages of this queue are \
                                in one order";
                    return Err(Error::InvalidValue(text.into()));
                }
                (false, key) => key,
            };
            Ok(NewMessage {
                body: draft.body,
                ttl,
                delivery,
                ordering_key,
                deduplication,
                retained: cached.settings.retained,
                checksum,
            })
        })
        .collect()
}

/// Checks that a time of visibility is no further ahead than the maximum ttl.
fn visible_at(time: Timestamp, now: Timestamp, limits: &Limits) -> Result<Timestamp> {
    let max = limits.max_message_ttl;
    if time <= now.plus(Duration::from_secs(max.unsigned_abs())) {
        Ok(time)
    } else {
        Err(Error::InvalidValue(format!("\"deliver_at\" must be at most {max} seconds ahead")))
    }
}

fn bounded(name: &str, seconds: i64, min: i64, max: i64) -> Result<Duration> {
    if (min..=max).contains(&seconds) {
        Ok(Duration::from_secs(seconds.unsigned_abs()))
    } else {
        Err(Error::InvalidValue(format!("\"{name}\" must be {min} to {max} seconds")))
    }
}

fn checksum(body: &Body) -> String {
    use std::fmt::Write as _;
    let digest = Md5::digest(body.as_bytes());
    digest.iter().fold("MD5:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

fn refusal_error(refusal: DeleteRefusal, id: MessageId, claim: &str) -> Error {
    match refusal {
        DeleteRefusal::Claimed => Error::MessageClaimed(format!(
            "the message {id} is claimed; name its claim to delete it"
        )),
        DeleteRefusal::ClaimedByOther => {
            Error::MessageClaimed(format!("the message {id} is claimed, but not by {claim}"))
        }
        DeleteRefusal::NotClaimed => {
            Error::ClaimMismatch(format!("the message {id} is not claimed, by {claim} or another"))
        }
        DeleteRefusal::UnknownClaim => {
            Error::ClaimMismatch(format!("the claim {claim} does not exist or is over"))
        }
    }
}
