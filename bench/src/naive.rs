//! `naive`: a simple implementation of posts. It has the same web framework and the same API for a
//! post, and commits one transaction per post on a pool of four connections.
//!
//! It has no projects and no limits, and its ids are row numbers. It does less work than the
//! service, so the comparison favours it.

use std::env::current_exe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use actix_web::error::{ErrorBadRequest, ErrorInternalServerError};
use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Json, ServiceConfig, get, post};
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use serde_json::{Value, json};

use crate::args::{Baseline, BaselineArgs, Paths, RunArgs};
use crate::baseline::run_in_child;
use crate::database::{self, Message};
use crate::plan::Plan;
use crate::pool::Pool;
use crate::report::{Label, rows_table, write_json};
use crate::scenario;
use crate::server::{Server, free_address};
use crate::sync::SyncArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Post directly to the database, without HTTP
    #[arg(long)]
    direct: bool,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    sync: SyncArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[arg(long)]
    listen: String,
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let program = if args.direct { "naive-direct" } else { "naive" };
    let sync = args.sync.cost(args.paths.fresh_dir()?.path()).await?;
    println!("{}\n", sync.line());
    let mut rows = Vec::new();
    for (round, connections) in args.run.runs() {
        let dir = args.paths.fresh_dir()?;
        let (length, body_bytes) = (args.run.length(), args.run.body.body_bytes);
        if args.direct {
            let (baseline, dir) = (Baseline::NaiveDirect, dir.path().to_owned());
            let run = BaselineArgs { baseline, dir, connections, length, body_bytes, round };
            rows.extend(run_in_child(&run, args.sync).await?);
        } else {
            let (program, scenario) = (program.to_owned(), "post".to_owned());
            let plan = Plan::posts(connections, length, body_bytes);
            let server = start(dir.path(), args.sync).await?;
            let outcome = scenario::run_on(server, &plan, "naive").await?;
            rows.extend(outcome.rows(&Label { program, scenario, connections, round }));
        }
    }
    println!("{}", rows_table(&rows));
    write_json(&args.run.output, program, json!({ "sync": sync, "rows": rows }))
}

/// Starts the service as a child process, on a database in `dir`.
pub(crate) async fn start(dir: &Path, sync: SyncArgs) -> Result<Server> {
    let listen = free_address()?;
    let mut command = sync.command(&current_exe()?);
    command.args(["serve-naive", "--listen", &listen]);
    command.arg("--database").arg(dir.join("naive.db"));
    Server::spawn(command, &listen, dir).await
}

/// Serves until it receives a signal to stop.
pub(crate) fn serve(args: &ServeArgs) -> Result<()> {
    let service = Service::open(&args.database)?;
    actix_web::rt::System::new().block_on(async { server(service, &args.listen)?.await })?;
    Ok(())
}

fn server(service: Service, listen: &str) -> std::io::Result<actix_web::dev::Server> {
    let workers = available_parallelism().map_or(1, usize::from);
    let app = move || App::new().configure(|config| routes(config, &service));
    Ok(HttpServer::new(app).workers(workers).bind(listen)?.run())
}

#[derive(Clone)]
struct Service {
    pool: Arc<Pool>,
    started: Instant,
}

impl Service {
    fn open(database: &Path) -> Result<Self> {
        Ok(Self { pool: Pool::open(database)?, started: Instant::now() })
    }
}

/// A message of a request.
struct NewMessage {
    ttl: u32,
    body: String,
}

fn routes(config: &mut ServiceConfig, service: &Service) {
    config
        .app_data(Data::new(service.clone()))
        .route("/v2/ping", get().to(HttpResponse::NoContent))
        .route("/v2/queues/{queue}/messages", post().to(post_messages));
}

async fn post_messages(
    queue: web::Path<String>,
    request: Json<Value>,
    service: Data<Service>,
) -> actix_web::Result<HttpResponse> {
    let queue = queue.into_inner();
    let messages =
        messages(&request).ok_or_else(|| ErrorBadRequest("messages with bodies are required"))?;
    let posted_ms =
        i64::try_from(service.started.elapsed().as_millis()).map_err(ErrorInternalServerError)?;
    let path = format!("/v2/queues/{queue}/messages");
    let ids = Arc::clone(&service.pool)
        .run(move |connection| store(connection, &queue, &messages, posted_ms))
        .await
        .map_err(ErrorInternalServerError)?;

    let ids: Vec<_> = ids.iter().map(i64::to_string).collect();
    let resources: Vec<_> = ids.iter().map(|id| format!("{path}/{id}")).collect();
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("{path}?ids={}", ids.join(","))))
        .json(json!({ "resources": resources })))
}

fn messages(request: &Value) -> Option<Vec<NewMessage>> {
    let parse = |message: &Value| {
        let ttl = match message.get("ttl") {
            None => 3600,
            Some(ttl) => ttl.as_u64()?.try_into().ok()?,
        };
        Some(NewMessage { ttl, body: message.get("body")?.to_string() })
    };
    request.get("messages")?.as_array()?.iter().map(parse).collect()
}

/// Stores a post, and its queue if it is new, in one transaction. Returns the ids of the messages.
fn store(
    connection: &mut Connection,
    queue: &str,
    messages: &[NewMessage],
    posted_ms: i64,
) -> rusqlite::Result<Vec<i64>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = transaction
        .prepare_cached("SELECT 1 FROM queues WHERE name = ?")?
        .query_row([queue], |_| Ok(()))
        .optional()?;
    if known.is_none() {
        transaction.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", [queue])?;
    }
    let mut statement = transaction.prepare_cached(&database::insert_sql(1))?;
    let mut ids = Vec::with_capacity(messages.len());
    for NewMessage { ttl, body } in messages {
        let message = Message { queue, ttl: *ttl, posted_ms, body: body.as_bytes() };
        database::insert(&mut statement, std::iter::once(message))?;
        ids.push(transaction.last_insert_rowid());
    }
    drop(statement);
    transaction.commit()?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use actix_web::http::{StatusCode, header};
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};

    use std::time::Duration;

    use super::*;
    use crate::body;
    use crate::client::Target;
    use crate::scenario::Subject;

    #[actix_web::test]
    async fn a_post_is_stored_and_returns_the_specified_response() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.db");
        let service = Service::open(&file).unwrap();
        let app = init_service(App::new().configure(|config| routes(config, &service))).await;
        let text = body::message_body(1024);
        for first in [1, 3] {
            let request = TestRequest::post()
                .uri("/v2/queues/q/messages")
                .insert_header(header::ContentType::json())
                .set_payload(body::post(&text, 2).unwrap());
            let response = call_service(&app, request.to_request()).await;
            let second = first + 1;
            assert_eq!(response.status(), StatusCode::CREATED);
            let location = format!("/v2/queues/q/messages?ids={first},{second}");
            assert_eq!(response.headers().get(LOCATION).unwrap(), location.as_str());
            let path = |id| format!("/v2/queues/q/messages/{id}");
            let resources = json!({ "resources": [path(first), path(second)] });
            assert_eq!(read_body_json::<Value, _>(response).await, resources);
        }
        let connection = database::open(&file).unwrap();
        let count = |sql, body: &str| connection.query_row(sql, [body], |row| row.get(0));
        let messages = "SELECT count(*) FROM messages \
                        WHERE queue = 'q' AND ttl = 3600 AND CAST(body AS TEXT) = ?";
        assert_eq!(count(messages, &text), Ok(4));
        assert_eq!(count("SELECT count(*) FROM queues WHERE name = ?", "q"), Ok(1));
    }

    #[actix_web::test]
    async fn acknowledged_posts_are_stored_under_load() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.db");
        let listen = free_address().unwrap();
        let server = server(Service::open(&file).unwrap(), &listen).unwrap();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let subject = Subject::External(Target::at(&listen).unwrap());
        let plan = Plan::posts(8, Duration::from_millis(100), 1024);
        let outcome = scenario::run(&subject, &plan, "q").await.unwrap();
        handle.stop(false).await;
        let (_, posts) = outcome.stats.iter().next().unwrap();
        assert!(posts.requests > 0 && posts.errors.is_empty());
        let connection = database::open(&file).unwrap();
        let count = "SELECT count(*) FROM messages WHERE queue = 'q-0'";
        assert_eq!(connection.query_row(count, [], |row| row.get(0)), Ok(posts.requests));
    }

    #[actix_web::test]
    async fn a_ping_succeeds_and_an_invalid_post_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(&dir.path().join("test.db")).unwrap();
        let app = init_service(App::new().configure(|config| routes(config, &service))).await;
        let ping = TestRequest::get().uri("/v2/ping").to_request();
        assert_eq!(call_service(&app, ping).await.status(), StatusCode::NO_CONTENT);
        for text in ["{", "[]", r#"{"messages":[{"ttl":60}]}"#] {
            let request = TestRequest::post()
                .uri("/v2/queues/q/messages")
                .insert_header(header::ContentType::json())
                .set_payload(text);
            let response = call_service(&app, request.to_request()).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{text}");
        }
    }
}
