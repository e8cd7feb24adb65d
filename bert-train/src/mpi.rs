//! The ranks of a run as processes of MPI. No other file calls it.
//!
//! One thread at a time uses MPI (level `Serialized`). It waits by testing its requests and sleeping in between, so
//! that the cores are free for the model, and ranks that do not answer can be named.

use std::io::Write;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bert_model::{Error, Result};
use ferrompi::{Mpi, Request, ThreadLevel};

use super::communicator::{Communicator, Failure, Patience};
use super::cores;

/// Longest message that is sent at once: MPI counts bytes in 32 bits.
const MESSAGE_BYTES: usize = 1 << 30;

/// Bounds of the time between two tests of the requests.
const SLEEP: [Duration; 2] = [Duration::from_micros(50), Duration::from_millis(1)];

/// Exit code after a panic, as of Rust's programs.
const PANICKED: i32 = 101;

/// How long a thread that wants to end all ranks waits for the one that uses MPI.
const ABORT_WAIT: Duration = Duration::from_millis(500);

/// Seconds until missing ranks are named, and until the run is aborted; tests set others.
const PATIENCE: &str = "BERT_RANKS_PATIENCE";

/// The connection to the other ranks.
struct Ranks {
    world: World,
    host: String,
    /// For every rank, the name of its machine.
    hosts: Vec<String>,
    /// When to name missing ranks, and when to abort.
    limits: [Duration; 2],
    /// Whether all ranks are about to end with an error.
    is_over: AtomicBool,
}

/// MPI's communicator, for one thread at a time.
#[derive(Clone)]
struct World {
    communicator: Arc<ferrompi::Communicator>,
    lock: Arc<Mutex<()>>,
    /// The exit code, if a thread wants to end all ranks.
    aborts: Arc<Mutex<Option<i32>>>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all ranks.
    fn abort(&self, code: i32) -> ! {
        *self.aborts.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
        let started = Instant::now();
        loop {
            // The thread that waits for messages sees the request; otherwise MPI is free.
            let is_free = self.lock.try_lock().is_ok_and(|guard| {
                std::mem::forget(guard);
                true
            });
            if is_free || started.elapsed() > ABORT_WAIT {
                self.communicator.abort(code);
            }
            std::thread::sleep(SLEEP[1]);
        }
    }
}

/// Runs `work` as one of `size` ranks; see [`super::launch::on_ranks`].
pub(super) fn start<T, E: From<Error>>(
    size: usize,
    work: impl FnOnce(&dyn Communicator) -> Result<T, E>,
    describe: impl Fn(&E) -> Failure,
) -> Result<T, E> {
    let mpi = Mpi::init_thread(ThreadLevel::Serialized).map_err(failed)?;
    let world = mpi.world();
    if world.size() == 1 {
        let version = Mpi::library_version().unwrap_or_default();
        return Err(Error::Usage(format!(
            "this job has {size} tasks, but the process is alone: the launcher and the MPI library of this build ({}) do \
             not fit, or it was started without a launcher; use the mpirun of that library, or srun --mpi=pmix, or a job \
             of one task",
            version.lines().next().unwrap_or("unknown")
        ))
        .into());
    }
    if mpi.thread_level() < ThreadLevel::Serialized {
        return Err(Error::Setting("this MPI library does not support threads (MPI_THREAD_SERIALIZED)".into()).into());
    }
    let host = world.processor_name().map_err(failed)?;
    let world = World { communicator: Arc::new(world), lock: Arc::default(), aborts: Arc::default() };
    let name = format!("rank {} on {host}", world.communicator.rank());
    abort_on_panic(world.clone(), name.clone());
    let mut ranks = Ranks { world, host, hosts: Vec::new(), limits: limits(), is_over: AtomicBool::new(false) };
    let result = prepare(&mut ranks).map_err(E::from).and_then(|()| work(&ranks));
    if let Err(error) = &result {
        let Failure { message, code, is_common } = describe(error);
        if !is_common && !ranks.is_over.load(Ordering::Relaxed) {
            tell(format!("error: {name}: {message}"));
            ranks.world.abort(i32::from(code));
        }
    }
    // Finalizing waits for all ranks, but not by sleeping.
    ranks.gather_all(&[])?;
    let _ = panic::take_hook();
    drop(mpi);
    result
}

/// Prints a line on stderr in one piece, since all ranks share it.
fn tell(line: String) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn failed(error: ferrompi::Error) -> Error {
    Error::Setting(format!("MPI: {error}"))
}

/// The limits of patience: 60 seconds and 10 minutes.
fn limits() -> [Duration; 2] {
    let given = std::env::var(PATIENCE).ok();
    let given = given.as_deref().and_then(|given| given.split_once(','));
    let seconds = given.and_then(|(first, second)| Some([first.parse().ok()?, second.parse().ok()?]));
    seconds.unwrap_or([60, 600]).map(Duration::from_secs)
}

/// Reports a panic of any thread and ends all ranks: unwinding would wait for the others in MPI.
fn abort_on_panic(world: World, name: String) {
    panic::set_hook(Box::new(move |panic| {
        tell(format!("error: {name} panicked: {panic}"));
        world.abort(PANICKED);
    }));
}

/// Learns the machines of all ranks, checks that all were started with the same options, and that each has its share of
/// the cores.
fn prepare(ranks: &mut Ranks) -> Result<()> {
    let hosts = ranks.gather_all(ranks.host.as_bytes())?;
    ranks.hosts = hosts.iter().map(|host| String::from_utf8_lossy(host).into_owned()).collect();
    let options = std::env::args_os().skip(1).map(|option| option.to_string_lossy().into_owned());
    let all = ranks.gather_all(options.collect::<Vec<_>>().join("\n").as_bytes())?;
    if let Some(rank) = all.iter().position(|options| *options != all[0]) {
        ranks.end_all();
        let [own, first] = [&all[rank], &all[0]].map(|options| String::from_utf8_lossy(options).replace('\n', " "));
        let host = &ranks.hosts[rank];
        return Err(Error::Usage(format!(
            "rank {rank} on {host} was started with other options than rank 0: found `{own}`, expected `{first}`"
        )));
    }
    let (own, share) = (cores::own(), (cores::of_machine() / ranks.local_size()).max(1));
    let all = ranks.gather_all(&[u32::to_le_bytes(own as u32), u32::to_le_bytes(share as u32)].concat())?;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let bound = all.iter().map(|both| (number(&both[..4]), number(&both[4..]))).enumerate();
    if ranks.rank() == 0
        && let Some((rank, (own, share))) = bound.into_iter().find(|(_, (own, share))| own < share)
    {
        tell(format!("warning: rank {rank} on {}: {}", ranks.hosts[rank], cores::advice(own, share)));
    }
    Ok(())
}

impl Ranks {
    fn gather_all(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        (self as &dyn Communicator).gather(own, Patience::Unlimited)
    }

    fn name(&self, rank: usize) -> String {
        format!("rank {rank} on {}", self.hosts.get(rank).map_or("an unknown machine", |host| host))
    }

    /// Waits for all requests, each with the rank that it concerns.
    fn wait(&self, mut requests: Vec<(usize, Request)>, patience: Patience) -> ferrompi::Result<()> {
        let (mut since, mut has_warned) = (Instant::now(), false);
        loop {
            let before = requests.len();
            let mut pending = Vec::with_capacity(before);
            for (rank, mut request) in requests {
                if request.test()?.is_none() {
                    pending.push((rank, request));
                }
            }
            requests = pending;
            if requests.is_empty() {
                return Ok(());
            }
            if let Some(code) = *self.world.aborts.lock().unwrap_or_else(PoisonError::into_inner) {
                self.world.communicator.abort(code);
            }
            if requests.len() < before {
                (since, has_warned) = (Instant::now(), false);
            }
            let waited = since.elapsed();
            if patience == Patience::Limited && waited > self.limits[usize::from(has_warned)] {
                let mut missing: Vec<usize> = requests.iter().map(|(rank, _)| *rank).collect();
                missing.dedup();
                let missing: Vec<String> = missing.into_iter().map(|rank| self.name(rank)).collect();
                let waiting = format!(
                    "{}: no message for {} s from {}",
                    self.name(self.rank()),
                    waited.as_secs(),
                    missing.join(", ")
                );
                if has_warned {
                    tell(format!("error: {waiting}; giving up"));
                    self.world.communicator.abort(1);
                }
                tell(format!("warning: {waiting}"));
                has_warned = true;
            }
            std::thread::sleep((waited / 16).clamp(SLEEP[0], SLEEP[1]));
        }
    }
}

impl Communicator for Ranks {
    fn rank(&self) -> usize {
        self.world.communicator.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.communicator.size() as usize
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn local_rank(&self) -> usize {
        self.hosts.iter().take(self.rank()).filter(|host| **host == self.host).count()
    }

    fn local_size(&self) -> usize {
        self.hosts.iter().filter(|host| **host == self.host).count().max(1)
    }

    fn end_all(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn exchange(&self, send: &[(usize, &[u8])], receive: Vec<(usize, &mut [u8])>, patience: Patience) -> Result<()> {
        let _only = self.world.lock();
        let world = &self.world.communicator;
        let exchanged = ferrompi::scope(|scope| {
            let mut requests = Vec::with_capacity(send.len() + receive.len());
            for (rank, buffer) in receive {
                for message in buffer.chunks_mut(MESSAGE_BYTES) {
                    requests.push((rank, world.irecv(scope, message, rank as i32, 0)?));
                }
            }
            for (rank, buffer) in send {
                for message in buffer.chunks(MESSAGE_BYTES) {
                    requests.push((*rank, world.isend(scope, message, *rank as i32, 0)?));
                }
            }
            let outcome = self.wait(requests, patience);
            if let Err(error) = &outcome {
                // The scope would wait for the other requests.
                tell(format!("error: {}: MPI: {error}", self.name(self.rank())));
                world.abort(1);
            }
            outcome
        });
        exchanged.map_err(failed)
    }
}
