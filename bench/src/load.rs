//! `load`: runs scenarios against a service, one after the other, on new queues.

use std::process;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use serde_json::json;

use crate::args::{Paths, RunArgs};
use crate::client::Target;
use crate::plan::{Plan, Scenario};
use crate::report::{Label, rows_table, write_json};
use crate::scenario::{self, Subject};
use crate::server::Server;
use crate::sync::SyncArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do
    #[arg(value_enum, default_value = "post")]
    scenarios: Vec<Scenario>,
    /// Base URL of a running service [default: start one for the purpose]
    #[arg(long, conflicts_with = "sync_delay")]
    url: Option<String>,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Messages in a post of post-batch
    #[arg(long, default_value = "10", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    batch: usize,
    /// Queues to spread the connections over
    #[arg(long, default_value = "1", value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    queues: usize,
    /// Messages in each queue before list and claim-delete [default: 10000 and 100000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    prefill: Option<u64>,
    /// Delete claimed messages one by one, by their claim
    #[arg(long)]
    single_deletes: bool,
    /// Posts per second of latency
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Consumers of latency, at least one a queue
    #[arg(long, default_value = "1", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    consumers: usize,
}

impl Args {
    fn plan(&self, scenario: Scenario, connections: usize) -> Plan {
        let reads = matches!(scenario, Scenario::List | Scenario::ListFirst);
        let prefill = if reads { 10_000 } else { 100_000 };
        Plan {
            scenario,
            connections,
            length: self.run.length(),
            body_bytes: self.run.body.body_bytes,
            batch: self.batch,
            queues: self.queues,
            prefill: self.prefill.unwrap_or(prefill),
            single_deletes: self.single_deletes,
            rate: self.rate,
            consumers: self.consumers,
        }
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let dir = args.paths.fresh_dir()?;
    // The disk of a service that was started elsewhere is not known.
    let (subject, sync) = if let Some(url) = &args.url {
        (Subject::External(Target::from_url(url)?), None)
    } else {
        let command = args.paths.on_pool(args.sync.command(&args.paths.server()?));
        let sync = args.sync.cost(dir.path()).await?;
        println!("{}\n", sync.line());
        (Subject::Child(Server::start(command, dir.path()).await?), Some(sync))
    };
    let mut rows = Vec::new();
    for (round, connections) in args.run.runs() {
        for &scenario in &args.scenarios {
            let label = Label {
                program: if args.url.is_some() { "url" } else { "chapar" }.to_owned(),
                scenario: scenario.name(),
                connections,
                round,
            };
            eprintln!("round {round}: {}, connections: {connections}", label.scenario);
            // The process id distinguishes the queues of two runs on one service.
            let id = process::id();
            let queue = format!("bench-{id}-{}-{connections}-{round}", label.scenario);
            let plan = args.plan(scenario, connections);
            let outcome = scenario::run(&subject, &plan, &queue).await?;
            rows.extend(outcome.rows(&label));
        }
    }
    let usage = match subject {
        Subject::Child(server) => Some(server.stop().await?),
        Subject::External(_) => None,
    };
    println!("{}", rows_table(&rows));
    if let Some(usage) = &usage {
        println!("{}", usage.line());
    }
    write_json(&args.run.output, "load", json!({ "sync": sync, "rows": rows, "server": usage }))
}
