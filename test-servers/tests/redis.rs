//! Each kind of Redis server behaves as documented.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use test_servers::DEADLINE;
use test_servers::redis::{Cluster, Redis, Sentinel};

/// Runs a step and prints how long it took; `--nocapture` shows it.
fn timed<T>(step: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    eprintln!("{step}: {:?}", start.elapsed());
    result
}

#[test]
fn a_server_is_empty_after_a_restart() {
    let mut redis = timed("start", || Redis::start(&[]));
    assert_eq!(redis.uri(), format!("redis://127.0.0.1:{}", redis.port()));
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_ok());
    assert!(UnixStream::connect(redis.socket()).is_ok());
    assert_eq!(redis.command(&["SET", "key", "value"]), "OK");
    assert_eq!(redis.command(&["CONFIG", "GET", "appendonly"]), "appendonly\nno");
    assert!(redis.try_command(&["INCR", "key"]).unwrap_err().contains("not an integer"));

    let port = redis.port();
    timed("kill", || redis.kill());
    assert!(!redis.is_live());
    assert!(redis.try_command(&["PING"]).is_err());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());

    timed("restart", || redis.restart());
    assert!(redis.is_live());
    assert_eq!(redis.port(), port);
    assert_eq!(redis.command(&["GET", "key"]), "(nil)");
}

#[test]
fn the_append_only_file_survives_a_kill() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    for n in 0..100 {
        redis.command(&["RPUSH", "list", &n.to_string()]);
    }
    redis.kill();
    redis.restart();
    assert_eq!(redis.command(&["LLEN", "list"]), "100");
    assert_eq!(redis.command(&["LRANGE", "list", "97", "-1"]), "97\n98\n99");
}

#[test]
fn a_paused_server_answers_when_it_is_resumed() {
    let redis = Redis::start(&[]);
    timed("pause", || redis.pause());
    assert!(!redis.is_live());
    thread::scope(|scope| {
        let (sender, answer) = mpsc::channel();
        let redis = &redis;
        scope.spawn(move || sender.send(redis.command(&["PING"])));
        assert!(answer.recv_timeout(Duration::from_millis(200)).is_err());
        redis.resume();
        assert_eq!(answer.recv_timeout(DEADLINE).as_deref(), Ok("PONG"));
    });
    assert!(redis.is_live());
}

#[test]
fn a_paused_server_can_be_killed() {
    let mut redis = Redis::start(&[]);
    redis.pause();
    redis.restart();
    assert_eq!(redis.command(&["PING"]), "PONG");
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let redis = Redis::start(&[]);
    let (port, socket) = (redis.port(), redis.socket());
    let folder = socket.parent().unwrap();
    assert!(folder.exists());
    drop(redis);
    assert!(!folder.exists());
    let refused = TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// Runs itself in another process, which is killed while it has a server in a static variable.
#[test]
fn a_server_in_a_static_ends_with_the_process() {
    static SHARED: OnceLock<Redis> = OnceLock::new();
    const MARK: &str = "TEST_SERVERS_STATIC";
    if env::var_os(MARK).is_some() {
        eprintln!("{MARK}={}", SHARED.get_or_init(|| Redis::start(&[])).socket().display());
        // The input ends with the parent process.
        io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_server_in_a_static_ends_with_the_process", "--nocapture"])
        .env(MARK, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut marked = lines.filter_map(|line| Some(line.split_once(MARK)?.1.split_at(1).1.into()));
    let socket: PathBuf = marked.next().unwrap();
    assert!(UnixStream::connect(&socket).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while socket.parent().unwrap().exists() {
        assert!(start.elapsed() < DEADLINE, "{} is still there", socket.display());
        thread::yield_now();
    }
}

#[test]
#[should_panic(expected = "Bad directive or wrong number of arguments")]
fn a_failed_start_panics_with_the_log() {
    Redis::start(&["--no-such-option", "yes"]);
}

/// Returns whether `openssl` completes a handshake as a client that trusts only this CA.
fn handshake(port: u16, authority: &Path, host: &str) -> bool {
    let address = format!("127.0.0.1:{port}");
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &address, "-verify_return_error", "-no-CApath"]);
    client.args(["-verify_hostname", host]).arg("-CAfile").arg(authority).stdin(Stdio::null());
    client.output().expect("openssl can be started").status.success()
}

#[test]
fn a_server_with_tls_has_a_certificate_for_localhost() {
    let mut redis = timed("start with TLS", Redis::start_tls);
    let stranger = Redis::start_tls();
    assert_eq!(redis.uri(), format!("rediss://localhost:{}", redis.port()));
    assert!(handshake(redis.port(), &redis.ca(), "localhost"));
    assert!(!handshake(redis.port(), &redis.ca(), "example.org"));
    assert!(!handshake(redis.port(), &stranger.ca(), "localhost"));
    assert_eq!(redis.command(&["PING"]), "PONG");
    redis.restart();
    assert!(handshake(redis.port(), &redis.ca(), "localhost"));
}

#[test]
fn sentinels_promote_a_replica_and_the_old_master_rejoins() {
    let mut sentinel = timed("start with sentinels", || Sentinel::start(2, &[]));
    let ports: Vec<_> = sentinel.sentinels().iter().map(Redis::port).collect();
    let [a, b, c] = ports[..] else { panic!("{ports:?}") };
    let uri = format!("redis+sentinel://127.0.0.1:{a},127.0.0.1:{b},127.0.0.1:{c}/main");
    assert_eq!(sentinel.uri(), uri);
    let first = sentinel.servers()[0].port();
    assert_eq!(sentinel.servers().len(), 3);
    assert_eq!(sentinel.master(), first);
    let replicated: &[&[&str]] = &[&["SET", "key", "value"], &["WAIT", "2", "10000"]];
    assert_eq!(sentinel.server(first).commands(replicated), ["OK", "2"]);

    let old = sentinel.kill_master();
    assert_eq!(old, first);
    let new = timed("failover by sentinels", || sentinel.wait_for_failover(old));
    assert_ne!(new, old);
    assert_eq!(sentinel.master(), new);
    assert_eq!(sentinel.server(new).command(&["GET", "key"]), "value");

    timed("the old master is a replica", || {
        sentinel.restart(old);
        sentinel.wait_until_whole();
    });
    assert_eq!(sentinel.master(), new);
    assert_eq!(sentinel.server(old).command(&["GET", "key"]), "value");
}

#[test]
fn sentinels_replace_a_stopped_master() {
    let sentinel = Sentinel::start(1, &["--min-replicas-to-write", "1"]);
    let old = sentinel.master();
    sentinel.server(old).pause();
    let new = timed("failover from a paused master", || sentinel.wait_for_failover(old));
    sentinel.server(old).resume();
    timed("the resumed master is a replica", || sentinel.wait_until_whole());
    assert_eq!(sentinel.server(new).command(&["SET", "key", "value"]), "OK");
}

/// The key is in slot 12182.
const SLOT: u16 = 12182;

#[test]
fn a_cluster_promotes_a_replica() {
    let mut cluster = timed("start a cluster", || Cluster::start(&[]));
    assert_eq!(cluster.nodes().len(), 6);
    assert_eq!(cluster.masters().len(), 3);
    assert_eq!(cluster.uri().matches("127.0.0.1:").count(), 6);
    let old = cluster.owner(SLOT);
    let replicated: &[&[&str]] = &[&["SET", "foo", "bar"], &["WAIT", "1", "10000"]];
    assert_eq!(cluster.node(old).commands(replicated), ["OK", "1"]);

    cluster.kill(old);
    let new = timed("failover in a cluster", || cluster.wait_for_failover(SLOT, old));
    assert_eq!(cluster.owner(SLOT), new);
    assert!(!cluster.masters().contains(&old));
    assert_eq!(cluster.node(new).command(&["GET", "foo"]), "bar");

    timed("the old owner is a replica", || {
        cluster.restart(old);
        cluster.wait_until_whole();
    });
    assert_eq!(cluster.owner(SLOT), new);
}

#[test]
fn a_slot_moves_with_its_keys() {
    let cluster = Cluster::start(&[]);
    let from = cluster.owner(SLOT);
    let to = cluster.masters().into_iter().find(|&port| port != from).unwrap();
    cluster.node(from).command(&["SET", "foo", "bar"]);
    for n in 0..250 {
        cluster.node(from).command(&["SET", &format!("{{foo}}\r\n{n}"), "value"]);
    }
    timed("move a slot with 251 keys", || cluster.move_slot(SLOT, to));
    assert_eq!(cluster.owner(SLOT), to);
    assert_eq!(cluster.owner(SLOT + 1), from);
    assert_eq!(cluster.node(to).command(&["GET", "foo"]), "bar");
    assert_eq!(cluster.node(to).command(&["CLUSTER", "COUNTKEYSINSLOT", "12182"]), "251");
    let moved = cluster.node(from).try_command(&["GET", "foo"]).unwrap_err();
    assert!(moved.contains(&format!("MOVED {SLOT} 127.0.0.1:{to}")), "{moved}");
    timed("move it back", || cluster.move_slot(SLOT, from));
    assert_eq!(cluster.node(from).command(&["GET", "foo"]), "bar");
    cluster.wait_until_whole();
}
