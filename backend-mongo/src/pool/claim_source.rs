//! Where a claim takes its messages from: one available ordering key, or the messages without a
//! key, which count as one more key that is always available.

use storage_traits::{Result, domain::Timestamp};

use super::{bucket::MessageLocation, ordering::KeyDelta, unit_of_work::UnitOfWork};

pub(super) enum ClaimSource {
    Key {
        key: String,
        /// How many ready messages it has.
        ready: i64,
    },
    Unkeyed,
}

impl UnitOfWork<'_> {
    /// Returns the source that is first in the round-robin order. With `skip_unkeyed`, the messages
    /// without a key, which were taken from already, come only when no key is available.
    pub(super) async fn next_source(
        &mut self,
        group_id: i64,
        skip_unkeyed: bool,
    ) -> Result<Option<ClaimSource>> {
        let key = self.next_available_key(group_id).await?;
        let group = self.group(group_id)?;
        let rotation = key.as_ref().and_then(|key| key.rotation);
        let unkeyed_is_first = group.ready > 0
            && rotation.is_none_or(|rotation| !skip_unkeyed && group.unkeyed_rotation <= rotation);
        Ok(match key {
            _ if unkeyed_is_first => Some(ClaimSource::Unkeyed),
            Some(key) => Some(ClaimSource::Key { key: key.key, ready: key.ready }),
            None => None,
        })
    }

    /// Returns up to `limit` of the first ready messages of a source.
    pub(super) async fn first_ready_of(
        &mut self,
        group_id: i64,
        source: &ClaimSource,
        limit: usize,
    ) -> Result<Vec<MessageLocation>> {
        match source {
            ClaimSource::Unkeyed => self.first_ready(group_id, limit).await,
            ClaimSource::Key { key, ready } => self.first_keyed(group_id, key, *ready, limit).await,
        }
    }

    /// Counts `claimed` messages of a source as in flight, which blocks its key. The messages
    /// without a key go to the end of the round-robin order, if there are available keys.
    pub(super) async fn finish_source(
        &mut self,
        group_id: i64,
        source: &ClaimSource,
        claimed: usize,
        now: Timestamp,
    ) -> Result<()> {
        if let ClaimSource::Key { key, .. } = source {
            let claimed = i64::try_from(claimed).unwrap_or(i64::MAX);
            let delta = KeyDelta { ready: -claimed, in_flight: claimed };
            return self.update_key(group_id, key, delta, now).await;
        }
        let group = self.group(group_id)?;
        if group.available_keys > 0 {
            group.unkeyed_rotation = group.next_rotation();
        }
        Ok(())
    }
}
