//! Starting the server, running it, and shutting it down gracefully.

use std::io::stderr;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow};
use bert_cli::allocator::keep_memory;
use bert_cli::program::select_device;
use bert_model::Workers;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use crate::app::{App, RequestLimits, router};
use crate::args::Args;
use crate::auth::Keys;
use crate::batching::Scheduler;
use crate::body::PERMIT_BYTES;
use crate::connection::Connections;
use crate::metrics::Metrics;
use crate::models::Opener;

/// Connections that the system queues until they are accepted.
const BACKLOG: u32 = 4096;

/// Network threads. They only copy bytes; all other work is done by other threads.
const NETWORK_THREADS: usize = 2;

/// How many bodies of the maximum size may be in memory at once, and a lower bound for that memory in bytes.
const BODIES: usize = 16;
const BODY_MEMORY: usize = 64 << 20;

/// Loads the models, serves until a signal arrives, and finishes the pending requests.
///
/// # Errors
/// If the command line is wrong, a model cannot be loaded, or the address is in use.
pub fn run(args: &Args) -> Result<ExitCode> {
    args.check()?;
    let address = args.address()?;
    let level = LevelFilter::from(args.log);
    tracing_subscriber::fmt().with_writer(stderr).with_max_level(level).with_target(false).with_ansi(false).init();
    // Binding reports a port that is in use before the models load; the port opens afterwards.
    let socket = bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let runtime = runtime()?;
    // Before the models load, which can take long: as the first process of a container, the server has no default
    // handlers.
    let is_serving = Arc::new(AtomicBool::new(false));
    let end = runtime.block_on(async { end_signal(is_serving.clone()) })?;
    let app = open(args)?;
    // Only now: the weights as they were before they were packed go back to the system.
    keep_memory();
    for model in app.models.iter() {
        tracing::info!("{} ({}): {}", model.name, model.architecture(), model.routes().join(" "));
    }
    is_serving.store(true, Ordering::Relaxed);
    runtime.block_on(serve(args, socket, app, end))?;
    // Work that outlasted the grace period is abandoned.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Loads the models of a command line and starts the threads that run them: the whole server except its network.
///
/// # Errors
/// If the device does not exist, or a model or the keys cannot be read.
pub fn open(args: &Args) -> Result<Arc<App>> {
    let keys = args.api_key_file.as_deref().map(Keys::read).transpose()?.unwrap_or_default();
    let device = select_device(&args.device, false)?.device;
    args.precision.check(&device)?;
    let metrics = Metrics::default();
    let scheduler = Scheduler::new(Workers::for_device(&device)?);
    let opener = Opener::new((&device, args.precision), args.batch_limits(), &scheduler, &metrics);
    let (models, warnings) = opener.open_all(&args.models)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(App {
        models,
        keys,
        limits: limits(args),
        metrics,
        body_memory: Arc::new(Semaphore::new((BODIES * args.max_body).max(BODY_MEMORY) / PERMIT_BYTES)),
        large_bodies: Arc::new(Semaphore::new(text_threads() / 2)),
        is_ending: AtomicBool::new(false),
    }))
}

fn limits(args: &Args) -> RequestLimits {
    RequestLimits {
        precision: args.precision,
        body: args.max_body,
        inputs: args.max_inputs,
        truncate: args.auto_truncate,
        read_timeout: args.read_timeout,
        timeout: args.timeout,
        batch_tokens: args.max_batch_tokens,
        queue: args.max_queue,
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // On Windows, this would let other programs use the port as well.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Builds a runtime with few network threads, and more for tokenization and JSON.
fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(NETWORK_THREADS).max_blocking_threads(text_threads()).enable_all();
    builder.build().map_err(|error| anyhow!("cannot start threads: {error}"))
}

/// Number of threads for tokenization and JSON; the system schedules them alongside the model threads.
pub fn text_threads() -> usize {
    (2 * std::thread::available_parallelism().map_or(1, usize::from)).max(4)
}

async fn serve(args: &Args, socket: TcpSocket, app: Arc<App>, end: impl Future<Output = ()>) -> Result<()> {
    let listener = socket.listen(BACKLOG).with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
    let connections =
        Connections::new(router(app.clone()), app.metrics.clone(), args.max_connections, args.read_timeout);
    eprintln!("listening on http://{}", listener.local_addr()?);
    let ending = async {
        end.await;
        app.is_ending.store(true, Ordering::Relaxed);
        tracing::info!(
            "shutting down: no new connections, {} s for pending requests to finish",
            args.grace.as_secs_f64()
        );
    };
    connections.accept(listener, ending).await;
    if timeout(args.grace, connections.finish()).await.is_err() {
        tracing::warn!("some connections were still open after {} s (--grace)", args.grace.as_secs_f64());
    }
    Ok(())
}

/// Returns a future that resolves at the first SIGTERM or SIGINT. A second signal, or the first one before
/// `is_serving`, exits the process immediately.
fn end_signal(is_serving: Arc<AtomicBool>) -> Result<impl Future<Output = ()>> {
    let (sender, receiver) = oneshot::channel();
    let signals = signals()?;
    tokio::spawn(async move {
        let mut signals = signals;
        let code = signals.next().await;
        if !is_serving.load(Ordering::Relaxed) {
            std::process::exit(code);
        }
        let _ = sender.send(());
        let code = signals.next().await;
        // The log is not buffered, so exiting loses nothing.
        std::process::exit(code);
    });
    Ok(async move {
        let _ = receiver.await;
    })
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
fn signals() -> Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| anyhow!("cannot listen for signals: {error}"));
    Ok(Signals(listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?))
}

#[cfg(unix)]
impl Signals {
    /// Waits for a signal, and returns the exit code that a shell uses for it.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.0.recv() => 130,
            _ = self.1.recv() => 143,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
fn signals() -> Result<Signals> {
    Ok(Signals)
}

#[cfg(not(unix))]
impl Signals {
    async fn next(&mut self) -> i32 {
        let _ = tokio::signal::ctrl_c().await;
        130
    }
}
