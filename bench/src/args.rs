//! Options that several commands share.

use std::env::current_exe;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::builder::RangedU64ValueParser;
use tempfile::TempDir;

/// The setting that says where queues are kept.
pub(crate) const CATALOG_URI: &str = "CHAPAR__CATALOG__URI";
/// The setting that says where messages are kept.
pub(crate) const POOL_URI: &str = "CHAPAR__POOL__URI";

/// How long, how wide and how often to run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Concurrent connections or posters; of a comma list, each in turn
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = connections())]
    connections: Vec<usize>,
    /// Length of a run in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to repeat everything
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    pub(crate) body: BodyArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl RunArgs {
    /// The round and the number of connections of each run, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u32, usize)> {
        let in_round =
            |round| self.connections.iter().map(move |&connections| (round, connections));
        (1..=self.rounds).flat_map(in_round)
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct BodyArgs {
    /// Size of a message's body, as JSON text
    #[arg(long, default_value_t = 1024, value_parser = body_bytes())]
    pub(crate) body_bytes: usize,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Output {
    /// Write the JSON figures to this file instead of the last line of the output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Where the programs under test are, and where they keep their files.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Keep the databases in a temporary folder of this one [default: beside this program]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The service's program [default: `chapar` beside this program]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Keep the messages there [default: the database of the catalog]
    #[arg(long, value_name = "URI")]
    pool: Option<String>,
}

impl Place {
    /// A new, empty folder, removed when the value is dropped.
    pub(crate) fn fresh_dir(&self) -> Result<TempDir> {
        let parent = match &self.dir {
            Some(dir) => dir.clone(),
            None => this_program()?.with_file_name(""),
        };
        // Absolute, since the server runs in a folder of its own.
        let fresh = parent
            .canonicalize()
            .and_then(|parent| tempfile::Builder::new().prefix("bench-").tempdir_in(parent));
        fresh.with_context(|| format!("cannot make a folder in {}", parent.display()))
    }

    /// A command for the service.
    pub(crate) fn service(&self) -> Result<Command> {
        Ok(self.on_pool(Command::new(self.server()?)))
    }

    /// The same command, with messages where they are to be kept.
    pub(crate) fn on_pool(&self, mut command: Command) -> Command {
        if let Some(pool) = &self.pool {
            command.env(POOL_URI, pool);
        }
        command
    }

    pub(crate) fn server(&self) -> Result<PathBuf> {
        let program = match &self.server {
            Some(program) => program.clone(),
            None => this_program()?.with_file_name("chapar"),
        };
        ensure!(
            program.is_file(),
            "{} is not there; build it first: cargo build --release",
            program.display()
        );
        Ok(program.canonicalize()?)
    }
}

/// Concurrent connections of one run: bounded, so that a slip of the hand stays harmless.
pub(crate) fn connections() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=10_000)
}

/// What fits into one post of the API, with room for its frame.
fn body_bytes() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(2..=250_000)
}

fn this_program() -> Result<PathBuf> {
    current_exe().context("cannot find this program's own file")
}
