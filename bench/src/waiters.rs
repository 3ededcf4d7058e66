//! `waiters`: the cost of claims that wait on idle queues.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::args::{Output, Paths, connections};
use crate::checks::{Check, Target, checks_table};
use crate::client::Connection;
use crate::process::mib;
use crate::report::write_json;
use crate::server::Server;

/// Maximum wait of a claim in the API, in seconds.
const WAIT: u64 = 30;
/// Interval between groups of ten claims.
const GAP: Duration = Duration::from_millis(5);
/// How long the service may take to accept all claims.
const ACCEPT_TIME: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    /// Claims that wait, each on a queue of its own
    #[arg(long, default_value = "5000", value_parser = connections())]
    waiters: usize,
    /// Length of the measurement in seconds, within one wait
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=20))]
    seconds: u64,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let dir = args.paths.fresh_dir()?;
    let server = Server::start(args.paths.service()?, dir.path()).await?;
    let mut first = Connection::open(server.target()).await?;
    for number in 0..args.waiters {
        let path = format!("/v2/queues/idle-{number}").parse()?;
        let response = first.send(Method::PUT, path, Bytes::new()).await?;
        ensure!(response.status == 201, "creating a queue returned {}", response.status);
    }
    let before = server.usage()?;

    let mut connections = Connection::open_many(server.target(), args.waiters).await?;
    let begun = Instant::now();
    let mut waiting = JoinSet::new();
    for (number, mut connection) in connections.drain(..).enumerate() {
        // A burst of all claims would be a different measurement.
        if number % 10 == 0 {
            sleep_until(begun + GAP * u32::try_from(number / 10)?).await;
        }
        let path = format!("/v2/queues/idle-{number}/claims?wait={WAIT}").parse()?;
        waiting.spawn(async move {
            connection.send(Method::POST, path, Bytes::from_static(b"{}")).await
        });
    }
    sleep_until(begun + ACCEPT_TIME).await;
    ensure!(waiting.try_join_next().is_none(), "a claim returned too early");
    let start = server.usage()?;
    sleep_until(begun + ACCEPT_TIME + Duration::from_secs(args.seconds)).await;
    let end = server.usage()?;
    while let Some(response) = waiting.join_next().await {
        let response = response.context("the task of a claim failed")??;
        ensure!(response.status == 204, "a claim on an idle queue returned {}", response.status);
    }
    let usage = server.stop().await?;

    let busy = end.cpu.saturating_sub(start.cpu).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "seconds are few")]
    let percent = 100.0 * busy / args.seconds as f64;
    let memory = mib(end.rss_kib.saturating_sub(before.rss_kib));
    let of = |what: &str| format!("{} waiting claims: {what}", args.waiters);
    let checks = [
        Check::value(of("percent of a core"), &[percent], Target::Below(2.0)),
        Check::value(of("memory, MiB"), &[memory], Target::Below(40.0)),
    ];
    println!("{}\n{}", checks_table(&checks), usage.line());
    write_json(&args.output, "waiters", json!({ "checks": checks, "server": usage }))
}
