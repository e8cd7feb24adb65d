//! Progress on stderr: a bar on a terminal, otherwise an occasional line, or nothing with `--quiet`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Minimum time between two lines when stderr is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A progress display on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    lines: Option<Lines>,
}

#[derive(Debug)]
struct Lines {
    what: String,
    started: Instant,
    first: u64,
    printed: Option<Instant>,
}

impl Progress {
    /// A display for `total` units (if known) of the activity `what` ("training", "embedding", …),
    /// of which `done` are already done.
    pub fn new(what: &str, total: Option<u64>, done: u64, quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(what.to_string());
        let template = match total {
            Some(_) => "{prefix} {bar:30} {pos}/{len} {msg} {eta} left",
            None => "{prefix} {pos} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_position(done);
        bar.reset_eta();
        let lines = (!is_terminal && !quiet).then(|| Lines {
            what: what.to_string(),
            started: Instant::now(),
            first: done,
            printed: None,
        });
        Self { bar, lines }
    }

    /// Advances to `position`, with a short message such as "loss 2.31".
    pub fn update(&mut self, position: u64, message: &str) {
        self.bar.set_position(position);
        self.bar.set_message(message.to_string());
        let total = self.bar.length();
        let Some(lines) = &mut self.lines else { return };
        let is_last = total.is_some_and(|total| position >= total);
        if !is_last && lines.printed.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        lines.printed = Some(Instant::now());
        let Some(total) = total else {
            eprintln!("{} {position} {message}", lines.what);
            return;
        };
        let each = lines.started.elapsed().as_secs_f64() / (position - lines.first).max(1) as f64;
        let left = Duration::try_from_secs_f64(each * total.saturating_sub(position) as f64).unwrap_or(Duration::MAX);
        eprintln!("{} {position}/{total} {message} {} left", lines.what, indicatif::HumanDuration(left));
    }

    /// Prints a line without disrupting the bar.
    pub fn say(&self, line: &str) {
        if self.lines.is_some() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Returns a function that prints lines from any thread, even with `--quiet`, without disrupting the bar.
    pub fn announcer(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |line| if bar.is_hidden() { eprintln!("{line}") } else { bar.println(line) }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
