//! The kinds of load, and how one run of each goes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::ValueEnum;
use hyper::Method;

use crate::client::{Connection, Target};
use crate::crew::{Crew, consume, drain, list, post};
use crate::report::Outcome;
use crate::server::Server;
use crate::tally::Tally;
use crate::worker::{Queue, Worker};
use crate::{body, latency, prefill};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Post messages one by one
    Post,
    /// Post messages in batches
    PostBatch,
    /// Read a filled queue, page by page of 10
    List,
    /// Read the first 10 messages of a filled queue, again and again
    ListFirst,
    /// Claim 10 messages of a filled queue and delete them, until time or messages run out
    ClaimDelete,
    /// Half of the connections post, half claim and delete; at least one of each
    Mixed,
    /// Post at a fixed rate while consumers claim; measures from post to claim
    Latency,
}

impl Scenario {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) connections: usize,
    pub(crate) length: Duration,
    pub(crate) body_bytes: usize,
    pub(crate) batch: usize,
    pub(crate) queues: usize,
    /// Messages in each queue before a scenario that only reads or consumes.
    pub(crate) prefill: u64,
    pub(crate) single_deletes: bool,
    /// Posts per second of the latency scenario.
    pub(crate) rate: u32,
    pub(crate) consumers: usize,
}

impl Plan {
    /// Single posts to one queue; other scenarios take their usual figures from here too.
    pub(crate) fn posts(connections: usize, length: Duration, body_bytes: usize) -> Self {
        Self {
            scenario: Scenario::Post,
            connections,
            length,
            body_bytes,
            batch: 10,
            queues: 1,
            prefill: 10_000,
            single_deletes: false,
            rate: 100,
            consumers: 1,
        }
    }
}

/// What is under load: a child of ours, or a service that somebody else runs.
pub(crate) enum Subject {
    Child(Server),
    Foreign(Target),
}

impl Subject {
    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Child(server) => server.target(),
            Self::Foreign(target) => target,
        }
    }

    fn cpu(&self) -> Result<Option<Duration>> {
        match self {
            Self::Child(server) => Ok(Some(server.usage()?.cpu)),
            Self::Foreign(_) => Ok(None),
        }
    }
}

/// Runs the plan on fresh queues called after `name`.
pub(crate) async fn run(subject: &Subject, plan: &Plan, name: &str) -> Result<Outcome> {
    let target = subject.target();
    let queues: Vec<_> = (0..plan.queues)
        .map(|index| {
            let name = format!("{name}-{index}");
            match plan.scenario {
                Scenario::Latency => Queue::patient(&name, 10),
                _ => Queue::new(&name, 10),
            }
        })
        .collect::<Result<_>>()?;
    if plan.scenario == Scenario::Latency {
        // A queue that is there from the start: those who wait for one that is not look once a second.
        for queue in &queues {
            prefill::create(target, queue).await?;
        }
    }
    if matches!(plan.scenario, Scenario::List | Scenario::ListFirst | Scenario::ClaimDelete) {
        for queue in &queues {
            prefill::fill(target, queue, plan.prefill, plan.body_bytes).await?;
        }
    }
    let cpu_before = subject.cpu()?;
    let (tally, elapsed) = load(target, plan, &queues).await?;
    let cpu = subject.cpu()?.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    if matches!(subject, Subject::Foreign(_)) {
        remove(target, &queues).await?;
    }
    Ok(Outcome { tally, elapsed, server_cpu: cpu })
}

/// Runs the plan on a child, and stops it.
pub(crate) async fn run_on(server: Server, plan: &Plan, name: &str) -> Result<Outcome> {
    let subject = Subject::Child(server);
    let outcome = run(&subject, plan, name).await?;
    if let Subject::Child(server) = subject {
        server.stop().await?;
    }
    Ok(outcome)
}

async fn load(target: &Target, plan: &Plan, queues: &[Arc<Queue>]) -> Result<(Tally, Duration)> {
    let text = body::message_body(plan.body_bytes);
    let (one, batch) = (body::post(&text, 1)?, body::post(&text, plan.batch)?);
    let (single, count) = (plan.single_deletes, plan.batch as u64);
    let crew = Crew { target, queues, connections: plan.connections, length: plan.length };
    match plan.scenario {
        Scenario::Post => crew.run(|_, worker| post(worker, one.clone(), 1, u64::MAX)).await,
        Scenario::PostBatch => {
            crew.run(|_, worker| post(worker, batch.clone(), count, u64::MAX)).await
        }
        Scenario::List => crew.run(|_, worker| list(worker, true)).await,
        Scenario::ListFirst => crew.run(|_, worker| list(worker, false)).await,
        Scenario::ClaimDelete => crew.run(|_, worker| drain(worker, single)).await,
        Scenario::Mixed => {
            // Each queue twice, so that a poster and a consumer share it.
            let pairs: Vec<_> = queues.iter().flat_map(|queue| [queue, queue]).cloned().collect();
            let connections = plan.connections.max(2);
            let crew = Crew { queues: &pairs, connections, ..crew };
            crew.run(|index, worker| mixed(index, worker, one.clone(), single)).await
        }
        Scenario::Latency => latency::run(target, plan, queues).await,
    }
}

async fn mixed(index: usize, worker: Worker, body: Bytes, single_deletes: bool) -> Result<Tally> {
    if index.is_multiple_of(2) {
        post(worker, body, 1, u64::MAX).await
    } else {
        consume(worker, single_deletes).await
    }
}

/// Leaves a service that goes on living as it was found.
async fn remove(target: &Target, queues: &[Arc<Queue>]) -> Result<()> {
    let mut connection = Connection::open(target).await?;
    for queue in queues {
        connection.send(Method::DELETE, queue.path().parse()?, Bytes::new()).await?;
    }
    Ok(())
}
