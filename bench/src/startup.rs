//! `startup`: the time from the start of the process to its first responses, on an empty store and
//! on a full one. The pages of the full store are in the kernel's cache, as after a restart of the
//! service but not of the machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::args::{BodyArgs, Output, Paths};
use crate::checks::{Check, Target, checks_table};
use crate::client::Connection;
use crate::prefill;
use crate::report::{millis, write_json};
use crate::server::Server;
use crate::worker::Queue;

const QUEUE: &str = "startup";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    /// Messages in the full store
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    messages: u64,
    /// How often to start on each store
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    output: Output,
}

/// The time of each start in milliseconds.
#[derive(Default)]
struct Starts {
    ping: Vec<f64>,
    list: Vec<f64>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let program = args.paths.server()?;
    let (mut empty, mut full) = (Starts::default(), Starts::default());
    for _ in 0..args.rounds {
        let dir = args.paths.fresh_dir()?;
        empty.measure(&program, dir.path(), 0).await?;
    }
    let dir = args.paths.fresh_dir()?;
    let server = Server::start(Command::new(&program), dir.path()).await?;
    let queue = Queue::new(QUEUE, 10)?;
    prefill::fill(server.target(), &queue, args.messages, args.body.body_bytes).await?;
    server.stop().await?;
    for _ in 0..args.rounds {
        full.measure(&program, dir.path(), args.messages).await?;
    }

    let checks = [
        Check::value("empty store: ping response, ms", &empty.ping, Target::Below(200.0)),
        Check::value("empty store: list response, ms", &empty.list, Target::Below(200.0)),
        Check::value("full store: ping response, ms", &full.ping, Target::Below(1000.0)),
        Check::value("full store: list response, ms", &full.list, Target::Below(1000.0)),
    ];
    println!("{}", checks_table(&checks));
    write_json(&args.output, "startup", json!({ "messages": args.messages, "checks": checks }))
}

impl Starts {
    /// Starts the service, measures, and stops it.
    async fn measure(&mut self, program: &Path, dir: &Path, messages: u64) -> Result<()> {
        let server = Server::start(Command::new(program), dir).await?;
        let mut connection = Connection::open(server.target()).await?;
        let page = connection.get(format!("/v2/queues/{QUEUE}/messages").parse()?).await?;
        let listed = server.since_spawned();
        let count = crate::responses::ids(&page.body).count() as u64;
        ensure!(
            page.status == 200 && count == messages.min(10),
            "a list after the start returned {} with {count} messages",
            page.status
        );
        self.ping.push(millis(server.ready_after()));
        self.list.push(millis(listed));
        server.stop().await?;
        // A pause, so that the stop does not slow down the next start.
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(100)).await;
        Ok(())
    }
}
