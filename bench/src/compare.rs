//! `compare`: the service against the baselines. Every round runs each program once on a new
//! database, so that changes in the speed of the machine affect all of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::args::{Baseline, BaselineArgs, BodyArgs, Output, Paths, connections};
use crate::baseline::run_in_child;
use crate::checks::{Check, Target, checks_table};
use crate::plan::{Plan, Scenario};
use crate::report::{Label, Row, rows_table, write_json};
use crate::scenario::run_on;
use crate::server::Server;
use crate::sync::SyncArgs;
use crate::{constant, naive};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    sync: SyncArgs,
    /// Concurrent connections of all but the comparison of a single one
    #[arg(long, default_value = "64", value_parser = connections())]
    connections: usize,
    /// Length of each run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to run each program
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

/// The results of one round.
struct Round {
    posts: Row,
    naive: Row,
    naive_direct: Row,
    group_commit: Row,
    single_post: Row,
    single_naive: Row,
    single_naive_direct: Row,
    batches: Row,
    lists: Row,
    constant: Row,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    args.paths.server()?;
    let sync = args.sync.cost(args.paths.fresh_dir()?.path()).await?;
    println!("{}\n", sync.line());
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        rounds.push(measure(args, round).await?);
    }
    let rows: Vec<_> = rounds.iter().flat_map(Round::rows).cloned().collect();
    let checks = checks(&rounds, args.connections);
    println!("{}\n{}", rows_table(&rows), checks_table(&checks));
    let figures = json!({ "sync": sync, "rows": rows, "checks": checks });
    write_json(&args.output, "compare", figures)
}

async fn measure(args: &Args, round: u32) -> Result<Round> {
    let many =
        Plan::posts(args.connections, Duration::from_secs(args.seconds), args.body.body_bytes);
    let single = Plan { connections: 1, ..many.clone() };
    let batches = Plan { scenario: Scenario::PostBatch, ..many.clone() };
    let lists = Plan { scenario: Scenario::List, ..many.clone() };
    Ok(Round {
        posts: one(args, "chapar", &many, round).await?,
        naive: one(args, "naive", &many, round).await?,
        naive_direct: one(args, "naive-direct", &many, round).await?,
        group_commit: one(args, "group-commit", &many, round).await?,
        single_post: one(args, "chapar", &single, round).await?,
        single_naive: one(args, "naive", &single, round).await?,
        single_naive_direct: one(args, "naive-direct", &single, round).await?,
        batches: one(args, "chapar", &batches, round).await?,
        lists: one(args, "chapar", &lists, round).await?,
        constant: one(args, "constant", &Plan { prefill: 0, ..lists }, round).await?,
    })
}

/// Runs one program in a new folder.
async fn one(args: &Args, program: &str, plan: &Plan, round: u32) -> Result<Row> {
    let (scenario, connections) = (plan.scenario.name(), plan.connections);
    eprintln!("round {round}: {program}, {scenario}, connections: {connections}");
    let dir = args.paths.fresh_dir()?;
    let dir = dir.path();
    let (length, body_bytes) = (plan.length, plan.body_bytes);
    let label =
        Label { program: program.to_owned(), scenario: scenario.clone(), connections, round };
    let direct = |baseline| {
        let dir = dir.to_owned();
        let run = BaselineArgs { baseline, dir, connections, length, body_bytes, round };
        async move { run_in_child(&run, args.sync).await }
    };
    let served = async |server| anyhow::Ok(run_on(server, plan, "compare").await?.rows(&label));
    let mut rows = match program {
        "naive" => served(naive::start(dir, args.sync).await?).await?,
        "naive-direct" => direct(Baseline::NaiveDirect).await?,
        "group-commit" => direct(Baseline::GroupCommit).await?,
        "constant" => served(constant::start(dir, body_bytes, args.sync).await?).await?,
        _ => {
            let command = args.sync.command(&args.paths.server()?);
            served(Server::start(command, dir).await?).await?
        }
    };
    ensure!(rows.len() == 1, "{program} did not only run {scenario}");
    let row = rows.remove(0);
    ensure!(row.errors.is_empty(), "{program} returned errors: {:?}", row.errors);
    Ok(row)
}

fn checks(rounds: &[Round], connections: usize) -> Vec<Check> {
    let each = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect::<Vec<_>>();
    let posts = each(|round| round.posts.messages_per_s);
    vec![
        Check::ratio(
            format!("posts/s on {connections} connections: chapar / naive"),
            &posts,
            &each(|round| round.naive.messages_per_s),
            Target::AtLeast(6.0),
        ),
        Check::ratio(
            format!("posts/s on {connections} connections: chapar / group-commit"),
            &posts,
            &each(|round| round.group_commit.messages_per_s),
            Target::AtLeast(0.5),
        ),
        Check::ratio(
            "posts/s on 1 connection: chapar / naive",
            &each(|round| round.single_post.messages_per_s),
            &each(|round| round.single_naive.messages_per_s),
            Target::AtLeast(0.8),
        ),
        Check::ratio(
            format!("latency of posts on {connections} connections: p99 / p50"),
            &each(|round| round.posts.p99_ms),
            &each(|round| round.posts.p50_ms),
            Target::Below(10.0),
        ),
        Check::ratio(
            format!("messages/s on {connections} connections: batches of 10 / single posts"),
            &each(|round| round.batches.messages_per_s),
            &posts,
            Target::AtLeast(4.0),
        ),
        Check::ratio(
            format!("lists/s on {connections} connections: chapar / constant"),
            &each(|round| round.lists.requests_per_s),
            &each(|round| round.constant.requests_per_s),
            Target::AtLeast(0.25),
        ),
        Check::orientation(
            format!("posts/s on {connections} connections: chapar / naive without HTTP"),
            &posts,
            &each(|round| round.naive_direct.messages_per_s),
        ),
        Check::orientation(
            "posts/s on 1 connection: chapar / naive without HTTP",
            &each(|round| round.single_post.messages_per_s),
            &each(|round| round.single_naive_direct.messages_per_s),
        ),
    ]
}

impl Round {
    fn rows(&self) -> [&Row; 10] {
        [
            &self.posts,
            &self.naive,
            &self.naive_direct,
            &self.group_commit,
            &self.single_post,
            &self.single_naive,
            &self.single_naive_direct,
            &self.batches,
            &self.lists,
            &self.constant,
        ]
    }
}
