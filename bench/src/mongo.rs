//! `mongo`: the service on MongoDB against the driver alone, against two nodes of the service, and
//! against OpenStack Zaqar on the same replica set.
//!
//! Every round runs each program once on an empty set, so that changes in the speed of the machine
//! affect all of them.

mod bare;
mod consumers;
mod figures;
mod set;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;

use self::bare::Bare;
use self::figures::Round;
pub(crate) use self::set::Set;
use crate::args::{BodyArgs, CATALOG_URI, Output, POOL_URI, Paths, connections};
use crate::body;
use crate::checks::checks_table;
use crate::client::Connection;
use crate::report::{Label, Outcome, Row, float, rows_table, without_errors, write_json};
use crate::server::Server;
use crate::worker::Queue;
use crate::workers::{self, post};
use crate::zaqar::ZaqarArgs;

/// Messages to prefill for each second of a run, more than it can claim and delete.
const CLAIMS_PER_S: u64 = 20_000;
/// The same for Zaqar.
const ZAQAR_CLAIMS_PER_S: u64 = 2_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    zaqar: ZaqarArgs,
    /// Concurrent connections that post; two nodes share them
    #[arg(long, default_value = "64", value_parser = connections())]
    connections: usize,
    /// Concurrent connections that claim and delete
    #[arg(long, default_value = "16", value_parser = connections())]
    consumers: usize,
    /// Length of each run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to run each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

/// One round on one replica set.
struct Bench<'a> {
    args: &'a Args,
    set: &'a Set,
    length: Duration,
    body_bytes: usize,
    round: u32,
}

/// A node of the service, or Zaqar, with its folder.
struct Node {
    server: Server,
    _dir: TempDir,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    args.paths.server()?;
    let set = Set::start();
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let length = Duration::from_secs(args.seconds);
        let body_bytes = args.body.body_bytes;
        rounds.push(Bench { args, set: &set, length, body_bytes, round }.run().await?);
    }
    let checks = figures::checks(&rounds, args.zaqar.wanted());
    let rates = figures::rates_table(&rounds);
    let rows: Vec<_> = rounds.into_iter().flat_map(|round| round.rows).collect();
    println!("{}\n{rates}\n{}", rows_table(&rows), checks_table(&checks));
    println!("See also: bench depth --mongo --most 1.5\n");
    write_json(&args.output, "mongo", json!({ "rows": rows, "checks": checks }))
}

impl Bench<'_> {
    async fn run(&self) -> Result<Round> {
        let Args { connections, consumers, zaqar, .. } = self.args;
        let waiting = CLAIMS_PER_S * self.args.seconds;
        let mut rows = Vec::new();
        rows.extend(self.bare(Bare::InsertMany, *connections).await?);
        rows.extend(self.posts("chapar", 1).await?);
        rows.extend(self.posts("chapar, 2 nodes", 2).await?);
        rows.extend(self.bare(Bare::InsertOne, *connections).await?);
        if zaqar.wanted() {
            rows.extend(self.zaqar_posts().await?);
        }
        rows.extend(self.bare(Bare::FindAndUpdate(waiting), *consumers).await?);
        let (claims, empty) = self.claims("chapar", waiting).await?;
        rows.extend(claims);
        if zaqar.wanted() {
            let waiting = ZAQAR_CLAIMS_PER_S * self.args.seconds;
            rows.extend(self.claims("zaqar", waiting).await?.0);
        }
        Ok(Round { rows, empty: float(empty) })
    }

    async fn bare(&self, bare: Bare, tasks: usize) -> Result<Vec<Row>> {
        self.print_progress(bare.name(), "alone");
        self.set.empty();
        let outcome = bare.run(&self.set.uri(), tasks, self.length, self.body_bytes).await?;
        Ok(outcome.rows(&self.label(bare.name(), "alone", tasks)))
    }

    /// Posts to one queue on several nodes that share the connections.
    async fn posts(&self, program: &str, count: usize) -> Result<Vec<Row>> {
        self.print_progress(program, "post");
        self.set.empty();
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(self.start().await?);
        }
        self.posts_to(program, nodes, self.args.connections).await
    }

    async fn zaqar_posts(&self) -> Result<Vec<Row>> {
        self.print_progress("zaqar", "post");
        self.set.empty();
        let node = self.start_zaqar().await?;
        let rows = self.posts_to("zaqar", vec![node], self.args.zaqar.connections).await?;
        Ok(without_cpu(rows))
    }

    async fn posts_to(
        &self,
        program: &str,
        nodes: Vec<Node>,
        connections: usize,
    ) -> Result<Vec<Row>> {
        let mut open = Vec::new();
        for index in 0..connections {
            let target = nodes[index % nodes.len()].server.target();
            open.push(Connection::open(target).await?);
        }
        let body = body::post(&body::message_body(self.body_bytes), 1)?;
        let queues = [Queue::new("posts", 10)?];
        let task = |_, worker| post(worker, body.clone(), 1, u64::MAX);
        let before = cpu(&nodes)?;
        let (stats, elapsed) = workers::run_on(open, &queues, self.length, task).await?;
        let server_cpu = Some(cpu(&nodes)?.saturating_sub(before));
        for node in nodes {
            node.server.stop().await?;
        }
        let outcome = Outcome { stats, elapsed, server_cpu };
        without_errors(outcome.rows(&self.label(program, "post", connections)))
    }

    /// Claims and deletes. Also returns how many claims were empty although messages were free.
    async fn claims(&self, program: &str, waiting: u64) -> Result<(Vec<Row>, u64)> {
        self.print_progress(program, "claim-delete");
        self.set.empty();
        let of_zaqar = program == "zaqar";
        let node = if of_zaqar { self.start_zaqar().await? } else { self.start().await? };
        let consumers = self.args.consumers;
        let (server, length) = (&node.server, self.length);
        let drained = consumers::drain(server, waiting, consumers, length, self.body_bytes).await;
        let (outcome, empty) = drained?;
        node.server.stop().await?;
        let rows = outcome.rows(&self.label(program, "claim-delete", consumers));
        let rows = without_errors(rows)?;
        Ok((if of_zaqar { without_cpu(rows) } else { rows }, empty))
    }

    /// Starts a node of the service. Its catalog is on the set, too, since nodes share queues.
    async fn start(&self) -> Result<Node> {
        let dir = self.args.paths.fresh_dir()?;
        let mut command = self.args.paths.service()?;
        command.env(CATALOG_URI, self.set.uri()).env(POOL_URI, self.set.uri());
        let server = Server::start(command, dir.path()).await?;
        Ok(Node { server, _dir: dir })
    }

    async fn start_zaqar(&self) -> Result<Node> {
        let dir = self.args.paths.fresh_dir()?;
        let server = self.args.zaqar.start(&self.set.uri(), dir.path()).await?;
        Ok(Node { server, _dir: dir })
    }

    fn print_progress(&self, program: &str, scenario: &str) {
        eprintln!("round {}: {program}, {scenario}", self.round);
    }

    fn label(&self, program: &str, scenario: &str, connections: usize) -> Label {
        let (program, scenario) = (program.to_owned(), scenario.to_owned());
        Label { program, scenario, connections, round: self.round }
    }
}

/// Returns the CPU time that all nodes have used.
fn cpu(nodes: &[Node]) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for node in nodes {
        sum += node.server.usage()?.cpu;
    }
    Ok(sum)
}

/// Removes the CPU time: only the first process of Zaqar is known.
fn without_cpu(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        row.cpu_us_per_request = None;
    }
    rows
}
