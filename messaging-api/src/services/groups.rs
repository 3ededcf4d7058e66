//! Consumer groups, each with its own delivery state of a queue.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use storage_traits::{
    Limit, Page, StoreError,
    domain::{
        AckResult, Acknowledgement, Claim, ClaimId, ClaimSpec, DeadLetter, Group, GroupName,
        Metadata, QueueKey, QueueName, StartPoint, Timestamp,
    },
    pool::{Stats, WatchFor},
};

use super::{
    context::Services,
    error::{Error, Result},
    long_poll::WaitBudget,
    metadata::DeadLetters,
    queue_cache::CachedQueue,
    queues::page_limit,
};
use crate::config::MIN_TTL;

/// How many groups a queue may have. Each post costs work for each group.
const MAX_GROUPS: u32 = 100;
/// How many delivery states a post may create, those of the groups included.
const MAX_COPIES: usize = 10_000;

const DEAD_LETTER_QUEUE: &str = "dead_letter_queue";
const MAX_CLAIM_COUNT: &str = "max_claim_count";
const DEAD_LETTER_TTL: &str = "dead_letter_ttl";

/// A group with its statistics.
#[derive(Debug, Clone)]
pub(crate) struct GroupState {
    pub group: Group,
    pub stats: Stats,
}

impl Services {
    /// Creates a group, and its queue if that is missing. Returns `true` if the group is new. An
    /// existing group is not changed.
    pub(crate) async fn create_group(
        &self,
        key: &QueueKey,
        name: &str,
        start: StartPoint,
        settings: Map<String, Value>,
    ) -> Result<bool> {
        let name = group_name(name)?;
        check_settings(&settings, self.config.limits.max_message_ttl)?;
        let (settings, now) = (Metadata::from(settings), self.now());
        if let Some(cached) = self.queues.find(key).await? {
            let groups = self.all_groups(&cached).await?;
            let is_known = groups.iter().any(|group| group.name == name);
            if !is_known && groups.len() >= MAX_GROUPS as usize {
                let text = format!("a queue has at most {MAX_GROUPS} groups");
                return Err(Error::Conflict(text));
            }
        }
        let create = async |cached: Arc<CachedQueue>| {
            self.pool.create_group(cached.queue(), &name, start, &settings, now).await
        };
        let (_, new) = self.queues.with_queue(key, now, create).await?;
        Ok(new)
    }

    /// Refuses a post that would create too many delivery states at once.
    pub(super) async fn check_post_to_groups(
        &self,
        cached: &CachedQueue,
        messages: usize,
    ) -> Result<()> {
        if messages <= MAX_COPIES / (MAX_GROUPS as usize + 2) {
            return Ok(());
        }
        let retained = cached.settings.retained;
        let groups = self.all_groups(cached).await?.len();
        let copies = 1 + groups + usize::from(retained);
        let max = MAX_COPIES / copies;
        if copies == 1 || messages <= max {
            return Ok(());
        }
        let kept = if retained { " and \"_retention\"" } else { "" };
        Err(Error::InvalidValue(format!(
            "a post to a queue with {groups} groups{kept} has at most {max} messages"
        )))
    }

    /// Returns all groups of a queue.
    pub(super) async fn all_groups(&self, cached: &CachedQueue) -> Result<Vec<Group>> {
        // Concurrent creations may exceed the limit.
        match Limit::new(2 * MAX_GROUPS) {
            Some(limit) => Ok(self.pool.list_groups(cached.queue(), None, limit).await?.items),
            None => Ok(Vec::new()),
        }
    }

    /// Returns a group with its statistics.
    pub(crate) async fn describe_group(&self, key: &QueueKey, name: &str) -> Result<GroupState> {
        let (_, group) = self.find_group(key, name).await?;
        let stats = self.pool.stats(&group.as_queue, self.now()).await?;
        Ok(GroupState { group, stats })
    }

    /// Lists the groups of a queue by name. A missing queue has none.
    pub(crate) async fn list_groups(
        &self,
        key: &QueueKey,
        marker: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Page<Group>> {
        let limit = page_limit(limit, self.config.limits.max_queues_per_page)?;
        let marker = marker.map(group_name).transpose()?;
        match self.queues.find(key).await? {
            Some(cached) => {
                Ok(self.pool.list_groups(cached.queue(), marker.as_ref(), limit).await?)
            }
            None => Ok(Page::empty()),
        }
    }

    /// Deletes a group. Succeeds if it does not exist.
    pub(crate) async fn delete_group(&self, key: &QueueKey, name: &str) -> Result<()> {
        let name = group_name(name)?;
        if let Some(cached) = self.queues.find(key).await? {
            self.pool.delete_group(cached.queue(), &name).await?;
        }
        Ok(())
    }

    /// Moves a group to another position of the queue.
    pub(crate) async fn seek_group(
        &self,
        key: &QueueKey,
        name: &str,
        to: StartPoint,
    ) -> Result<()> {
        let group = group_name(name)?;
        let cached = self.queues.find(key).await?.ok_or_else(|| no_such_group(name))?;
        let moved = self.pool.seek_group(cached.queue(), &group, to, self.now()).await?;
        moved.map(drop).ok_or_else(|| no_such_group(name))
    }

    /// Claims messages for a group, and waits if none is claimable.
    pub(crate) async fn claim_for_group(
        &self,
        key: &QueueKey,
        name: &str,
        ttl: Option<i64>,
        grace: Option<i64>,
        limit: Option<i64>,
        budget: &WaitBudget,
    ) -> Result<Option<Claim>> {
        let terms = self.claim_terms(ttl, grace)?;
        let limit = page_limit(limit, self.config.limits.max_messages_per_claim_or_pop)?;
        let (mut watched, mut tries) = (None, 3);
        loop {
            // Looked up each time: a seek gives the group a new delivery state.
            let (cached, group) = self.find_group(key, name).await?;
            // If the dead-letter queue is deleted repeatedly, the claim goes without it.
            let dead_letter =
                if tries > 0 { self.group_rule(&cached, &group).await? } else { None };
            let id = ClaimId::random();
            let spec = ClaimSpec { id, terms, limit, dead_letter };
            match self.pool.claim(&group.as_queue, &spec, self.now()).await {
                Ok(Some(claim)) => return Ok(Some(claim)),
                Ok(None) => {}
                Err(StoreError::NotFound { .. }) if tries > 0 => {
                    tries -= 1;
                    if let Some(rule) = &spec.dead_letter
                        && let Some(target) = self.queues.find(&rule.queue.key).await?
                    {
                        self.queues.reopen(&target).await?;
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let what = WatchFor::Claimable;
            if !self.wait_for_group(&group.as_queue, what, &mut watched, budget).await? {
                return Ok(None);
            }
        }
    }

    /// Reads a claim of a group. Returns `None` if it does not exist or has ended.
    pub(crate) async fn get_group_claim(
        &self,
        key: &QueueKey,
        name: &str,
        id: &str,
    ) -> Result<Option<(Claim, Timestamp)>> {
        let (_, group) = self.find_group(key, name).await?;
        let Ok(id) = id.parse() else { return Ok(None) };
        let now = self.now();
        Ok(self.pool.get_claim(&group.as_queue, id, now).await?.map(|claim| (claim, now)))
    }

    /// Renews a claim of a group: its ttl starts again, with new terms.
    pub(crate) async fn renew_group_claim(
        &self,
        key: &QueueKey,
        name: &str,
        id: &str,
        ttl: Option<i64>,
        grace: Option<i64>,
    ) -> Result<()> {
        let terms = self.claim_terms(ttl, grace)?;
        let (_, group) = self.find_group(key, name).await?;
        let over = || Error::NotFound(format!("the claim {id} does not exist or is over"));
        let claim = id.parse().map_err(|_| over())?;
        match self.pool.renew(&group.as_queue, claim, terms, self.now()).await {
            Err(StoreError::NotFound { .. }) => Err(over()),
            result => Ok(result?),
        }
    }

    /// Releases a claim of a group. Succeeds if the claim does not exist.
    pub(crate) async fn release_group_claim(
        &self,
        key: &QueueKey,
        name: &str,
        id: &str,
    ) -> Result<()> {
        let (_, group) = self.find_group(key, name).await?;
        if let Ok(id) = id.parse() {
            self.pool.release(&group.as_queue, id, self.now()).await?;
        }
        Ok(())
    }

    /// Acknowledges or rejects messages that a claim of the group holds.
    pub(crate) async fn acknowledge(
        &self,
        key: &QueueKey,
        name: &str,
        claim: &str,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Vec<AckResult>> {
        let (_, group) = self.find_group(key, name).await?;
        let Ok(claim) = claim.parse() else {
            return Ok(vec![AckResult::NotHeld; acknowledgements.len()]);
        };
        Ok(self.pool.acknowledge(&group.as_queue, claim, acknowledgements, self.now()).await?)
    }

    async fn find_group(&self, key: &QueueKey, name: &str) -> Result<(Arc<CachedQueue>, Group)> {
        let group = group_name(name)?;
        let cached = self.queues.find(key).await?.ok_or_else(|| no_such_group(name))?;
        let group = self.pool.get_group(cached.queue(), &group).await?;
        group.map(|group| (cached, group)).ok_or_else(|| no_such_group(name))
    }

    /// Returns the dead-letter rule of a group.
    async fn group_rule(&self, cached: &CachedQueue, group: &Group) -> Result<Option<DeadLetter>> {
        let number = |key| group.settings.get(key).and_then(Value::as_u64);
        let queue = group.settings.get(DEAD_LETTER_QUEUE).and_then(Value::as_str);
        let Some((queue, count)) =
            queue.and_then(|name| name.parse().ok()).zip(number(MAX_CLAIM_COUNT))
        else {
            return Ok(None);
        };
        let rule = DeadLetters {
            queue,
            max_claim_count: u32::try_from(count).unwrap_or(u32::MAX),
            ttl: number(DEAD_LETTER_TTL).map(Duration::from_secs),
        };
        self.resolve_rule(cached, &rule, self.now()).await.map(Some)
    }
}

fn group_name(name: &str) -> Result<GroupName> {
    name.parse().map_err(|error| Error::InvalidValue(format!("{error}, not {name:?}")))
}

fn no_such_group(name: &str) -> Error {
    Error::NotFound(format!("the group {name} does not exist"))
}

/// Checks the settings of a group.
fn check_settings(settings: &Map<String, Value>, max_ttl: i64) -> Result<()> {
    let text = |text: String| Err(Error::InvalidValue(text));
    for (key, value) in settings {
        let range = match key.as_str() {
            DEAD_LETTER_QUEUE => {
                let name = value.as_str().map(str::parse::<QueueName>);
                match name {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return text(format!("\"{key}\": {error}")),
                    None => return Err(Error::WrongType(format!("\"{key}\" must be a string"))),
                }
            }
            MAX_CLAIM_COUNT => 1..=i64::from(u32::MAX),
            DEAD_LETTER_TTL => MIN_TTL..=max_ttl,
            _ => return text(format!("a group has no setting \"{key}\"")),
        };
        let number = value
            .as_i64()
            .ok_or_else(|| Error::WrongType(format!("\"{key}\" must be an integer")))?;
        if !range.contains(&number) {
            return text(format!("\"{key}\" must be {} to {}", range.start(), range.end()));
        }
    }
    let set = |key| settings.contains_key(key);
    let is_complete = set(DEAD_LETTER_QUEUE) && set(MAX_CLAIM_COUNT);
    if is_complete || settings.is_empty() {
        Ok(())
    } else {
        text(format!("\"{DEAD_LETTER_QUEUE}\" and \"{MAX_CLAIM_COUNT}\" go together"))
    }
}
