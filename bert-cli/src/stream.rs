//! Rows of an input in batches that never wait for a row that has yet to come.
//!
//! A thread of its own reads ahead of the work. A file is cut into full batches, which depend on the file alone. From a
//! pipe or a terminal a batch is what has arrived, so that a program that writes a line and waits for the answer gets it,
//! while fast input still makes full batches.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bert_model::Result;

/// A pause in the input of this length ends a batch.
const PAUSE: Duration = Duration::from_millis(2);

/// The longest that a row waits for others of its batch, however steadily they arrive.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Batches of rows.
pub struct Batches<T> {
    rows: Receiver<Result<T>>,
    size: usize,
    is_live: bool,
}

impl<T: Send + 'static> Batches<T> {
    /// Starts to read. A batch has at most `size` rows; `is_live` tells that the input may pause.
    pub fn new(rows: impl Iterator<Item = Result<T>> + Send + 'static, size: usize, is_live: bool) -> Self {
        let size = size.max(1);
        let (sender, receiver) = sync_channel(size);
        // Not joined: at an error elsewhere the process ends, though this thread may wait for a line.
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

    /// The next row of a batch that began at `start`; `None` if the batch is complete.
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

    /// Waits for the first row alone. An error takes the place of the batch that it is in.
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
