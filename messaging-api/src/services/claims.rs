//! Claims: create, read, renew, release.

use std::time::Duration;

use storage_traits::{
    Limit, StoreError,
    domain::{Claim, ClaimId, ClaimSpec, ClaimTerms, DeadLetter, Metadata, QueueKey, Timestamp},
    pool::WatchFor,
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

impl Services {
    /// Claims messages, and waits if none is claimable. Returns `None` if none became claimable.
    pub(crate) async fn create_claim(
        &self,
        key: &QueueKey,
        ttl: Option<i64>,
        grace: Option<i64>,
        limit: Option<i64>,
        budget: &WaitBudget,
    ) -> Result<Option<Claim>> {
        let terms = self.claim_terms(ttl, grace)?;
        let limit = page_limit(limit, self.config.limits.max_messages_per_claim_or_pop)?;
        let mut watched = None;
        loop {
            let cached = self.queues.find(key).await?;
            if let Some(cached) = &cached
                && let Some(claim) = self.claim_now(cached, terms, limit).await?
            {
                return Ok(Some(claim));
            }
            let what = WatchFor::Claimable;
            if !self.wait_for(cached.as_deref(), what, &mut watched, budget).await? {
                return Ok(None);
            }
        }
    }

    async fn claim_now(
        &self,
        cached: &CachedQueue,
        terms: ClaimTerms,
        limit: Limit,
    ) -> Result<Option<Claim>> {
        let now = self.now();
        let (id, mut tries) = (ClaimId::random(), 3);
        loop {
            // If the dead-letter queue is deleted repeatedly, the claim goes without it.
            tries -= 1;
            let dead_letter = if tries > 0 { self.dead_letter(cached, now).await? } else { None };
            let spec = ClaimSpec { id, terms, limit, dead_letter };
            match self.pool.claim(cached.queue(), &spec, now).await {
                Err(StoreError::NotFound { .. }) if tries > 0 => {
                    self.reopen_dead_letters(cached).await?;
                }
                result => return Ok(result?),
            }
        }
    }

    /// Opens a dead-letter queue that the pool does not know, after a crash or a deletion.
    async fn reopen_dead_letters(&self, cached: &CachedQueue) -> Result<()> {
        if let Some(rule) = &cached.settings.dead_letters {
            let project = cached.queue().key.project.clone();
            let key = QueueKey { project, name: rule.queue.clone() };
            if let Some(target) = self.queues.find(&key).await? {
                self.queues.reopen(&target).await?;
            }
        }
        Ok(())
    }

    /// Returns the dead-letter rule of a queue. Creates the dead-letter queue if it is missing.
    async fn dead_letter(
        &self,
        cached: &CachedQueue,
        now: Timestamp,
    ) -> Result<Option<DeadLetter>> {
        match &cached.settings.dead_letters {
            Some(rule) => self.resolve_rule(cached, rule, now).await.map(Some),
            None => Ok(None),
        }
    }

    /// Resolves the queue that a dead-letter rule names. Creates it if it is missing.
    pub(super) async fn resolve_rule(
        &self,
        cached: &CachedQueue,
        rule: &DeadLetters,
        now: Timestamp,
    ) -> Result<DeadLetter> {
        let project = cached.queue().key.project.clone();
        let key = QueueKey { project, name: rule.queue.clone() };
        let (target, _) = self.queues.find_or_create(&key, &Metadata::default(), now).await?;
        Ok(DeadLetter {
            queue: target.queue().clone(),
            max_claim_count: rule.max_claim_count,
            ttl: rule.ttl,
            retained: target.settings.retained,
        })
    }

    /// Checks the terms of a claim, and fills in the defaults.
    pub(super) fn claim_terms(&self, ttl: Option<i64>, grace: Option<i64>) -> Result<ClaimTerms> {
        let limits = &self.config.limits;
        let bounded = |name: &str, given: Option<i64>, default: i64, max: i64| {
            let seconds = given.unwrap_or(default);
            if (MIN_TTL..=max).contains(&seconds) {
                Ok(Duration::from_secs(seconds.unsigned_abs()))
            } else {
                Err(Error::InvalidValue(format!("\"{name}\" must be {MIN_TTL} to {max} seconds")))
            }
        };
        Ok(ClaimTerms {
            ttl: bounded("ttl", ttl, limits.default_claim_ttl, limits.max_claim_ttl)?,
            grace: bounded("grace", grace, limits.default_claim_grace, limits.max_claim_grace)?,
        })
    }

    /// Reads a claim. Returns `None` if it does not exist or has ended.
    pub(crate) async fn get_claim(
        &self,
        key: &QueueKey,
        id: &str,
    ) -> Result<Option<(Claim, Timestamp)>> {
        let (Ok(id), Some(cached)) = (id.parse(), self.queues.find(key).await?) else {
            return Ok(None);
        };
        let now = self.now();
        let claim = self.pool.get_claim(cached.queue(), id, now).await?;
        Ok(claim.map(|claim| (claim, now)))
    }

    /// Renews a claim: its ttl starts again, with new terms.
    pub(crate) async fn renew_claim(
        &self,
        key: &QueueKey,
        id: &str,
        ttl: Option<i64>,
        grace: Option<i64>,
    ) -> Result<()> {
        let terms = self.claim_terms(ttl, grace)?;
        let missing = || Error::NotFound(format!("the claim {id} does not exist or is over"));
        let cached = self.queues.find(key).await?.ok_or_else(missing)?;
        let id = id.parse().map_err(|_| missing())?;
        match self.pool.renew(cached.queue(), id, terms, self.now()).await {
            Err(StoreError::NotFound { .. }) => Err(missing()),
            result => Ok(result?),
        }
    }

    /// Releases a claim: its messages become claimable. Succeeds if the claim does not exist.
    pub(crate) async fn release_claim(&self, key: &QueueKey, id: &str) -> Result<()> {
        if let (Ok(id), Some(cached)) = (id.parse(), self.queues.find(key).await?) {
            self.pool.release(cached.queue(), id, self.now()).await?;
        }
        Ok(())
    }
}
