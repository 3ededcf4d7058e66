//! End-to-end latency: the time from the start of a post to the claim that returns its message.
//!
//! Posts are sent on a schedule that does not depend on the server. Consumers claim by long
//! polling. Both are tasks of one process, so the time in the body and the time of the claim share
//! a clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::body;
use crate::client::{Connection, Target};
use crate::plan::Plan;
use crate::responses::stamp;
use crate::stats::{Op, Stats, gather};
use crate::worker::{Queue, Worker};

/// How long consumers continue after the last post, to receive the last messages.
const DRAIN_TIME: Duration = Duration::from_millis(500);

pub(crate) async fn run(
    target: &Target,
    plan: &Plan,
    queues: &[Arc<Queue>],
) -> Result<(Stats, Duration)> {
    // Each queue needs a consumer. Messages that are never claimed would not be counted.
    let consumers = plan.consumers.max(queues.len());
    let mut connections = Connection::open_many(target, plan.connections + consumers).await?;
    let consumers = connections.split_off(plan.connections);
    let template = PostTemplate::new(plan.body_bytes)?;

    let start = Instant::now();
    let until = start + plan.length;
    let mut workers = JoinSet::new();
    for (index, connection) in (0u32..).zip(connections) {
        let queue = &queues[index as usize % queues.len()];
        let worker = Worker::new(connection, queue, until);
        let schedule = schedule(start, plan.rate, index, u32::try_from(plan.connections)?);
        workers.spawn(post(worker, schedule, template.clone(), start));
    }
    for (index, connection) in consumers.into_iter().enumerate() {
        let queue = &queues[index % queues.len()];
        workers.spawn(consume(Worker::new(connection, queue, until + DRAIN_TIME), start));
    }
    let stats = gather(workers, plan.length).await?;
    Ok((stats, plan.length))
}

/// Returns the ticks of one of several posters that share a rate evenly.
fn schedule(start: Instant, rate: u32, poster: u32, posters: u32) -> Interval {
    let gap = Duration::from_secs(1) / rate;
    let mut schedule = interval_at((start + gap * poster).into(), gap * posters);
    // Late posts are caught up. Otherwise, a slow server would reduce the rate.
    schedule.set_missed_tick_behavior(MissedTickBehavior::Burst);
    schedule
}

async fn post(
    mut worker: Worker,
    mut schedule: Interval,
    template: PostTemplate,
    start: Instant,
) -> Result<Stats> {
    loop {
        schedule.tick().await;
        if !worker.has_time() {
            return Ok(worker.into_stats());
        }
        worker.post(template.at(start.elapsed()), 1).await?;
    }
}

async fn consume(mut worker: Worker, start: Instant) -> Result<Stats> {
    while worker.has_time() {
        let Some(claimed) = worker.claim().await? else { continue };
        for time in claimed.stamps() {
            let taken = claimed.at.saturating_duration_since(start + time);
            worker.stats().record(Op::EndToEnd, 1, taken);
        }
        worker.delete(&claimed).await?;
    }
    Ok(worker.into_stats())
}

/// A post that lacks the time at which it is sent.
#[derive(Clone)]
struct PostTemplate {
    before: Bytes,
    after: Bytes,
}

impl PostTemplate {
    fn new(body_bytes: usize) -> Result<Self> {
        let space = stamp(Duration::ZERO);
        let filler = "x".repeat(body_bytes.saturating_sub(space.len() + 2));
        let post = body::post(&format!("\"{space}{filler}\""), 1)?;
        let at = memchr::memmem::find(&post, space.as_bytes()).unwrap_or_default();
        Ok(Self { before: post.slice(..at), after: post.slice(at + space.len()..) })
    }

    fn at(&self, time: Duration) -> Bytes {
        let stamp = stamp(time);
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
    use crate::responses::stamps;

    #[test]
    fn a_post_is_json_of_the_requested_size_with_its_time() {
        let time = Duration::from_millis(1500);
        let post = PostTemplate::new(1024).unwrap().at(time);
        let json: serde_json::Value = serde_json::from_slice(&post).unwrap();
        assert_eq!(json["messages"][0]["body"].as_str().unwrap().len(), 1022);
        assert_eq!(stamps(&post).collect::<Vec<_>>(), [time]);
    }
}
