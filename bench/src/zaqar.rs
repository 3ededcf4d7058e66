//! OpenStack Zaqar as a program under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::args::connections;
use crate::server::{Server, free_address};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ZaqarArgs {
    /// Compare with Zaqar as well, installed in this folder by `bench/compare/zaqar.sh install`
    #[arg(id = "zaqar", long = "zaqar", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The script that serves Zaqar
    #[arg(
        id = "zaqar_script",
        long = "zaqar-script",
        value_name = "FILE",
        default_value = "bench/compare/zaqar.sh"
    )]
    script: PathBuf,
    /// Concurrent connections to Zaqar, which performs best with few
    #[arg(
        id = "zaqar_connections",
        long = "zaqar-connections",
        default_value = "16",
        value_parser = connections()
    )]
    pub(crate) connections: usize,
}

impl ZaqarArgs {
    /// Returns whether Zaqar is to be measured.
    pub(crate) fn wanted(&self) -> bool {
        self.dir.is_some()
    }

    /// Starts Zaqar on an empty store and waits until it responds. Only its first process is known,
    /// so its usage is unknown.
    pub(crate) async fn start(&self, uri: &str, logs: &Path) -> Result<Server> {
        let dir = self.dir.as_ref().context("--zaqar is missing")?;
        let listen = free_address()?;
        let port = listen.rsplit(':').next().unwrap_or_default();
        let mut command = Command::new(self.script.canonicalize()?);
        command.arg("serve").arg(dir.canonicalize()?).arg(port).arg(uri);
        Server::spawn(command, &listen, logs).await
    }
}
