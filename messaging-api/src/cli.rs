//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

/// Chapar: queues, messages and claims over HTTP, kept in the database you already run.
#[derive(Debug, Parser)]
#[command(name = "chapar", version, arg_required_else_help = false, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
}

const AFTER_HELP: &str = "\
Every key of the configuration can also be set by the environment: CHAPAR__HTTP__LISTEN sets \
`listen` of the section [http]. `chapar config` prints every key with its present value.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API (the default)
    Serve,
    /// Print the effective configuration, secrets hidden, and exit
    Config,
}

#[derive(Debug, Args)]
pub struct Options {
    /// A configuration file (TOML); what it leaves out keeps its default
    #[arg(long, short, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Address and port of the API, as 127.0.0.1:8888
    #[arg(long, short, value_name = "ADDRESS", global = true)]
    pub listen: Option<String>,
}

impl From<Options> for Overrides {
    fn from(options: Options) -> Self {
        Self { file: options.config, listen: options.listen }
    }
}
