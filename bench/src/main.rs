//! Measures the service: a load generator, baselines, and comparisons of the service with them.
//!
//! Absolute figures depend on the machine, so most targets are ratios of two figures that one run
//! measured in alternating rounds. Nothing here is part of the service or linked into it. The load
//! generator uses HTTP like any client.

#![expect(clippy::print_stdout, reason = "these commands print figures")]

mod args;
mod body;
mod plan;

mod process;
mod server;
mod sync;

mod client;
mod prefill;
mod responses;
mod worker;

mod checks;
mod report;
mod stats;

mod latency;
mod load;
mod scenario;
mod workers;

mod baseline;
mod constant;
mod database;
mod group_commit;
mod naive;
mod naive_direct;
mod pool;
mod run_baseline;

mod compare;
mod depth;
mod groups;
mod mongo;
mod redis;
mod resp;
mod soak;
mod startup;
mod waiters;
mod zaqar;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Load generator, baselines and comparisons")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a running service, or one started for the purpose
    Load(load::Args),
    /// Baseline: a plain service, with a transaction per post on a pool of SQLite connections
    Naive(naive::Args),
    /// Ceiling: one writer that commits all queued posts at once, without HTTP
    GroupCommit(group_commit::Args),
    /// Ceiling of reads: list against a server that always returns the same response
    Constant(constant::Args),
    /// The service against the baselines, in alternating rounds
    Compare(compare::Args),
    /// Whether post, claim and delete cost the same in a long queue as in a short one
    Depth(depth::Args),
    /// The cost of consumer groups for the producers of their queue
    Groups(groups::Args),
    /// The cost of claims that wait on idle queues
    Waiters(waiters::Args),
    /// Whether memory stays level under lasting load
    Soak(soak::Args),
    /// The service on Redis against Redis itself and against OpenStack Zaqar
    Redis(redis::Args),
    /// The service on MongoDB against the driver alone, two nodes, and OpenStack Zaqar
    Mongo(mongo::Args),
    /// Time from the start of the service to its first responses
    Startup(startup::Args),
    /// A baseline without HTTP, as a child process
    #[command(hide = true)]
    RunBaseline(args::BaselineArgs),
    /// The server of `constant`, as a child process
    #[command(hide = true)]
    ServeConstant(constant::ServeArgs),
    /// The service of `naive`, as a child process
    #[command(hide = true)]
    ServeNaive(naive::ServeArgs),
    /// The cost of a sync, as a child process
    #[command(hide = true)]
    SyncCost(sync::CostArgs),
}

fn main() -> Result<()> {
    let command = Cli::parse().command;
    match &command {
        Command::ServeConstant(args) => return constant::serve(args),
        Command::ServeNaive(args) => return naive::serve(args),
        Command::SyncCost(args) => return sync::print_cost(args),
        _ => {}
    }
    // One thread: the generator shares the machine with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = run(command) => done,
            // Dropping the run stops its server and removes its files.
            stopped = stop_signal() => {
                stopped?;
                bail!("interrupted")
            }
        }
    })
}

async fn stop_signal() -> Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Load(args) => load::run(&args).await,
        Command::Naive(args) => naive::run(&args).await,
        Command::GroupCommit(args) => group_commit::run(&args).await,
        Command::Constant(args) => constant::run(&args).await,
        Command::Compare(args) => compare::run(&args).await,
        Command::Depth(args) => depth::run(&args).await,
        Command::Groups(args) => groups::run(&args).await,
        Command::Waiters(args) => waiters::run(&args).await,
        Command::Redis(args) => redis::run(&args).await,
        Command::Mongo(args) => mongo::run(&args).await,
        Command::Soak(args) => soak::run(&args).await,
        Command::Startup(args) => startup::run(&args).await,
        Command::RunBaseline(args) => run_baseline::run(&args).await,
        Command::ServeConstant(_) | Command::ServeNaive(_) | Command::SyncCost(_) => {
            unreachable!("handled before the runtime was built")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_documented_command_lines_are_valid() {
        Cli::command().debug_assert();
        for line in [
            "bench naive --connections 1,64 --rounds 2",
            "bench naive --direct --sync-delay 500us",
            "bench compare --rounds 1 --seconds 1 --sync-delay 1ms",
            "bench load post --sync-delay 4ms",
            "bench groups --groups 8 --rounds 1",
            "bench waiters --waiters 100",
            "bench redis --zaqar venv --rounds 1 --seconds 1",
            "bench mongo --zaqar venv --rounds 1 --seconds 1 --consumers 4",
            "bench depth --pool redis://127.0.0.1:1 --most 1.3",
            "bench depth --mongo --most 1.5",
            "bench run-baseline group-commit --dir d --connections 1 --length 1000 --body-bytes 64 \
             --round 1",
            "bench sync-cost --dir d",
            "bench serve-naive --listen 127.0.0.1:1 --database naive.db",
            "bench serve-constant --listen 127.0.0.1:1 --body-bytes 1024",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        // The syncs of a service that was started elsewhere cannot be delayed.
        let external = "bench load --url http://127.0.0.1:1 --sync-delay 1ms";
        assert!(Cli::try_parse_from(external.split(' ')).is_err());
    }
}
