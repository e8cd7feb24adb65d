//! Groups the rows of an input into batches without ever waiting for rows that have not arrived yet.
//!
//! A separate thread reads ahead. A file is divided into full batches, which depend only on the file. From a pipe or a
//! terminal, a batch consists of what has arrived, so that a program that writes a line and waits for its answer gets
//! it, while fast input still fills the batches.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bert_model::Result;

/// Length of a pause in the input that ends a batch.
const PAUSE: Duration = Duration::from_millis(2);

/// The longest time that a row waits for the rest of its batch, however steadily rows arrive.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// The most rows that are read ahead.
const MOST_AHEAD: usize = 4096;

/// Iterates over batches of rows.
pub struct Batches<T> {
    rows: Receiver<Result<T>>,
    size: usize,
    is_live: bool,
}

impl<T: Send + 'static> Batches<T> {
    /// Starts to read. A batch has at most `size` rows; `is_live` says that the input may pause.
    pub fn new(rows: impl Iterator<Item = Result<T>> + Send + 'static, size: usize, is_live: bool) -> Self {
        let size = size.max(1);
        // The channel reserves memory for all of its places.
        let (sender, receiver) = sync_channel(size.min(MOST_AHEAD));
        // Not joined: after an error elsewhere the process exits, even if this thread is waiting for a line.
        thread::spawn(move || {
            for row in rows {
                let is_last = row.is_err();
                if sender.send(row).is_err() || is_last {
                    break;
                }
            }
        });
        Self { rows: receiver, size, is_live }
    }

    /// The next row of a batch that was started at `start`; `None` if the batch is complete.
    fn next_row(&self, start: Instant) -> Option<Result<T>> {
        if !self.is_live {
            return self.rows.recv().ok();
        }
        let wait = PAUSE.min(LONGEST_WAIT.saturating_sub(start.elapsed()));
        self.rows.recv_timeout(wait).ok()
    }
}

impl<T: Send + 'static> Iterator for Batches<T> {
    type Item = Result<Vec<T>>;

    /// Blocks only for the first row. An error replaces the batch in which it occurs.
    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = match self.rows.recv().ok()? {
            Ok(first) => vec![first],
            Err(error) => return Some(Err(error)),
        };
        let start = Instant::now();
        while batch.len() < self.size {
            match self.next_row(start) {
                Some(Ok(row)) => batch.push(row),
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        Some(Ok(batch))
    }
}

#[cfg(test)]
mod tests {
    use bert_model::Error;

    use super::*;

    #[test]
    fn a_file_makes_full_batches_however_slowly_it_is_read() {
        let rows = (0..5).map(|row| {
            thread::sleep(Duration::from_millis(5));
            Ok(row)
        });
        let batches: Vec<Vec<i32>> = Batches::new(rows, 2, false).map(Result::unwrap).collect();
        assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4]]);
    }

    #[test]
    fn a_row_is_not_kept_waiting_for_one_that_has_yet_to_come() {
        let (sender, receiver) = sync_channel(9);
        let mut batches = Batches::new(receiver.into_iter(), 9, true);
        for row in [1, 2] {
            sender.send(Ok(row)).unwrap();
            assert_eq!(batches.next().unwrap().unwrap(), [row]);
        }
        (3..6).for_each(|row| sender.send(Ok(row)).unwrap());
        drop(sender);
        assert_eq!(batches.flat_map(Result::unwrap).collect::<Vec<_>>(), [3, 4, 5]);
    }

    #[test]
    fn nothing_is_read_after_an_error() {
        let rows = [Ok(1), Err(Error::Setting("bad".into())), Ok(3)];
        let mut batches = Batches::new(rows.into_iter(), 9, false);
        assert_eq!(batches.next().unwrap().unwrap_err().to_string(), "bad");
        assert!(batches.next().is_none());
    }
}
