//! Runs a scenario against a service.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;

use crate::client::{Connection, Target};
use crate::plan::{Plan, Scenario};
use crate::report::Outcome;
use crate::server::Server;
use crate::stats::Stats;
use crate::worker::{Queue, Worker};
use crate::workers::{Workers, consume, drain, list, post};
use crate::{body, latency, prefill};

/// The service under load: a child process, or a service that was started elsewhere.
pub(crate) enum Subject {
    Child(Server),
    External(Target),
}

impl Subject {
    pub(crate) fn target(&self) -> &Target {
        match self {
            Self::Child(server) => server.target(),
            Self::External(target) => target,
        }
    }

    fn cpu(&self) -> Result<Option<Duration>> {
        match self {
            Self::Child(server) => Ok(Some(server.usage()?.cpu)),
            Self::External(_) => Ok(None),
        }
    }
}

/// Runs the plan on new queues whose names begin with `name`.
pub(crate) async fn run(subject: &Subject, plan: &Plan, name: &str) -> Result<Outcome> {
    let target = subject.target();
    let queues: Vec<_> = (0..plan.queues)
        .map(|index| {
            let name = format!("{name}-{index}");
            match plan.scenario {
                Scenario::Latency => Queue::long_polling(&name, 10),
                _ => Queue::new(&name, 10),
            }
        })
        .collect::<Result<_>>()?;
    if plan.scenario == Scenario::Latency {
        // Consumers that wait for a queue that does not exist poll once a second.
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
    let (stats, elapsed) = load(target, plan, &queues).await?;
    let cpu = subject.cpu()?.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    if matches!(subject, Subject::External(_)) {
        remove(target, &queues).await?;
    }
    Ok(Outcome { stats, elapsed, server_cpu: cpu })
}

/// Runs the plan on a child process, and stops it.
pub(crate) async fn run_on(server: Server, plan: &Plan, name: &str) -> Result<Outcome> {
    let subject = Subject::Child(server);
    let outcome = run(&subject, plan, name).await?;
    if let Subject::Child(server) = subject {
        server.stop().await?;
    }
    Ok(outcome)
}

async fn load(target: &Target, plan: &Plan, queues: &[Arc<Queue>]) -> Result<(Stats, Duration)> {
    let text = body::message_body(plan.body_bytes);
    let (one, batch) = (body::post(&text, 1)?, body::post(&text, plan.batch)?);
    let (single, count) = (plan.single_deletes, plan.batch as u64);
    let workers = Workers { target, queues, connections: plan.connections, length: plan.length };
    match plan.scenario {
        Scenario::Post => workers.run(|_, worker| post(worker, one.clone(), 1, u64::MAX)).await,
        Scenario::PostBatch => {
            workers.run(|_, worker| post(worker, batch.clone(), count, u64::MAX)).await
        }
        Scenario::List => workers.run(|_, worker| list(worker, true)).await,
        Scenario::ListFirst => workers.run(|_, worker| list(worker, false)).await,
        Scenario::ClaimDelete => workers.run(|_, worker| drain(worker, single)).await,
        Scenario::Mixed => {
            // Each queue twice, so that a poster and a consumer share it.
            let pairs: Vec<_> = queues.iter().flat_map(|queue| [queue, queue]).cloned().collect();
            let connections = plan.connections.max(2);
            let workers = Workers { queues: &pairs, connections, ..workers };
            workers.run(|index, worker| mixed(index, worker, one.clone(), single)).await
        }
        Scenario::Latency => latency::run(target, plan, queues).await,
    }
}

async fn mixed(index: usize, worker: Worker, body: Bytes, single_deletes: bool) -> Result<Stats> {
    if index.is_multiple_of(2) {
        post(worker, body, 1, u64::MAX).await
    } else {
        consume(worker, single_deletes).await
    }
}

/// Deletes the queues from a service that continues to run.
async fn remove(target: &Target, queues: &[Arc<Queue>]) -> Result<()> {
    let mut connection = Connection::open(target).await?;
    for queue in queues {
        connection.send(Method::DELETE, queue.path().parse()?, Bytes::new()).await?;
    }
    Ok(())
}
