//! Each kind of `MongoDB` server behaves as documented.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, doc};
use test_servers::DEADLINE;
use test_servers::mongo::Mongo;

/// Runs a step and prints how long it took; `--nocapture` shows it.
fn timed<T>(step: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    eprintln!("{step}: {:?}", start.elapsed());
    result
}

/// Inserts a document with the write concern `majority`, journaled.
fn insert(mongo: &Mongo, id: i32) {
    let command = doc! {
        "insert": "things",
        "documents": [{ "_id": id }],
        "writeConcern": { "w": "majority", "j": true },
    };
    let reply = mongo.command_on(mongo.primary(), "test", &command);
    assert_eq!(reply.get_i32("n").ok(), Some(1), "{reply}");
}

/// Counts the documents by a query: the server's own count of a collection is wrong after a kill.
fn count(mongo: &Mongo, member: usize) -> i32 {
    let command = doc! { "count": "things", "query": { "_id": { "$gt": 0 } } };
    mongo.command_on(member, "test", &command).get_i32("n").expect("a number")
}

fn parameter(mongo: &Mongo, name: &str) -> i32 {
    let command = doc! { "getParameter": 1, name: 1 };
    mongo.command_on(0, "admin", &command).get_i32(name).expect("a number")
}

#[test]
fn a_standalone_server_keeps_its_data_after_a_kill() {
    let mut mongo = timed("start", || Mongo::standalone(&["--setParameter=maxBSONDepth=150"]));
    let port = mongo.port(0);
    assert_eq!(mongo.members(), 1);
    assert_eq!(mongo.uri(), format!("mongodb://127.0.0.1:{port}/"));
    assert_eq!(mongo.uri_of("test"), format!("mongodb://127.0.0.1:{port}/test"));
    assert_eq!(mongo.primary(), 0);
    assert_eq!(parameter(&mongo, "ttlMonitorSleepSecs"), 1);
    assert_eq!(parameter(&mongo, "maxBSONDepth"), 150);
    insert(&mongo, 1);
    let error = mongo.try_command_on(0, "test", &doc! { "noSuchCommand": 1 }).unwrap_err();
    assert!(error.contains("CommandNotFound"), "{error}");

    timed("kill", || mongo.kill(0));
    assert!(mongo.try_command_on(0, "test", &doc! { "ping": 1 }).is_err());
    let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    timed("start again", || mongo.start(0));
    assert_eq!(mongo.port(0), port);
    assert_eq!(count(&mongo, 0), 1);
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let mongo = Mongo::standalone(&[]);
    timed("pause", || mongo.pause(0));
    thread::scope(|scope| {
        let (sender, answer) = mpsc::channel();
        let mongo = &mongo;
        scope.spawn(move || sender.send(mongo.command_on(0, "test", &doc! { "ping": 1 })));
        assert!(answer.recv_timeout(Duration::from_millis(200)).is_err());
        mongo.resume(0);
        assert!(answer.recv_timeout(DEADLINE).is_ok());
    });
}

#[test]
fn fail_points_and_the_profiler_work() {
    let mongo = Mongo::standalone(&[]);
    insert(&mongo, 1);
    let fail = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["find"], "errorCode": 91 },
    };
    mongo.command_on(0, "admin", &fail);
    let find = doc! { "find": "things" };
    let error = mongo.try_command_on(0, "test", &find).unwrap_err();
    assert!(error.contains("ShutdownInProgress"), "{error}");
    mongo.command_on(0, "test", &doc! { "profile": 2 });
    mongo.command_on(0, "test", &find);
    mongo.command_on(0, "test", &doc! { "profile": 0 });
    let query = doc! { "command.find": "things" };
    let profiled = doc! { "count": "system.profile", "query": query };
    assert_eq!(mongo.command_on(0, "test", &profiled).get_i32("n").unwrap(), 1);
}

#[test]
#[should_panic(expected = "unrecognised option '--no-such-option'")]
fn a_failed_start_panics_with_the_log() {
    Mongo::standalone(&["--no-such-option"]);
}

#[test]
fn a_set_of_one_reelects_its_member_after_a_step_down() {
    let mut mongo = timed("start a set of one", || Mongo::replica_set(1, &[]));
    let port = mongo.port(0);
    assert_eq!(mongo.uri(), format!("mongodb://127.0.0.1:{port}/?replicaSet=rs"));
    insert(&mongo, 1);
    assert_eq!(mongo.step_down(), 0);
    assert_eq!(timed("step up again", || mongo.primary()), 0);
    insert(&mongo, 2);
    timed("start the member again", || mongo.start(0));
    assert_eq!(mongo.primary(), 0);
    assert_eq!(count(&mongo, 0), 2);
}

#[test]
fn a_set_elects_a_new_primary_and_the_old_one_rejoins() {
    let mut mongo = timed("start a set of three", || Mongo::replica_set(3, &[]));
    let ports: Vec<_> = (0..mongo.members()).map(|it| mongo.port(it)).collect();
    let [a, b, c] = ports[..] else { panic!("{ports:?}") };
    let hosts = format!("127.0.0.1:{a},127.0.0.1:{b},127.0.0.1:{c}");
    assert_eq!(mongo.uri_of("test"), format!("mongodb://{hosts}/test?replicaSet=rs"));
    insert(&mongo, 1);

    let old = mongo.primary();
    mongo.kill(old);
    let new = timed("failover from a killed primary", || mongo.primary());
    assert_ne!(new, old);
    assert_eq!(count(&mongo, new), 1);
    timed("a write without the killed one", || insert(&mongo, 2));
    timed("the old primary is a secondary", || {
        mongo.start(old);
        mongo.wait_until_whole();
    });
    assert_eq!(mongo.primary(), new);

    mongo.pause(new);
    let third = timed("failover from a paused primary", || mongo.primary());
    assert_ne!(third, new);
    timed("a write without the paused one", || insert(&mongo, 3));
    mongo.resume(new);
    timed("the resumed primary is a secondary", || mongo.wait_until_whole());

    let third = mongo.primary();
    assert_eq!(timed("step down", || mongo.step_down()), third);
    let fourth = timed("a primary after one stepped down", || mongo.primary());
    assert_ne!(fourth, third);
    mongo.wait_until_whole();
    assert_eq!(count(&mongo, fourth), 3);
}

/// Returns whether `openssl` completes a handshake as a client that trusts only this CA.
fn handshake(port: u16, authority: &Path, host: &str) -> bool {
    let address = format!("127.0.0.1:{port}");
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address, "-verify_return_error", "-no-CApath"]);
    client.args(["-verify_hostname", host]).arg("-CAfile").arg(authority).stdin(Stdio::null());
    client.output().expect("openssl can be started").status.success()
}

/// Reads with the driver and this URI, and waits this long for a server.
async fn can_read(uri: &str, wait: Duration) -> Result<(), String> {
    let uri = format!("{uri}&serverSelectionTimeoutMS={}", wait.as_millis());
    let client = Client::with_uri_str(uri).await.map_err(|error| error.to_string())?;
    let found = client.database("test").collection::<Document>("things").find_one(doc! {}).await;
    found.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_secured_server_requires_tls_and_a_password() {
    let mut mongo = timed("start with TLS and a password", Mongo::secured);
    assert!(handshake(mongo.port(0), &mongo.ca_file(), "localhost"));
    assert!(!handshake(mongo.port(0), &mongo.ca_file(), "example.org"));
    let error = mongo.try_command_on(0, "test", &doc! { "find": "things" }).unwrap_err();
    assert!(error.contains("Unauthorized"), "{error}");

    let uri = mongo.uri_of("test");
    assert!(uri.contains(&format!("@localhost:{}/test?replicaSet=rs&", mongo.port(0))), "{uri}");
    assert_eq!(can_read(&uri, DEADLINE).await, Ok(()));
    let (scheme, rest) = uri.split_once("//").unwrap();
    let (user, place) = rest.split_once('@').unwrap();
    let anonymous = format!("{scheme}//{place}").replace("authSource=admin&", "");
    let error = can_read(&anonymous, DEADLINE).await.unwrap_err();
    assert!(error.contains("requires authentication"), "{error}");
    let error = can_read(&uri.replace(user, "chapar:wrong"), DEADLINE).await.unwrap_err();
    assert!(error.contains("Authentication failed"), "{error}");
    let (plain, _) = uri.split_once("&tls=true").unwrap();
    assert!(can_read(plain, Duration::from_secs(2)).await.is_err());

    mongo.start(0);
    assert_eq!(can_read(&uri, DEADLINE).await, Ok(()));
}
