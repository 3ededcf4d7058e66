//! The state of claims and of the messages that they hold.

use storage_traits::{
    Result,
    domain::{ClaimId, ClaimTerms, Timestamp},
};

use super::{
    bucket::MessageLocation,
    side_documents::ClaimRecord,
    stored_message::{State, StoredMessage, whole_seconds},
    unit_of_work::UnitOfWork,
};

/// Returns a claim, if it is live at `now`.
pub(super) async fn live_claim(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    id: ClaimId,
    now: Timestamp,
) -> Result<Option<ClaimRecord>> {
    if !unit.has_group(group_id) {
        return Ok(None);
    }
    Ok(unit.claim(group_id, id).await?.filter(|claim| claim.is_alive(now)))
}

/// Returns the messages that a live claim still holds, in order.
pub(super) async fn claimed_messages(
    unit: &mut UnitOfWork<'_>,
    group_id: i64,
    id: ClaimId,
    claim: &ClaimRecord,
    now: Timestamp,
) -> Result<Vec<MessageLocation>> {
    let found = unit.find(group_id, &claim.sequences, now).await?;
    let is_held = |at: &MessageLocation| {
        let message = unit.cache.stored(*at);
        message.is_some_and(|it| it.state == State::Claimed && it.claim() == Some(id))
    };
    Ok(found.into_iter().filter(is_held).collect())
}

/// Marks a message as claimed, and extends its ttl if it would expire before the claim.
pub(super) fn set_claimed(
    message: &mut StoredMessage,
    claim: ClaimId,
    terms: ClaimTerms,
    now: Timestamp,
) {
    message.state = State::Claimed;
    message.set_claim(Some(claim));
    let claim_expires_at = now.plus(terms.ttl).as_millis();
    if message.expires_at < claim_expires_at {
        let ttl = terms.ttl.saturating_add(terms.grace);
        message.ttl = whole_seconds(ttl);
        message.expires_at = now.plus(ttl).as_millis();
    }
    message.claim_expires_at = Some(claim_expires_at);
}

/// Returns a claimed message to the queue: ready at once, or delayed until `visible_at`.
pub(super) async fn requeue(
    unit: &mut UnitOfWork<'_>,
    at: MessageLocation,
    visible_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    if visible_at <= now {
        unit.change(at, |message| message.set_claim(None))?;
        return unit.make_ready(at, now).await;
    }
    let message = unit.change(at, |message| {
        message.set_claim(None);
        message.state = State::Delayed;
        message.claim_expires_at = None;
        message.set_visible_at(visible_at.as_millis());
    })?;
    unit.record_due(at.group_id, message.next_transition());
    let group = unit.group(at.group_id)?;
    group.claimed -= 1;
    group.delayed += 1;
    Ok(())
}

impl UnitOfWork<'_> {
    pub(super) fn change_claim(&mut self, group_id: i64, id: ClaimId, claim: ClaimRecord) {
        self.dirty = true;
        self.cache.claims.insert((group_id, id.to_bytes()), Some(claim.clone()));
        // A claim that the same unit of work creates is stored in its last state.
        match self.new_claims.iter_mut().find(|new| new.id == claim.id) {
            Some(new) => *new = claim,
            None => self.changed_claims.push(claim),
        }
    }
}
