//! Connections: how many, how slow they may be, and how they end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::metrics::Metrics;

/// Longest head of a request, in bytes, and most of its headers.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 100;

/// How long to wait after the system refused to open another connection.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// Accepts connections, and knows which are open.
pub struct Connections {
    service: Router,
    metrics: Metrics,
    free: Arc<Semaphore>,
    read_timeout: Duration,
    graceful: GracefulShutdown,
}

impl Connections {
    /// For at most `limit` connections at once, whose clients are given `read_timeout` for each step.
    pub fn new(service: Router, metrics: Metrics, limit: usize, read_timeout: Duration) -> Self {
        let free = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self { service, metrics, free, read_timeout, graceful: GracefulShutdown::new() }
    }

    /// Accepts connections until `end`, and then those that had come before it.
    pub async fn accept(&self, listener: TcpListener, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.open(stream),
                    Err(error) => refused(&error).await,
                },
            }
        }
        // Clients that are connected already, as far as they can know, lose nothing.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            stream.into_iter().for_each(|stream| self.open(stream));
        }
    }

    /// Waits until all connections have been answered and closed.
    pub async fn finish(self) {
        self.graceful.shutdown().await;
    }

    fn open(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        match self.free.clone().try_acquire_owned() {
            Ok(permit) => {
                self.metrics.connected(true);
                let guard = Open { metrics: self.metrics.clone(), _permit: permit };
                tokio::spawn(serve(stream, self.service.clone(), self.read_timeout, self.graceful.watcher(), guard));
            }
            Err(_) => {
                self.metrics.connected(false);
                tokio::spawn(refuse(stream));
            }
        }
    }
}

/// An open connection, as long as it is counted.
struct Open {
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.disconnected();
    }
}

async fn serve(stream: TcpStream, service: Router, patience: Duration, watcher: Watcher, open: Open) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let stream = TokioIo::new(Patient::new(stream, patience));
    let connection = http.serve_connection(stream, TowerToHyperService::new(service));
    // What clients do to their connections is no fault of the server.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection");
    }
    drop(open);
}

/// Tells a client that there are too many, and closes.
async fn refuse(mut stream: TcpStream) {
    let body = r#"{"error":{"message":"too many connections (--max-connections); try again later","type":"unavailable_error"}}"#;
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let answer = async {
        stream.write_all((head + body).as_bytes()).await?;
        stream.shutdown().await?;
        // A connection that closes on bytes that nobody has read takes the answer with it.
        copy(&mut stream, &mut sink()).await
    };
    let _ = timeout(Duration::from_secs(1), answer).await;
}

/// After a failed `accept`: a connection that broke off is nobody's fault; out of file descriptors is a pause.
async fn refused(error: &io::Error) {
    let is_clients = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset].contains(&error.kind());
    if !is_clients {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(OUT_OF_FILES).await;
    }
}

/// A stream whose other side must read: a write that makes no progress for a while is an error.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    /// Runs while a write waits.
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Patient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, timer: Box::pin(sleep(patience)), is_waiting: false }
    }

    /// What came of a write.
    fn check<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.check(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
