//! Communication between the processes ("ranks") of a run, which take every step together.

use bert_model::{Error, Result};

/// How long to wait for other ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The others are about to send: after a while, the missing ones are named, and later the run is aborted.
    Limited,
    /// The others may have work to do first, such as reading a corpus.
    Unlimited,
}

/// What an error means to the other ranks.
#[derive(Debug)]
pub struct Failure {
    /// One line about the error.
    pub message: String,
    /// The exit code.
    pub code: u8,
    /// Whether all ranks have the same error at the same place.
    pub is_common: bool,
}

impl Failure {
    /// Describes an error to the other ranks by its cause, one line about it, and its exit code.
    pub fn of(cause: Option<&Error>, message: String, code: u8) -> Self {
        let is_common = matches!(cause, Some(Error::NotFinite { .. } | Error::OtherRank { .. }));
        Self { message, code, is_common }
    }
}

/// Communication between the ranks of a run. All ranks make the same calls in the same order.
pub trait Communicator: Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// The name of this process's machine, for messages.
    fn host(&self) -> &str;

    /// The number of this process among those on the same machine, from 0.
    fn local_rank(&self) -> usize {
        0
    }

    /// The number of processes on this machine.
    fn local_size(&self) -> usize {
        1
    }

    /// Notes that all ranks are about to end with an error that only the first one reports.
    fn end_all(&self) {}

    /// Sends bytes to other ranks and receives theirs: `receive` contains buffers of exactly the lengths that those
    /// ranks send. Messages between two ranks arrive in the order in which they are listed.
    ///
    /// # Errors
    /// If the connection fails.
    fn exchange(&self, send: &[(usize, &[u8])], receive: Vec<(usize, &mut [u8])>, patience: Patience) -> Result<()>;
}

/// A run of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn host(&self) -> &str {
        "this machine"
    }

    fn exchange(&self, _send: &[(usize, &[u8])], _receive: Vec<(usize, &mut [u8])>, _patience: Patience) -> Result<()> {
        Ok(())
    }
}

/// The numbers in a message.
pub(crate) fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|word| f32::from_ne_bytes(*word)).collect()
}

/// Maximum length of one message of [`broadcast`].
const MESSAGE_BYTES: usize = 64 << 20;

impl dyn Communicator + '_ {
    /// Whether this rank owns the run directory and talks to the user.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The numbers of the other ranks.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank();
        (0..self.size()).filter(move |&rank| rank != own)
    }

    /// Every rank's bytes, in the order of the ranks.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn gather(&self, own: &[u8], patience: Patience) -> Result<Vec<Vec<u8>>> {
        let length = (own.len() as u64).to_le_bytes();
        let mut lengths = vec![[0; 8]; self.size()];
        let send: Vec<(usize, &[u8])> = self.others().map(|rank| (rank, &length[..])).collect();
        self.exchange(&send, self.buffers_of_others(lengths.iter_mut().map(|length| &mut length[..])), patience)?;
        let length_of = |rank| u64::from_le_bytes(lengths[rank]) as usize;
        let mut all: Vec<Vec<u8>> = (0..self.size()).map(|rank| vec![0; length_of(rank)]).collect();
        let send: Vec<(usize, &[u8])> = self.others().map(|rank| (rank, own)).collect();
        self.exchange(&send, self.buffers_of_others(all.iter_mut().map(|bytes| &mut bytes[..])), Patience::Limited)?;
        all[self.rank()] = own.to_vec();
        Ok(all)
    }

    /// Every rank's numbers, in the order of the ranks.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn gather_values(&self, own: &[f32]) -> Result<Vec<Vec<f32>>> {
        let all = self.gather(bytemuck::cast_slice(own), Patience::Limited)?;
        Ok(all.iter().map(|bytes| values_of(bytes)).collect())
    }

    /// Every rank's bytes on rank `root`, in the order of the ranks; none on the others.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn gather_at(&self, root: usize, own: &[u8], patience: Patience) -> Result<Vec<Vec<u8>>> {
        if self.rank() != root {
            let length = (own.len() as u64).to_le_bytes();
            self.exchange(&[(root, &length), (root, own)], Vec::new(), patience)?;
            return Ok(Vec::new());
        }
        let mut lengths = vec![[0; 8]; self.size()];
        self.exchange(&[], self.buffers_of_others(lengths.iter_mut().map(|length| &mut length[..])), patience)?;
        let mut all: Vec<Vec<u8>> =
            lengths.iter().map(|length| vec![0; u64::from_le_bytes(*length) as usize]).collect();
        self.exchange(&[], self.buffers_of_others(all.iter_mut().map(|bytes| &mut bytes[..])), Patience::Limited)?;
        all[root] = own.to_vec();
        Ok(all)
    }

    /// The bytes of rank 0, which alone passes any.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn broadcast(&self, own: Vec<u8>, patience: Patience) -> Result<Vec<u8>> {
        let mut length = (own.len() as u64).to_le_bytes();
        if self.is_first() {
            let send: Vec<(usize, &[u8])> = self.others().map(|rank| (rank, &length[..])).collect();
            self.exchange(&send, Vec::new(), patience)?;
            for message in own.chunks(MESSAGE_BYTES) {
                let send: Vec<(usize, &[u8])> = self.others().map(|rank| (rank, message)).collect();
                self.exchange(&send, Vec::new(), Patience::Limited)?;
            }
            return Ok(own);
        }
        self.exchange(&[], vec![(0, &mut length[..])], patience)?;
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        for message in bytes.chunks_mut(MESSAGE_BYTES) {
            self.exchange(&[], vec![(0, message)], Patience::Limited)?;
        }
        Ok(bytes)
    }

    /// The result of rank 0, which alone does `work`: `encode`d for the others, which `decode` it. If it fails on rank
    /// 0, it fails on all.
    ///
    /// # Errors
    /// The error of rank 0; on the others, [`Error::OtherRank`].
    pub fn from_first<T>(
        &self,
        work: impl FnOnce() -> Result<T>,
        encode: impl FnOnce(&T) -> Result<Vec<u8>>,
        decode: impl FnOnce(Vec<u8>) -> Result<T>,
    ) -> Result<T> {
        if self.size() == 1 {
            return work();
        }
        if !self.is_first() {
            let mut bytes = self.broadcast(Vec::new(), Patience::Unlimited)?;
            return match bytes.pop() {
                Some(0) => decode(bytes),
                code => {
                    self.end_all();
                    Err(Error::OtherRank { code: code.unwrap_or(1) })
                }
            };
        }
        let outcome = work().and_then(|value| Ok((encode(&value)?, value)));
        let bytes = match &outcome {
            Ok((bytes, _)) => [&bytes[..], &[0]].concat(),
            Err(error) => {
                self.end_all();
                vec![error.exit_code()]
            }
        };
        self.broadcast(bytes, Patience::Unlimited)?;
        outcome.map(|(_, value)| value)
    }

    /// The outcome of work that every rank has done for itself, unless it has failed on any of them. The error of the
    /// first rank, which the others probably have as well, is reported once.
    ///
    /// # Errors
    /// If the work has failed on any rank.
    pub fn agree<T>(&self, outcome: Result<T>) -> Result<T> {
        let own = outcome.as_ref().map_or_else(Error::exit_code, |_| 0);
        let all = self.gather(&[own], Patience::Unlimited)?;
        let codes = all.iter().map(|code| code.first().copied().unwrap_or(1));
        let Some((rank, code)) = codes.enumerate().find(|(_, code)| *code > 0) else { return outcome };
        if rank == 0 {
            self.end_all();
        }
        if rank == self.rank() { outcome } else { Err(Error::OtherRank { code }) }
    }

    /// The buffers of the other ranks, out of one for each rank.
    fn buffers_of_others<'b>(&self, buffers: impl Iterator<Item = &'b mut [u8]>) -> Vec<(usize, &'b mut [u8])> {
        buffers.enumerate().filter(|(rank, _)| *rank != self.rank()).collect()
    }
}
