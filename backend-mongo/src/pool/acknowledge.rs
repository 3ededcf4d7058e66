//! Acknowledgements of single messages of a claim.

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{AckOutcome, AckResult, Acknowledgement, ClaimId, Timestamp},
};

use super::{
    bodies::Final,
    bucket::MessageLocation,
    claim_state::requeue,
    operation::Operation,
    unit_of_work::{Progress, UnitOfWork},
};

pub(super) struct Acknowledge {
    pub(super) group_id: i64,
    pub(super) id: ClaimId,
    pub(super) acknowledgements: Vec<Acknowledgement>,
    pub(super) now: Timestamp,
}

#[async_trait]
impl Operation for Acknowledge {
    type Reply = Final<Vec<AckResult>>;

    async fn run(&self, unit: &mut UnitOfWork<'_>) -> Result<Progress<Self::Reply>> {
        let Self { group_id, id, acknowledgements, now } = self;
        let (group_id, now) = (*group_id, *now);
        if !unit.has_group(group_id) {
            return Ok(Progress::done(vec![AckResult::NotHeld; acknowledgements.len()]));
        }
        let ids: Vec<_> = acknowledgements.iter().map(|one| one.id).collect();
        let sequences = unit.own_sequences(&ids);
        unit.load_positions(group_id, &sequences).await?;
        let mut results = Vec::with_capacity(acknowledgements.len());
        for one in acknowledgements {
            let is_own = one.id.incarnation.get() == unit.queue_id;
            let at = unit.cache.find(group_id, one.id.sequence.get()).filter(|_| is_own);
            let is_held = |at: &MessageLocation| {
                let message = unit.cache.stored(*at);
                message.is_some_and(|it| !it.is_expired(now) && it.holder(now) == Some(*id))
            };
            let Some(at) = at.filter(is_held) else {
                results.push(AckResult::NotHeld);
                continue;
            };
            match one.outcome {
                AckOutcome::Ack => {
                    unit.remove_message(at, now).await?;
                    unit.group(group_id)?.add_completed(1, now);
                }
                AckOutcome::Nack { delay } => requeue(unit, at, now.plus(delay), now).await?,
            }
            results.push(AckResult::Applied);
        }
        Ok(Progress::done(results))
    }
}
