//! The server on loopback, asked by a client that writes its request byte for byte.

use anyhow::bail;
use bulkhead_common::verdict::{Direction, DropReason, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
};

use super::*;
use crate::{
    dataplane::flows::FlowCount,
    metrics::{CounterSource, PacketCount},
    policy::model::ObjectKey,
};

/// Counters that can be read, or not.
struct Counters {
    readable: bool,
}

impl CounterSource for Counters {
    fn read(&self) -> anyhow::Result<Vec<PacketCount>> {
        if !self.readable {
            bail!("map COUNTERS is gone");
        }
        Ok(vec![PacketCount {
            pod: ObjectKey::new("shop", "db"),
            direction: Direction::Ingress,
            verdict: Verdict::Deny(DropReason::NotAllowed),
            packets: 3,
            bytes: 180,
        }])
    }

    fn flows(&self) -> anyhow::Result<[FlowCount; 2]> {
        Ok(Default::default())
    }
}

struct Running {
    address: SocketAddr,
    health: Arc<Health>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(readable: bool, adjust: impl FnOnce(&mut Server)) -> Running {
    let mut server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    adjust(&mut server);
    let address = server.address();
    let health = Arc::new(Health::new(Instant::now(), Duration::from_secs(60)));
    let (stop, stopped) = oneshot::channel();
    let metrics = Arc::new(Metrics::new(Counters { readable }));
    let task = tokio::spawn(server.run(metrics, Arc::clone(&health), async {
        stopped.await.unwrap();
    }));
    Running { address, health, stop, task }
}

impl Running {
    async fn get(&self, path: &str) -> (String, String) {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        // The server closes the connection, so this ends.
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn metrics_are_served_as_open_metrics_text() {
    let server = start(true, |_| {}).await;
    let (head, body) = server.get("/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.lines().any(|line| line == content_type), "{head}");
    assert!(
        body.contains(
            "bulkhead_packets_total{namespace=\"shop\",pod=\"db\",direction=\"ingress\",\
             verdict=\"deny\",reason=\"not_allowed\"} 3\n"
        ),
        "{body}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn counters_that_cannot_be_read_make_the_scrape_fail() {
    let server = start(false, |_| {}).await;
    let (head, body) = server.get("/metrics").await;
    assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    assert_eq!(body, "counters cannot be read from the kernel: map COUNTERS is gone\n");
}

#[tokio::test]
async fn probes_answer_by_status_and_text() {
    let server = start(true, |_| {}).await;
    let (head, body) = server.get("/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "ok\n");

    let (head, body) = server.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(body.ends_with("no reconcile yet\n"), "{body}");

    server.health.update(|readiness| {
        readiness.source_complete = true;
        readiness.last_reconcile = Some(Ok(()));
    });
    let (head, body) = server.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, "ok\n");
}

#[tokio::test]
async fn the_root_lists_the_pages_and_other_paths_are_not_found() {
    let server = start(true, |_| {}).await;
    let (head, body) = server.get("/").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(body.contains(path), "{body}");
    }
    assert!(server.get("/secret").await.0.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_silent_client_loses_its_place_to_the_next_one() {
    let server = start(true, |server| {
        server.max_connections = 1;
        server.connection_lifetime = Duration::from_secs(1);
    })
    .await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(b"GET /healthz HT").await.unwrap();
    assert_eq!(server.get("/healthz").await.1, "ok\n");
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"", "cut without an answer");
}

#[tokio::test]
async fn a_stopped_server_finishes_what_it_has_begun_and_returns() {
    let server = start(true, |_| {}).await;
    let mut halfway = TcpStream::connect(server.address).await.unwrap();
    halfway.write_all(b"GET /healthz HT").await.unwrap();
    // Connections are accepted in turn: once the second is answered, the first was accepted.
    assert_eq!(server.get("/healthz").await.1, "ok\n");

    server.stop.send(()).unwrap();
    halfway.write_all(b"TP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    halfway.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    server.task.await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_address_flag_and_cause() {
    let server = start(true, |_| {}).await;
    let error = format!("{:#}", Server::bind(server.address).await.unwrap_err());
    assert!(error.starts_with(&format!("cannot listen on {}: ", server.address)), "{error}");
    assert!(error.contains("--metrics-address"), "{error}");
    assert!(error.contains("in use"), "{error}");
}
