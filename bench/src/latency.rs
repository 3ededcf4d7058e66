//! End to end: how long a message takes from the start of its post to the claim that holds it.
//!
//! Posts go out on a schedule, whatever the server does; consumers claim by
//! long polling. Both are
//! tasks of one process, so the moment in the body and the moment of the claim share a clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::answers::stamp;
use crate::body;
use crate::client::{Connection, Target};
use crate::scenario::Plan;
use crate::tally::{Op, Tally, gather};
use crate::worker::{Queue, Worker};

/// How long consumers go on after the last post, to catch what is under way.
const AFTERMATH: Duration = Duration::from_millis(500);

pub(crate) async fn run(
    target: &Target,
    plan: &Plan,
    queues: &[Arc<Queue>],
) -> Result<(Tally, Duration)> {
    // What nobody claims would count as posted but never as received.
    let consumers = plan.consumers.max(queues.len());
    let mut connections = Connection::open_many(target, plan.connections + consumers).await?;
    let consumers = connections.split_off(plan.connections);
    let envelope = Envelope::new(plan.body_bytes)?;

    let start = Instant::now();
    let until = start + plan.length;
    let mut workers = JoinSet::new();
    for (index, connection) in (0u32..).zip(connections) {
        let queue = &queues[index as usize % queues.len()];
        let worker = Worker::new(connection, queue, until);
        let schedule = schedule(start, plan.rate, index, u32::try_from(plan.connections)?);
        workers.spawn(post(worker, schedule, envelope.clone(), start));
    }
    for (index, connection) in consumers.into_iter().enumerate() {
        let queue = &queues[index % queues.len()];
        workers.spawn(consume(Worker::new(connection, queue, until + AFTERMATH), start));
    }
    let tally = gather(workers, plan.length).await?;
    Ok((tally, plan.length))
}

/// The ticks of one of several posters that share a rate evenly.
fn schedule(start: Instant, rate: u32, poster: u32, posters: u32) -> Interval {
    let gap = Duration::from_secs(1) / rate;
    let mut schedule = interval_at((start + gap * poster).into(), gap * posters);
    // A late post is made up for, or a slow server would choose its own rate.
    schedule.set_missed_tick_behavior(MissedTickBehavior::Burst);
    schedule
}

async fn post(
    mut worker: Worker,
    mut schedule: Interval,
    envelope: Envelope,
    start: Instant,
) -> Result<Tally> {
    loop {
        schedule.tick().await;
        if !worker.has_time() {
            return Ok(worker.into_tally());
        }
        worker.post(envelope.seal(start.elapsed()), 1).await?;
    }
}

async fn consume(mut worker: Worker, start: Instant) -> Result<Tally> {
    while worker.has_time() {
        let Some(claimed) = worker.claim().await? else { continue };
        for moment in claimed.stamps() {
            let taken = claimed.at.saturating_duration_since(start + moment);
            worker.tally().record(Op::EndToEnd, 1, taken);
        }
        worker.delete(&claimed).await?;
    }
    Ok(worker.into_tally())
}

/// A post with a place for the moment it is sent.
#[derive(Clone)]
struct Envelope {
    before: Bytes,
    after: Bytes,
}

impl Envelope {
    fn new(body_bytes: usize) -> Result<Self> {
        let space = stamp(Duration::ZERO);
        let filler = "x".repeat(body_bytes.saturating_sub(space.len() + 2));
        let post = body::post(&format!("\"{space}{filler}\""), 1)?;
        let at = memchr::memmem::find(&post, space.as_bytes()).unwrap_or_default();
        Ok(Self { before: post.slice(..at), after: post.slice(at + space.len()..) })
    }

    fn seal(&self, moment: Duration) -> Bytes {
        let stamp = stamp(moment);
        let length = self.before.len() + stamp.len() + self.after.len();
        let mut post = BytesMut::with_capacity(length);
        post.put(&self.before[..]);
        post.put(stamp.as_bytes());
        post.put(&self.after[..]);
        post.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::stamps;

    #[test]
    fn a_sealed_post_is_json_of_the_size_asked_for_and_tells_its_moment() {
        let moment = Duration::from_millis(1500);
        let post = Envelope::new(1024).unwrap().seal(moment);
        let json: serde_json::Value = serde_json::from_slice(&post).unwrap();
        assert_eq!(json["messages"][0]["body"].as_str().unwrap().len(), 1022);
        assert_eq!(stamps(&post).collect::<Vec<_>>(), [moment]);
    }
}
