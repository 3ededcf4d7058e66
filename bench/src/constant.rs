//! `constant`: what the web framework alone could do for a list. A server of the same make as the
//! service gives every request the same response, as long as a page of ten messages, and the list
//! scenario is run against it.

use std::env::current_exe;
use std::path::Path;
use std::thread::available_parallelism;

use actix_web::web::{Bytes, to};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::Result;
use serde_json::json;

use crate::args::{BodyArgs, Paths, RunArgs};
use crate::body::message_body;
use crate::plan::{Plan, Scenario};
use crate::report::{Label, rows_table, write_json};
use crate::scenario::{self, Subject};
use crate::server::{Server, free_address};
use crate::sync::SyncArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[arg(long)]
    listen: String,
    #[command(flatten)]
    body: BodyArgs,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for (round, connections) in args.run.runs() {
        let (program, scenario) = ("constant".to_owned(), "list".to_owned());
        let label = Label { program, scenario, connections, round };
        let body_bytes = args.run.body.body_bytes;
        let dir = args.paths.fresh_dir()?;
        let subject = Subject::Child(start(dir.path(), body_bytes, SyncArgs::default()).await?);
        let posts = Plan::posts(connections, args.run.length(), body_bytes);
        let plan = Plan { scenario: Scenario::List, prefill: 0, ..posts };
        let outcome = scenario::run(&subject, &plan, "constant").await?;
        rows.extend(outcome.rows(&label));
    }
    println!("{}", rows_table(&rows));
    write_json(&args.run.output, "constant", json!({ "rows": rows }))
}

/// Starts the server as a child process, like the service.
pub(crate) async fn start(dir: &Path, body_bytes: usize, sync: SyncArgs) -> Result<Server> {
    let listen = free_address()?;
    let mut command = sync.command(&current_exe()?);
    command.args(["serve-constant", "--listen", &listen]);
    command.args(["--body-bytes", &body_bytes.to_string()]);
    Server::spawn(command, &listen, dir).await
}

/// Serves until it receives a signal to stop. Responds to a ping as the service does.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    let page = Bytes::from(page(args.body.body_bytes));
    let workers = available_parallelism().map_or(1, usize::from);
    let app = move || {
        let page = page.clone();
        let respond = move || {
            let page = page.clone();
            async move { HttpResponse::Ok().content_type("application/json").body(page) }
        };
        App::new()
            .route("/v2/ping", actix_web::web::get().to(HttpResponse::NoContent))
            .default_service(to(respond))
    };
    let server = HttpServer::new(app).workers(workers).bind(&args.listen)?;
    actix_web::rt::System::new().block_on(server.run())?;
    Ok(())
}

/// Returns the response to a list of ten messages. Its next page is itself.
fn page(body_bytes: usize) -> String {
    let body = message_body(body_bytes);
    let message = |n| {
        let id = format!("0123456789abcdef{n:016x}");
        let href = format!("/v2/queues/constant/messages/{id}");
        format!(r#"{{"id":"{id}","href":"{href}","ttl":3600,"age":1,"body":{body}}}"#)
    };
    let messages: Vec<_> = (0..10).map(message).collect();
    let next = "/v2/queues/constant/messages?limit=10&include_delayed=true\
                &marker=0123456789abcdef0000000000000009";
    let messages = messages.join(",");
    format!(r#"{{"messages":[{messages}],"links":[{{"rel":"next","href":"{next}"}}]}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::responses::{ids, next_page};

    #[test]
    fn the_page_has_the_form_of_a_list() {
        let page = Bytes::from(page(1024));
        let json: serde_json::Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(json["messages"].as_array().unwrap().len(), 10);
        assert_eq!(ids(&page).count(), 10);
        assert!(next_page(&page).unwrap().query().unwrap().contains("marker="));
    }
}
