//! `groups`: the cost of consumer groups for the producers of their queue.
//!
//! Both queues are on one server and are posted to in turn. The groups have no consumers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use hyper::Method;
use serde_json::json;

use crate::args::{BodyArgs, Output, Paths, connections};
use crate::body;
use crate::checks::{Check, Target, checks_table};
use crate::client::Connection;
use crate::report::{Label, Outcome, Row, rows_table, write_json};
use crate::server::Server;
use crate::worker::Queue;
use crate::workers::{Workers, post};

const TARGET: Target = Target::AtLeast(0.5);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    /// Number of consumer groups
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    groups: u32,
    /// Concurrent connections
    #[arg(long, default_value = "64", value_parser = connections())]
    connections: usize,
    /// Length of a run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to load each queue
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let dir = args.paths.fresh_dir()?;
    let server = Server::start(args.paths.service()?, dir.path()).await?;
    let (plain, grouped) = (Queue::new("plain", 10)?, Queue::new("grouped", 10)?);
    let mut connection = Connection::open(server.target()).await?;
    for group in 0..args.groups {
        let path = format!("{}/groups/group-{group}", grouped.path()).parse()?;
        let response = connection.send(Method::PUT, path, Bytes::from_static(b"{}")).await?;
        ensure!(response.status == 201, "creating a group returned {}", response.status);
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        eprintln!("round {round}");
        without.extend(measure(args, &server, &plain, "no groups", round).await?);
        let name = format!("{} groups", args.groups);
        with.extend(measure(args, &server, &grouped, &name, round).await?);
    }
    let usage = server.stop().await?;
    let each = |rows: &[Row]| rows.iter().map(|row| row.requests_per_s).collect::<Vec<_>>();
    let what = format!("posts/s: {} groups / none", args.groups);
    let checks = [Check::ratio(what, &each(&with), &each(&without), TARGET)];
    let rows: Vec<_> = without.into_iter().zip(with).flat_map(|(a, b)| [a, b]).collect();
    println!("{}\n{}\n{}", rows_table(&rows), checks_table(&checks), usage.line());
    let figures = json!({ "rows": rows, "checks": checks, "server": usage });
    write_json(&args.output, "groups", figures)
}

async fn measure(
    args: &Args,
    server: &Server,
    queue: &Arc<Queue>,
    scenario: &str,
    round: u32,
) -> Result<Vec<Row>> {
    let body = body::post(&body::message_body(args.body.body_bytes), 1)?;
    let workers = Workers {
        target: server.target(),
        queues: std::slice::from_ref(queue),
        connections: args.connections,
        length: Duration::from_secs(args.seconds),
    };
    let cpu_before = server.usage()?.cpu;
    let (stats, elapsed) = workers.run(|_, worker| post(worker, body.clone(), 1, u64::MAX)).await?;
    let server_cpu = Some(server.usage()?.cpu.saturating_sub(cpu_before));
    Ok(Outcome { stats, elapsed, server_cpu }.rows(&Label {
        program: "chapar".to_owned(),
        scenario: scenario.to_owned(),
        connections: args.connections,
        round,
    }))
}
