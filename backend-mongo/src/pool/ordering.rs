//! Ordering keys: the messages with one key are claimed in order, by one claim at a time.
//!
//! A key is *available* while it has ready messages and none in flight. Claims take from the
//! available keys round-robin: a key that becomes available, or was taken from, goes to the end of
//! the order.

use storage_traits::{Result, domain::Timestamp};

use super::{side_documents::ttl_after, unit_of_work::UnitOfWork};

/// A change of the number of ready messages and messages in flight of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyDelta {
    pub(super) ready: i64,
    pub(super) in_flight: i64,
}

impl KeyDelta {
    /// A message became ready.
    pub(super) const ENQUEUED: Self = Self { ready: 1, in_flight: 0 };
    /// A ready message was removed.
    pub(super) const DEQUEUED: Self = Self { ready: -1, in_flight: 0 };
    /// A message in flight became ready again.
    pub(super) const REQUEUED: Self = Self { ready: 1, in_flight: -1 };
    /// A message in flight was removed.
    pub(super) const COMPLETED: Self = Self { ready: 0, in_flight: -1 };
}

impl UnitOfWork<'_> {
    /// Changes the state of a key, and makes it available or blocks it accordingly.
    pub(super) async fn update_key(
        &mut self,
        group_id: i64,
        key: &str,
        by: KeyDelta,
        now: Timestamp,
    ) -> Result<()> {
        let mut state = self.key_state(group_id, key).await?;
        let was_empty = state.ready == 0 && state.in_flight == 0;
        state.ready += by.ready;
        state.in_flight += by.in_flight;
        let is_available = state.ready > 0 && state.in_flight == 0;
        let is_empty = state.ready == 0 && state.in_flight == 0;
        let group = self.group(group_id)?;
        group.ready_keyed += by.ready;
        group.keys += i64::from(was_empty) - i64::from(is_empty);
        let mut claimable = 0;
        state.rotation = match (state.rotation, is_available) {
            (Some(rotation), true) => {
                claimable = by.ready.max(0);
                Some(rotation)
            }
            (None, true) => {
                group.available_keys += 1;
                claimable = state.ready;
                Some(group.next_rotation())
            }
            (rotation, false) => {
                group.available_keys -= i64::from(rotation.is_some());
                None
            }
        };
        state.garbage_at = is_empty.then(|| ttl_after(now.as_millis()));
        self.record_claimable(group_id, usize::try_from(claimable).unwrap_or(0));
        self.save_key(state);
        Ok(())
    }

    /// Moves an available key to the end of the round-robin order.
    pub(super) async fn rotate_to_back(&mut self, group_id: i64, key: &str) -> Result<()> {
        let rotation = self.group(group_id)?.next_rotation();
        let mut state = self.key_state(group_id, key).await?;
        if state.rotation.is_some() {
            state.rotation = Some(rotation);
            self.save_key(state);
        }
        Ok(())
    }
}
