//! Accepting connections, limiting their number and slowness, and closing them.

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

/// Maximum size of a request's head in bytes, and maximum number of its headers.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 100;

/// How long to pause after the system failed to accept another connection.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// How long requests that have arrived by the end are given to be read. At shutdown, hyper closes connections that it
/// has not read anything of.
const LAST_READS: Duration = Duration::from_millis(200);

/// Accepts connections and keeps track of the open ones.
pub struct Connections {
    service: Router,
    metrics: Metrics,
    free: Arc<Semaphore>,
    read_timeout: Duration,
    graceful: GracefulShutdown,
}

impl Connections {
    /// Allows at most `limit` connections at once, and gives their clients `read_timeout` for each step.
    pub fn new(service: Router, metrics: Metrics, limit: usize, read_timeout: Duration) -> Self {
        let free = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self { service, metrics, free, read_timeout, graceful: GracefulShutdown::new() }
    }

    /// Accepts connections until `end` resolves, then those already in the backlog.
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
        // Clients in the backlog believe that they are connected, so they are served, too.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            stream.into_iter().for_each(|stream| self.open(stream));
        }
    }

    /// Waits until all connections have been answered and closed.
    pub async fn finish(self) {
        sleep(LAST_READS).await;
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

/// Counts a connection as open for as long as it lives.
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
    // Connection errors are caused by clients, not by the server.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection");
    }
    drop(open);
}

/// Tells a client that there are too many connections, and closes its own.
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
        // Closing a connection with unread bytes would discard the response.
        copy(&mut stream, &mut sink()).await
    };
    let _ = timeout(Duration::from_secs(1), answer).await;
}

/// Handles a failed `accept`: ignores aborted connections, and pauses after other errors, such as a lack of file
/// descriptors.
async fn refused(error: &io::Error) {
    let is_clients = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset].contains(&error.kind());
    if !is_clients {
        tracing::warn!(%error, "cannot accept a connection");
        sleep(OUT_OF_FILES).await;
    }
}

/// A stream whose peer must keep reading: a write that makes no progress for `patience` fails.
struct Patient {
    stream: TcpStream,
    patience: Duration,
    /// Runs while a write is pending.
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Patient {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, timer: Box::pin(sleep(patience)), is_waiting: false }
    }

    /// Passes on a completed write, and fails a pending one once the timer has elapsed.
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
