//! `depth`: compares the cost of post, claim and delete in a long queue and in a short one.
//!
//! Both queues are on one server and are loaded in turn. Each worker posts a message, claims one
//! and deletes it, so that the queues keep their lengths.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::args::{BodyArgs, Output, POOL_URI, Paths, connections};
use crate::checks::{Check, Target, checks_table};
use crate::mongo::Set;
use crate::report::{Label, Outcome, Row, rows_table, write_json};
use crate::server::Server;
use crate::stats::Op;
use crate::worker::Queue;
use crate::workers::{Workers, cycle};
use crate::{body, prefill};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    /// Keep the messages in a replica set of MongoDB that this command starts
    #[arg(long, conflicts_with = "pool")]
    mongo: bool,
    /// Messages in the short queue
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    small: u64,
    /// Messages in the long queue
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    large: u64,
    /// Concurrent connections
    #[arg(long, default_value = "8", value_parser = connections())]
    connections: usize,
    /// Length of a run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to load each queue
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How much more the long queue may cost
    #[arg(long, default_value_t = 1.5)]
    most: f64,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let dir = args.paths.fresh_dir()?;
    let set = args.mongo.then(Set::start);
    let mut command = args.paths.service()?;
    if let Some(set) = &set {
        command.env(POOL_URI, set.uri());
    }
    let server = Server::start(command, dir.path()).await?;
    let (small, large) = (Queue::new("small", 1)?, Queue::new("large", 1)?);
    for (queue, count) in [(&small, args.small), (&large, args.large)] {
        prefill::fill(server.target(), queue, count, args.body.body_bytes).await?;
    }
    let (mut of_small, mut of_large) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        eprintln!("round {round}");
        of_small.push(measure(args, &server, &small, args.small, round).await?);
        of_large.push(measure(args, &server, &large, args.large, round).await?);
    }
    let usage = server.stop().await?;

    let checks = checks(&of_small, &of_large, Target::AtMost(args.most));
    let rows: Vec<_> =
        of_small.into_iter().zip(of_large).flat_map(|(a, b)| [a, b]).flatten().collect();
    println!("{}\n{}\n{}", rows_table(&rows), checks_table(&checks), usage.line());
    let figures = json!({ "rows": rows, "checks": checks, "server": usage });
    write_json(&args.output, "depth", figures)
}

async fn measure(
    args: &Args,
    server: &Server,
    queue: &Arc<Queue>,
    depth: u64,
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
    let (stats, elapsed) = workers.run(|_, worker| cycle(worker, body.clone(), 1)).await?;
    let server_cpu = Some(server.usage()?.cpu.saturating_sub(cpu_before));
    Ok(Outcome { stats, elapsed, server_cpu }.rows(&Label {
        program: "chapar".to_owned(),
        scenario: format!("depth {depth}"),
        connections: args.connections,
        round,
    }))
}

/// Compares the throughput and the mean latency of each operation. The throughput alone could hide
/// one slow operation among fast ones.
fn checks(small: &[Vec<Row>], large: &[Vec<Row>], target: Target) -> Vec<Check> {
    let each = |rounds: &[Vec<Row>], op: Op, figure: fn(&Row) -> f64| {
        let of = |rows: &Vec<Row>| rows.iter().find(|row| row.op == op).map_or(f64::NAN, figure);
        rounds.iter().map(of).collect::<Vec<_>>()
    };
    let throughput = |rounds| each(rounds, Op::Delete, |row| row.requests_per_s);
    let mut checks = vec![Check::ratio(
        "cycles/s: short / long queue",
        &throughput(small),
        &throughput(large),
        target,
    )];
    for op in [Op::Post, Op::Claim, Op::Delete] {
        let latency = |rounds| each(rounds, op, |row| row.mean_ms);
        let what = format!("mean latency of {}: long / short queue", op.name());
        checks.push(Check::ratio(what, &latency(large), &latency(small), target));
    }
    checks
}
