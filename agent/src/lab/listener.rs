//! A little server in a namespace: something for `curl` and for flows to connect to.

use std::{
    io,
    net::{self, Ipv6Addr},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime,
    sync::oneshot,
};

use super::Namespace;

const HTTP: u16 = 80;

/// Serves TCP, over IPv4 and IPv6, until it is dropped. Then its connections break, too.
///
/// Port 80 answers one HTTP request for a connection with the greeting `hello from NAME`. Every
/// other port says the greeting first, as MySQL does, and echoes what it gets from then on, until it
/// is told to `quit`.
#[derive(Debug)]
pub struct Listener {
    /// `None` only while dropping. Closing it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on these ports of the namespace. From the return on, connections succeed.
    ///
    /// # Errors
    /// If a port is taken.
    pub fn start(namespace: &Namespace, name: &str, ports: &[u16]) -> Result<Self> {
        let greeting = format!("hello from {name}\n");
        let bind = |port: &u16| {
            let listener = net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port))?;
            listener.set_nonblocking(true)?;
            Ok((*port, listener))
        };
        let listeners: Vec<_> = namespace
            .enter(|| ports.iter().map(bind).collect::<io::Result<_>>())?
            .with_context(|| format!("listen on {ports:?} in {}", namespace.name()))?;

        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let (stop, stopped) = oneshot::channel();
        {
            let _entered = runtime.enter();
            for (port, listener) in listeners {
                let listener = TcpListener::from_std(listener)?;
                runtime.spawn(accept(listener, port, greeting.clone()));
            }
        }
        // Ends with the sender; dropping the runtime then drops every socket.
        let serve = move || drop(runtime.block_on(stopped));
        let thread = thread::Builder::new().name(format!("listener-{name}")).spawn(serve)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("a listener of the lab panicked");
        }
    }
}

async fn accept(listener: TcpListener, port: u16, greeting: String) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let greeting = greeting.clone();
                tokio::spawn(async move {
                    let served = match port {
                        HTTP => answer(stream, &greeting).await,
                        _ => greet(stream, &greeting).await,
                    };
                    if let Err(error) = served {
                        tracing::debug!("connection to port {port}: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("port {port} of the lab accepts no more: {error}");
                return;
            }
        }
    }
}

/// HTTP/1.1, one request: reads its head and answers whatever it asks for.
async fn answer(stream: TcpStream, greeting: &str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 && line != "\r\n" {
        line.clear();
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n";
    let answer = format!("{head}Content-Length: {}\r\n\r\n{greeting}", greeting.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

async fn greet(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes).await?;
        match &bytes[..length] {
            b"" | b"quit\n" => return stream.shutdown().await,
            said => stream.write_all(said).await?,
        }
    }
}
