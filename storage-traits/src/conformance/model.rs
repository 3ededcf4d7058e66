//! Model-based cases: random steps on the pool under test and on the reference pool must have equal
//! results.

use std::{fmt::Debug, num::NonZeroU32, time::Duration};

use proptest::{
    collection, option,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tokio::runtime::Handle;

use super::{
    ReferencePool, TestPool, TestQueue,
    builders::{ack, client, limit, list_all, message, nack, terms},
};
use crate::{
    Result, StoreError,
    domain::{
        ClaimId, ClaimSpec, ClaimTerms, ClientId, DeadLetter, Deduplication, Delivery, GroupName,
        MessageId, Metadata, NewMessage, QueueRef, Sequence, StartPoint, Timestamp,
    },
    pool::{ListSpec, MessagePool, PoolMaintenance, RedriveSpec},
};

const CASES: u32 = 64;
const STEPS: usize = 120;

/// Message: index of one of the two queues, and sequence.
type Pick = (usize, i64);

/// Earlier claim: 0 is the last one, 1 the one before it.
type Back = usize;

/// Message to post; times in seconds.
#[derive(Debug, Clone)]
struct Draft {
    ttl: u64,
    delay: u64,
    /// Whether the delay is given as a time.
    scheduled: bool,
    /// One of a few deduplication ids, and its window.
    deduplication: Option<(u8, u64)>,
    retained: bool,
    /// One of a few ordering keys, if the case uses them.
    key: Option<u8>,
}

#[derive(Debug, Clone)]
enum Step {
    Post { client: usize, drafts: Vec<Draft> },
    List { spec: ListSpec },
    Get { picks: Vec<Pick> },
    Delete { pick: Pick, claim: Option<Back> },
    DeleteMany { picks: Vec<Pick>, claims: Vec<Back> },
    Claim { terms: ClaimTerms, limit: u32, dead_letter: Option<(u32, Option<u64>, bool)> },
    GetClaim { claim: Back },
    Renew { claim: Back, terms: ClaimTerms },
    Release { claim: Back },
    Acknowledge { claim: Back, picks: Vec<(Pick, Option<u64>)> },
    Reschedule { pick: Pick, seconds: u64 },
    Redrive { limit: u32, rate: Option<u32> },
    Seek { to: StartPoint },
    Pop { limit: u32 },
    Purge,
    Stats,
    Sweep,
    Advance { millis: u64 },
}

pub async fn every_result_equals_that_of_the_reference(pool: &TestPool) {
    run(pool, false).await;
}

/// Uses ordering keys, and no dead letters. A pool may choose the key to serve next within limits;
/// the case checks that the choice is allowed, and that no claim is smaller than it could be.
pub async fn with_ordering_keys_every_result_is_allowed(pool: &TestPool) {
    run(pool, true).await;
}

async fn run(pool: &TestPool, keyed: bool) {
    let (pool, handle) = (pool.clone(), Handle::current());
    let run = move || {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed());
        let steps = collection::vec((0..3_usize, step()), 1..STEPS);
        TestRunner::new_with_rng(config, rng).run(&steps, |steps| {
            handle.block_on(compare(&pool, keyed, &steps));
            Ok(())
        })
    };
    let outcome = tokio::task::spawn_blocking(run).await.unwrap();
    outcome.unwrap_or_else(|difference| panic!("{difference}"));
}

/// Returns the seed: the same in every run, unless `MODEL_SEED` is set to another number.
#[expect(clippy::disallowed_methods, reason = "a suite has no configuration")]
fn seed() -> [u8; 32] {
    let number = std::env::var("MODEL_SEED").map_or(0, |seed| seed.parse::<u64>().unwrap());
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed
}

fn step() -> impl Strategy<Value = Step> {
    let pick = || (0..2_usize, 0..16_i64);
    let back = || 0..4_usize;
    let claim_terms = || (1..8_u64, 0..5_u64).prop_map(|(ttl, grace)| terms(ttl, grace));
    let times =
        (prop_oneof![1 => 1..6_u64, 2 => 5..40_u64], prop_oneof![3 => Just(0), 1 => 1..6_u64]);
    let deduplication = option::weighted(0.3, (0..4_u8, 1..20_u64));
    let key = option::weighted(0.8, 0..3_u8);
    let draft = (times, any::<bool>(), deduplication, any::<bool>(), key).prop_map(
        |((ttl, delay), scheduled, deduplication, retained, key)| Draft {
            ttl,
            delay,
            scheduled,
            deduplication,
            retained,
            key,
        },
    );
    let position = (1..16_i64).prop_map(|n| StartPoint::Sequence(Sequence::new(n).unwrap()));
    let point =
        prop_oneof![3 => Just(StartPoint::Start), 1 => Just(StartPoint::End), 2 => position];
    let retry = option::of(prop_oneof![1 => Just(0), 1 => 1..10_u64]);
    let to_itself = prop_oneof![9 => Just(false), 1 => Just(true)];
    let dead_letter = (0..4_u32, option::of(1..20_u64), to_itself);
    let millis = prop_oneof![3 => (1..6_u64).prop_map(|s| s * 1_000), 1 => 1..3_000_u64];
    prop_oneof![
        6 => (0..2_usize, collection::vec(draft, 1..5))
            .prop_map(|(client, drafts)| Step::Post { client, drafts }),
        4 => list_spec().prop_map(|spec| Step::List { spec }),
        2 => collection::vec(pick(), 0..6).prop_map(|picks| Step::Get { picks }),
        6 => (pick(), option::of(back())).prop_map(|(pick, claim)| Step::Delete { pick, claim }),
        3 => (collection::vec(pick(), 0..6), collection::vec(back(), 0..2))
            .prop_map(|(picks, claims)| Step::DeleteMany { picks, claims }),
        6 => (claim_terms(), 1..6_u32, option::of(dead_letter))
            .prop_map(|(terms, limit, dead_letter)| Step::Claim { terms, limit, dead_letter }),
        2 => back().prop_map(|claim| Step::GetClaim { claim }),
        2 => (back(), claim_terms()).prop_map(|(claim, terms)| Step::Renew { claim, terms }),
        2 => back().prop_map(|claim| Step::Release { claim }),
        4 => (back(), collection::vec((pick(), retry), 0..4))
            .prop_map(|(claim, picks)| Step::Acknowledge { claim, picks }),
        2 => (pick(), 0..20_u64).prop_map(|(pick, seconds)| Step::Reschedule { pick, seconds }),
        2 => (1..4_u32, option::of(1..4_u32))
            .prop_map(|(limit, rate)| Step::Redrive { limit, rate }),
        1 => point.prop_map(|to| Step::Seek { to }),
        2 => (1..4_u32).prop_map(|limit| Step::Pop { limit }),
        1 => Just(Step::Purge),
        3 => Just(Step::Stats),
        1 => Just(Step::Sweep),
        6 => millis.prop_map(|millis| Step::Advance { millis }),
    ]
}

fn list_spec() -> impl Strategy<Value = ListSpec> {
    let hidden = option::weighted(0.3, (0..2_usize).prop_map(client_number));
    let after = option::of((0..16_i64).prop_map(|n| Sequence::new(n).unwrap()));
    let ready = prop_oneof![4 => Just(true), 1 => Just(false)];
    (after, 1..8_u32, hidden, ready, any::<bool>(), any::<bool>()).prop_map(
        |(after, n, hide_client, include_free, include_claimed, include_delayed)| {
            let limit = limit(n);
            ListSpec { after, limit, hide_client, include_free, include_claimed, include_delayed }
        },
    )
}

fn client_number(n: usize) -> ClientId {
    client(["first", "second"][n])
}

/// Takes the steps on two new queues of the pool and on a group of the first, and on the same of a
/// reference pool, and compares the results.
async fn compare(pool: &TestPool, keyed: bool, steps: &[(usize, Step)]) {
    let reference = ReferencePool::default();
    let queues = [pool.queue().await, pool.queue().await];
    for queue in &queues {
        reference.open_queue(&queue.queue).await.unwrap();
    }
    let name: GroupName = "group".parse().unwrap();
    let mut groups = Vec::new();
    for pool in [&*pool.pool, &reference as &dyn MessagePool] {
        let (of, settings) = (&queues[0].queue, Metadata::default());
        let created = pool.create_group(of, &name, StartPoint::Start, &settings, queues[0].now());
        groups.push(created.await.unwrap().0.as_queue);
    }
    let mut run = Run { queues, keyed, claims: Vec::new(), now: pool.now() };
    for (n, (queue, step)) in steps.iter().enumerate() {
        if let Step::Advance { millis } = step {
            pool.advance(Duration::from_millis(*millis));
            run.now = pool.now();
        }
        if let Step::Claim { .. } = step {
            run.claims.push(ClaimId::from_bytes((n as u128).to_be_bytes()));
        }
        if let Step::Seek { to } = step {
            for (n, pool) in [&*pool.pool, &reference as &dyn MessagePool].into_iter().enumerate() {
                let moved = pool.seek_group(&run.queues[0].queue, &name, *to, run.now).await;
                groups[n] = moved.unwrap().unwrap().as_queue;
            }
        }
        let result = run.take(&*pool.pool, &groups[0], *queue, step).await;
        let chooses = keyed && matches!(step, Step::Claim { .. } | Step::Pop { .. });
        let chosen = if chooses { run.ids_in(&result) } else { Vec::new() };
        let on = run.target(&groups[1], *queue);
        reference.prefer(on, chosen).unwrap();
        let expected = run.take(&reference, &groups[1], *queue, step).await;
        reference.prefer(on, Vec::new()).unwrap();
        assert_eq!(result, expected, "step {n}: {step:?} on queue {queue}");
    }
    for n in 0..3 {
        let list = Step::List { spec: list_all(1_000) };
        let result = run.take(&*pool.pool, &groups[0], n, &list).await;
        let expected = run.take(&reference, &groups[1], n, &list).await;
        assert_eq!(result, expected, "after the last step, on queue {n}");
    }
    for queue in &run.queues {
        pool.pool.drop_queue(&queue.queue).await.unwrap();
    }
}

impl Draft {
    fn at(&self, now: Timestamp, keyed: bool) -> NewMessage {
        let delay = Duration::from_secs(self.delay);
        let delivery =
            if self.scheduled { Delivery::At(now.plus(delay)) } else { Delivery::After(delay) };
        let deduplication = self.deduplication.map(|(id, window)| Deduplication {
            id: id.to_string().parse().unwrap(),
            window: Duration::from_secs(window),
        });
        let (ttl, retained) = (Duration::from_secs(self.ttl), self.retained);
        let ordering_key = self.key.filter(|_| keyed).map(|key| key.to_string().parse().unwrap());
        NewMessage { ttl, delivery, ordering_key, deduplication, retained, ..message("1") }
    }
}

struct Run {
    queues: [TestQueue; 2],
    keyed: bool,
    claims: Vec<ClaimId>,
    now: Timestamp,
}

impl Run {
    fn id(&self, (queue, sequence): Pick) -> MessageId {
        self.queues[queue].id(sequence)
    }

    /// Returns the ids of the picks without duplicates.
    fn ids(&self, picks: &[Pick]) -> Vec<MessageId> {
        let first = |n: &usize| !picks[..*n].contains(&picks[*n]);
        (0..picks.len()).filter(first).map(|n| self.id(picks[n])).collect()
    }

    fn target<'q>(&'q self, group: &'q QueueRef, queue: usize) -> &'q QueueRef {
        self.queues.get(queue).map_or(group, |queue| &queue.queue)
    }

    /// Returns the ids of the messages in a result.
    fn ids_in(&self, result: &str) -> Vec<MessageId> {
        let all = self.queues.iter().flat_map(|queue| (1..500).map(|n| queue.id(n)));
        all.filter(|id| result.contains(&format!("id: {id:?}"))).collect()
    }

    fn claim(&self, back: Back) -> ClaimId {
        let unknown = ClaimId::from_bytes([0xff; 16]);
        self.claims.iter().rev().nth(back).copied().unwrap_or(unknown)
    }

    /// Takes one step and returns the result as text.
    async fn take(
        &self,
        pool: &dyn MessagePool,
        group: &QueueRef,
        queue: usize,
        step: &Step,
    ) -> String {
        let (now, on) = (self.now, self.target(group, queue));
        let other = &self.queues[usize::from(queue != 1)].queue;
        match step {
            Step::Post { client, drafts } => {
                let messages = drafts.iter().map(|draft| draft.at(now, self.keyed)).collect();
                render(pool.post(on, &client_number(*client), messages, now).await)
            }
            Step::List { spec } => render(pool.list(on, spec, now).await),
            Step::Get { picks } => render(pool.get(on, &self.ids(picks), now).await),
            Step::Delete { pick, claim } => {
                let claim = claim.map(|back| self.claim(back));
                render(pool.delete(on, self.id(*pick), claim, now).await)
            }
            Step::DeleteMany { picks, claims } => {
                let claims: Vec<_> = claims.iter().map(|back| self.claim(*back)).collect();
                render(pool.delete_many(on, &self.ids(picks), &claims, now).await)
            }
            Step::Claim { terms, limit: n, dead_letter } => {
                let dead_letter =
                    dead_letter.filter(|_| !self.keyed).map(|(max_claim_count, ttl, to_itself)| {
                        DeadLetter {
                            queue: if to_itself { on } else { other }.clone(),
                            max_claim_count,
                            ttl: ttl.map(Duration::from_secs),
                            retained: max_claim_count == 1,
                        }
                    });
                let (id, terms, limit) = (self.claim(0), *terms, limit(*n));
                render(pool.claim(on, &ClaimSpec { id, terms, limit, dead_letter }, now).await)
            }
            Step::GetClaim { claim } => render(pool.get_claim(on, self.claim(*claim), now).await),
            Step::Renew { claim, terms } => {
                render(pool.renew(on, self.claim(*claim), *terms, now).await)
            }
            Step::Release { claim } => render(pool.release(on, self.claim(*claim), now).await),
            Step::Acknowledge { claim, picks } => {
                let acknowledgement = |(pick, retry): &(Pick, Option<u64>)| match retry {
                    None => ack(self.id(*pick)),
                    Some(retry) => nack(self.id(*pick), Duration::from_secs(*retry)),
                };
                let all: Vec<_> = picks.iter().map(acknowledgement).collect();
                render(pool.acknowledge(on, self.claim(*claim), &all, now).await)
            }
            Step::Reschedule { pick, seconds } => {
                let time = now.plus(Duration::from_secs(*seconds));
                render(pool.reschedule(on, self.id(*pick), time, now).await)
            }
            Step::Redrive { limit: n, rate } => {
                let rate = rate.and_then(NonZeroU32::new);
                render(pool.redrive(on, RedriveSpec { limit: limit(*n), rate }, now).await)
            }
            Step::Pop { limit: n } => render(pool.pop(on, limit(*n), now).await),
            Step::Purge => render(pool.purge(on, now).await),
            Step::Stats => render(pool.stats(on, now).await),
            // No call, so that the pool does not apply what is due.
            Step::Advance { .. } | Step::Seek { .. } => String::new(),
            // The amount of work in a sweep is not specified.
            Step::Sweep => render(pool.sweep(now).await.map(drop)),
        }
    }
}

fn render<T: Debug>(result: Result<T>) -> String {
    match result {
        Ok(result) => format!("{result:?}"),
        Err(StoreError::NotFound { .. }) => "not found".to_owned(),
        Err(error) => panic!("{error}"),
    }
}
