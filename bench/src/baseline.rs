//! The baselines without HTTP, each run in a process of its own: so they start as fresh as a
//! service, and a delay of syncs applies to them as to it.

use std::env::current_exe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::process::output;
use crate::report::{Label, Outcome, Row};
use crate::sync::SyncArgs;
use crate::{group_commit, naive_direct};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Baseline {
    GroupCommit,
    NaiveDirect,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(value_enum)]
    baseline: Baseline,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    millis: u64,
    #[arg(long)]
    body_bytes: usize,
    #[arg(long)]
    round: u32,
}

/// One run, as this process.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let length = Duration::from_millis(args.millis);
    let (dir, posters, bytes) = (&args.dir, args.connections, args.body_bytes);
    let outcome: Outcome = match args.baseline {
        Baseline::GroupCommit => group_commit::measure(dir, posters, length, bytes).await?,
        Baseline::NaiveDirect => naive_direct::measure(dir, posters, length, bytes).await?,
    };
    let name = args.baseline.to_possible_value().context("every baseline has a name")?;
    let label = Label {
        program: name.get_name().to_owned(),
        scenario: "post".to_owned(),
        connections: posters,
        round: args.round,
    };
    println!("{}", serde_json::to_string(&outcome.rows(&label))?);
    Ok(())
}
