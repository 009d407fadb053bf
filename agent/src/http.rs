//! The one port of the agent: `/metrics`, `/healthz`, `/readyz`, and `/` which lists them.
//!
//! Owns the socket and its bounds, not what the pages say. Invariant: no client can hold more than
//! a bounded share of the agent: one request a connection, a bounded number of connections, a
//! bounded life for each.

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    health::{Answer, Health},
    metrics::{CONTENT_TYPE, Metrics},
};

/// Connections at a time. The next ones wait in the socket's backlog.
const MAX_CONNECTIONS: u32 = 64;
/// How long one connection may last, request and answer together. A page takes milliseconds.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// How long a shutdown waits for answers that are on their way.
const DRAIN: Duration = Duration::from_secs(2);
/// After a failed accept (no file descriptor left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

const INDEX: &str = "\
bulkhead: network segmentation for Kubernetes

/metrics  counters and gauges (OpenMetrics); docs/metrics.md explains each
/healthz  200 while the agent's loop turns
/readyz   200 while every known pod of this node is enforced; else what is missing
";

/// A bound socket that nobody answers yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    max_connections: u32,
    connection_lifetime: Duration,
}

impl Server {
    /// Binds to `address`, which came from `--metrics-address`. Port 0 picks a free one.
    ///
    /// # Errors
    ///
    /// Where the address cannot be bound; the message names it, the flag and the remedy.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}: give --metrics-address an address of this node and a \
                 port that is free"
            )
        })?;
        let address = listener.local_addr().context("the bound socket has no address")?;
        Ok(Self {
            listener,
            address,
            max_connections: MAX_CONNECTIONS,
            connection_lifetime: CONNECTION_LIFETIME,
        })
    }

    /// Where it listens, with the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` resolves, then finishes what it has begun, for two seconds at most.
    pub async fn run(
        self,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        stop: impl Future<Output = ()>,
    ) {
        let service = router(metrics, health);
        let free = Arc::new(Semaphore::new(self.max_connections as usize));
        let mut stop = pin!(stop);
        loop {
            let (stream, permit) = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&self.listener, &free) => accepted,
            };
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(MAX_REQUEST_BYTES)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
            tokio::spawn(async move {
                match timeout(self.connection_lifetime, connection).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!("metrics connection broke off: {error}"),
                    Err(_) => tracing::debug!("metrics connection was too slow and is closed"),
                }
                drop(permit);
            });
        }
        drop(self.listener);
        // Once every permit is back, no connection is left.
        if timeout(DRAIN, free.acquire_many(self.max_connections)).await.is_err() {
            tracing::debug!("metrics connections were cut at shutdown");
        }
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let accepted = match Arc::clone(free).acquire_owned().await {
            Ok(permit) => listener.accept().await.map(|(stream, _)| (stream, permit)),
            Err(closed) => Err(std::io::Error::other(closed)),
        };
        match accepted {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!("metrics port cannot accept a connection, trying again: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn router(metrics: Arc<Metrics>, health: Arc<Health>) -> Router {
    Router::new()
        .route("/", get(INDEX))
        .route("/metrics", get(page).with_state(metrics))
        .route("/healthz", get(live).with_state(Arc::clone(&health)))
        .route("/readyz", get(ready).with_state(health))
}

/// Reads the kernel's maps and formats thousands of lines: not on a thread that probes wait for.
async fn page(State(metrics): State<Arc<Metrics>>) -> Response {
    let page = tokio::task::spawn_blocking(move || metrics.page()).await;
    match page.context("the page's task died").flatten() {
        Ok(page) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

async fn live(State(health): State<Arc<Health>>) -> Response {
    probe(health.live(Instant::now()))
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    probe(health.ready(Instant::now()))
}

fn probe(answer: Answer) -> Response {
    let status = if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, answer.text).into_response()
}
