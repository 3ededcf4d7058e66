//! `redis`: the service on Redis against direct calls of its Redis functions, and against OpenStack
//! Zaqar on the same Redis.
//!
//! Every round runs each program once on an empty Redis, so that changes in the speed of the
//! machine affect all of them.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use test_servers::redis::Redis;

use crate::args::{BodyArgs, Output, POOL_URI, Paths, connections};
use crate::checks::{Check, Target, checks_table};
use crate::plan::{Plan, Scenario};
use crate::process::output;
use crate::report::{Label, Outcome, Row, rows_table, without_errors, write_json};
use crate::resp::{self, Functions, NOW, PIPELINE};
use crate::scenario;
use crate::server::Server;
use crate::stats::Op;
use crate::zaqar::ZaqarArgs;
use crate::{prefill, worker::Queue};

/// Messages in each post of a batch.
const BATCH: usize = 20;
/// Messages to claim and delete, more than a run can consume.
const PREFILL: u64 = 300_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    zaqar: ZaqarArgs,
    /// Concurrent connections
    #[arg(long, default_value = "64", value_parser = connections())]
    connections: usize,
    /// Length of each run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to run each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// A setting of the Redis under test, as "--appendonly yes --appendfsync everysec"
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    redis_options: String,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

/// The results of one round, in messages per second, for lists in pages per second.
struct Round {
    raw_posts: f64,
    raw_batches: f64,
    raw_claims: f64,
    rows: Vec<Row>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    args.paths.server()?;
    let options: Vec<&str> = args.redis_options.split_whitespace().collect();
    let redis = Redis::start(&options);
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        rounds.push(measure(args, &redis, round).await?);
    }
    let checks = checks(args, &rounds);
    let rows: Vec<_> = rounds.into_iter().flat_map(|round| round.rows).collect();
    println!("{}\n{}", rows_table(&rows), checks_table(&checks));
    write_json(&args.output, "redis", json!({ "rows": rows, "checks": checks }))
}

async fn measure(args: &Args, redis: &Redis, round: u32) -> Result<Round> {
    let length = Duration::from_secs(args.seconds);
    let posts = Plan::posts(args.connections, length, args.body.body_bytes);
    let of = |scenario, prefill| Plan { scenario, prefill, batch: BATCH, ..posts.clone() };
    let plans = [
        of(Scenario::Post, 0),
        of(Scenario::PostBatch, 0),
        of(Scenario::ListFirst, 10_000),
        of(Scenario::List, 10_000),
        of(Scenario::ClaimDelete, PREFILL),
    ];
    let mut rows = Vec::new();
    let mut raw = [0.0; 3];
    for plan in &plans {
        eprintln!("round {round}: {}", plan.scenario.name());
        match plan.scenario {
            Scenario::Post => raw[0] = raw_posts(args, redis, 1).await?,
            Scenario::PostBatch => raw[1] = raw_posts(args, redis, BATCH).await?,
            Scenario::ClaimDelete => raw[2] = raw_claims(args, redis).await?,
            _ => {}
        }
        rows.extend(chapar(args, redis, plan, round).await?);
        if args.zaqar.wanted() {
            let prefill =
                if plan.scenario == Scenario::ClaimDelete { 40_000 } else { plan.prefill };
            let plan = Plan { connections: args.zaqar.connections, prefill, ..plan.clone() };
            rows.extend(zaqar(args, redis, &plan, round).await?);
        }
    }
    let latency = Plan { scenario: Scenario::Latency, connections: 1, ..posts };
    rows.extend(chapar(args, redis, &latency, round).await?);
    let [raw_posts, raw_batches, raw_claims] = raw;
    Ok(Round { raw_posts, raw_batches, raw_claims, rows })
}

/// Starts the service on an empty Redis.
async fn start(args: &Args, redis: &Redis, dir: &tempfile::TempDir) -> Result<Server> {
    redis.command(&["FLUSHALL"]);
    let mut command = args.paths.service()?;
    command.env(POOL_URI, redis.uri());
    Server::start(command, dir.path()).await
}

async fn chapar(args: &Args, redis: &Redis, plan: &Plan, round: u32) -> Result<Vec<Row>> {
    let dir = args.paths.fresh_dir()?;
    let server = start(args, redis, &dir).await?;
    let outcome = scenario::run_on(server, plan, "compare").await?;
    without_errors(outcome.rows(&label("chapar", plan, round)))
}

async fn zaqar(args: &Args, redis: &Redis, plan: &Plan, round: u32) -> Result<Vec<Row>> {
    redis.command(&["FLUSHALL"]);
    let logs = args.paths.fresh_dir()?;
    let server = args.zaqar.start(&redis.uri(), logs.path()).await?;
    let outcome = scenario::run_on(server, plan, "compare").await?;
    let outcome = Outcome { server_cpu: None, ..outcome };
    without_errors(outcome.rows(&label("zaqar", plan, round)))
}

fn label(program: &str, plan: &Plan, round: u32) -> Label {
    let (scenario, connections) = (plan.scenario.name(), plan.connections);
    Label { program: program.to_owned(), scenario, connections, round }
}

/// Starts the service on an empty Redis to create a queue, and stops it. Returns how to call the
/// functions for this queue.
async fn functions(args: &Args, redis: &Redis, prefilled: u64) -> Result<Functions> {
    let dir = args.paths.fresh_dir()?;
    let server = start(args, redis, &dir).await?;
    let queue = Queue::new("raw", 10)?;
    // The first post creates the keys of the queue.
    prefill::fill(server.target(), &queue, prefilled.max(1), args.body.body_bytes).await?;
    server.stop().await?;
    let keys = redis.command(&["KEYS", "*:1"]);
    let queue = keys.trim().strip_suffix(":1").context("the queue has no stream")?.to_owned();
    let libraries = redis.command(&["FUNCTION", "LIST"]);
    let name = libraries.lines().find(|line| line.starts_with("chapar_"));
    let name = name.context("the functions are not loaded")?;
    // The names of the functions begin with that of the library.
    let prefix = name.splitn(3, '_').take(2).collect::<Vec<_>>().join("_") + "_";
    Ok(Functions { prefix, queue })
}

/// Measures the function that stores messages with `redis-benchmark`, in messages per second.
async fn raw_posts(args: &Args, redis: &Redis, batch: usize) -> Result<f64> {
    let functions = functions(args, redis, 1).await?;
    let mut arguments = vec![NOW.to_string().into_bytes(), b"1".to_vec()];
    arguments.extend(vec![resp::message(args.body.body_bytes).into_bytes(); batch]);
    // The run takes about as long as the others.
    let requests = args.seconds * 30_000 / if batch == 1 { 1 } else { 5 };
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &redis.port().to_string(), "-c", &args.connections.to_string()]);
    command.args(["-P", &PIPELINE.to_string(), "-n", &requests.to_string(), "--csv"]);
    for part in functions.call("post", &arguments) {
        command.arg(String::from_utf8(part)?);
    }
    command.stderr(Stdio::null());
    let printed = output(command).await?;
    let line = printed.lines().last().context("redis-benchmark printed nothing")?;
    let figures: Vec<_> = line.rsplit("\",\"").collect();
    // The requests per second come after the name and before six latencies.
    let per_second = figures.get(6).context("redis-benchmark printed no figures")?;
    Ok(per_second.parse::<f64>()? * crate::report::float(batch as u64))
}

async fn raw_claims(args: &Args, redis: &Redis) -> Result<f64> {
    let functions = functions(args, redis, PREFILL).await?;
    let length = Duration::from_secs(args.seconds);
    resp::claim_and_delete(redis.port(), &functions, args.connections, length).await
}

fn checks(args: &Args, rounds: &[Round]) -> Vec<Check> {
    let rate = |program: &str, scenario: Scenario, op: Op| {
        let of = |round: &Round| {
            let mut rows = round.rows.iter().filter(|row| {
                row.label.program == program && row.label.scenario == scenario.name()
            });
            let found = rows.find(|row| row.op == op);
            found.map_or(f64::NAN, |row| {
                if op == Op::List { row.requests_per_s } else { row.messages_per_s }
            })
        };
        rounds.iter().map(of).collect::<Vec<_>>()
    };
    let raw = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect::<Vec<_>>();
    let posts = rate("chapar", Scenario::Post, Op::Post);
    let batches = rate("chapar", Scenario::PostBatch, Op::Post);
    let lists = rate("chapar", Scenario::ListFirst, Op::List);
    let claims = rate("chapar", Scenario::ClaimDelete, Op::Delete);
    let latency =
        |row: &Row| row.label.scenario == Scenario::Latency.name() && row.op == Op::EndToEnd;
    let p99: Vec<_> = rounds
        .iter()
        .map(|round| round.rows.iter().find(|row| latency(row)).map_or(f64::NAN, |row| row.p99_ms))
        .collect();
    let mut checks = vec![
        Check::ratio(
            "posts: service / redis-benchmark -P 16",
            &posts,
            &raw(|round| round.raw_posts),
            Target::AtLeast(0.6),
        ),
        Check::ratio(
            "batches of 20: service / redis-benchmark -P 16 (or 100,000 messages/s)",
            &batches,
            &raw(|round| round.raw_batches.min(100_000.0 / 0.7)),
            Target::AtLeast(0.7),
        ),
        Check::ratio(
            "claim and delete of 10: service / the functions alone",
            &claims,
            &raw(|round| round.raw_claims),
            Target::AtLeast(0.5),
        ),
        Check::value("post to claim at 100/s: p99 in ms", &p99, Target::Below(5.0)),
    ];
    if args.zaqar.wanted() {
        for (what, own, scenario, op) in [
            ("posts", &posts, Scenario::Post, Op::Post),
            ("lists of the first 10", &lists, Scenario::ListFirst, Op::List),
            ("claim and delete of 10", &claims, Scenario::ClaimDelete, Op::Delete),
        ] {
            let target = Target::AtLeast(25.0);
            let what = format!("{what}: service / Zaqar");
            checks.push(Check::ratio(what, own, &rate("zaqar", scenario, op), target));
        }
        let other = rate("zaqar", Scenario::PostBatch, Op::Post);
        checks.push(Check::orientation("batches of 20: service / Zaqar", &batches, &other));
        let pages = rate("chapar", Scenario::List, Op::List);
        let other = rate("zaqar", Scenario::List, Op::List);
        checks.push(Check::orientation("lists page by page: service / Zaqar", &pages, &other));
    }
    checks
}
