//! A program under test as a child process.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep_until};

use crate::args::{CATALOG_URI, POOL_URI};
use crate::client::{Connection, Target};
use crate::process::{Running, Usage, terminate};

/// How long a program may take until its first response, or to stop.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Running,
    target: Target,
    spawned: Instant,
    ready_after: Duration,
}

impl Server {
    /// Starts the service with this command and waits until it responds. Stores that the command
    /// does not set are a database in `dir`.
    pub(crate) async fn start(mut command: Command, dir: &Path) -> Result<Self> {
        let (listen, metrics) = (free_address()?, free_address()?);
        let store = format!("sqlite:{}", dir.join("chapar.db").display());
        command.env("CHAPAR__HTTP__LISTEN", &listen).env("CHAPAR__METRICS__LISTEN", &metrics);
        for setting in [CATALOG_URI, POOL_URI] {
            if command.get_envs().all(|(key, _)| key != setting) {
                command.env(setting, &store);
            }
        }
        Self::spawn(command, &listen, dir).await
    }

    /// Starts a program that listens on `listen`, and waits until it responds to a ping.
    pub(crate) async fn spawn(mut command: Command, listen: &str, dir: &Path) -> Result<Self> {
        let log = dir.join("server.log");
        let (out, err) = (File::create(&log)?, File::options().append(true).open(&log)?);
        // In its own folder, it finds no configuration file that would change the figures.
        command.current_dir(dir).stdin(Stdio::null()).stdout(out).stderr(err);
        let spawned = Instant::now();
        let child = Running::start(&mut command)?;
        let target = Target::at(listen)?;
        let mut server = Self { child, target, spawned, ready_after: Duration::ZERO };
        server.wait_until_ready(&log).await?;
        Ok(server)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the time from the start of the process to its first response.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    pub(crate) fn since_spawned(&self) -> Duration {
        self.spawned.elapsed()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(&self.child.0)
    }

    /// Stops it with SIGTERM. Returns the resources that it has used.
    pub(crate) async fn stop(mut self) -> Result<Usage> {
        let usage = self.usage()?;
        terminate(&self.child.0)?;
        let start = Instant::now();
        while self.child.0.try_wait()?.is_none() {
            if start.elapsed() > TIMEOUT {
                bail!("the server did not stop within {TIMEOUT:?}");
            }
            pause().await;
        }
        Ok(usage)
    }

    async fn wait_until_ready(&mut self, log: &PathBuf) -> Result<()> {
        loop {
            if matches!(ping(&self.target).await, Ok(204)) {
                self.ready_after = self.spawned.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.0.try_wait()? {
                bail!("the server ended during its start, {status}: {}", last_lines(log));
            }
            if self.spawned.elapsed() > TIMEOUT {
                bail!("no response to a ping within {TIMEOUT:?}: {}", last_lines(log));
            }
            pause().await;
        }
    }
}

/// Returns a free loopback address. Another program could still take it.
pub(crate) fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on the loopback")?;
    Ok(listener.local_addr()?.to_string())
}

async fn ping(target: &Target) -> Result<u16> {
    let response = Connection::open(target).await?.get("/v2/ping".parse()?).await?;
    Ok(response.status)
}

async fn pause() {
    sleep_until(Instant::now() + Duration::from_millis(1)).await;
}

fn last_lines(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
