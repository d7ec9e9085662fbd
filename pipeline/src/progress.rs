//! Progress on stderr: bars in a terminal, plain lines elsewhere, nothing when quiet.

use std::{io::IsTerminal, time::Duration};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use train::{EpochRecord, StepProgress};

use crate::output;

/// Whether bars can be drawn.
pub fn interactive() -> bool {
    std::io::stderr().is_terminal()
}

fn style(template: &str) -> ProgressStyle {
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let is_over = state.len().is_some_and(|length| state.pos() >= length);
        // Fails only where the terminal's line cannot be built, which a line can do without.
        let _ = out.write_str(&left(is_over, state.per_sec(), state.eta()));
    };
    let style = ProgressStyle::with_template(template).expect("the templates of this file are valid");
    style.progress_chars("━╸─").with_key("eta", left)
}

/// The time that is left, where anything was seen to go on by which it could be told.
fn left(is_over: bool, per_second: f64, eta: Duration) -> String {
    if is_over || per_second > 0.0 { format!("{:#}", HumanDuration(eta)) } else { "?".to_owned() }
}

/// A loss in few characters, also one that grows without bounds.
fn loss(value: f64) -> String {
    if value.abs() < 1e4 { format!("{value:.4}") } else { format!("{value:.3e}") }
}

/// A bar of one's own; hidden when quiet or not in a terminal.
pub fn bar(quiet: bool, total: u64, label: &str, bytes: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    bar.set_style(style(if bytes {
        "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left"
    } else {
        "{msg} {bar:30} {human_pos}/{human_len} {per_sec} {eta} left"
    }));
    bar.set_message(label.to_owned());
    bar
}

/// Columns of the window; those of old where they cannot be told.
fn columns() -> u16 {
    crossterm::terminal::size().map_or(80, |(columns, _)| columns)
}

/// A worker's line: its trial, how far that is, and when it will be done. In narrow windows what it says is cut, not wrapped.
fn worker_style(columns: u16) -> ProgressStyle {
    style(match columns {
        112.. => "  {prefix:<34!} {bar:20} {eta:>4} left  {wide_msg}",
        74.. => "  {prefix:<18!} {bar:8} {eta:>4} left  {wide_msg}",
        _ => "  {eta:>4} left  {wide_msg}",
    })
}

/// The line of all trials.
fn total_style(columns: u16) -> ProgressStyle {
    style(match columns {
        96.. => "{prefix} {bar:30} {human_pos}/{human_len} epochs, {elapsed} gone, {eta} left",
        64.. => "{prefix} {wide_bar} {human_pos}/{human_len} epochs, {elapsed} gone, {eta} left",
        _ => "{prefix} {human_pos}/{human_len} {eta} left",
    })
}

/// Bars of a sweep: one line a worker and one for all trials.
pub struct Sweep {
    bars: MultiProgress,
    total: ProgressBar,
    workers: Vec<ProgressBar>,
    plain: bool,
    epochs: u64,
}

impl Sweep {
    /// For `trials` trials of which `done` need not be run, and `epochs` epochs in the others.
    pub fn new(quiet: bool, workers: usize, trials: usize, done: usize, epochs: u64) -> Self {
        let target = if quiet || !interactive() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bars = MultiProgress::with_draw_target(target);
        let worker = |_| {
            let bar = bars.add(ProgressBar::new(1));
            bar.set_style(style("  {wide_msg}"));
            bar
        };
        let workers = (0..workers).map(worker).collect();
        let total = bars.add(ProgressBar::new(epochs));
        total.set_style(total_style(columns()));
        total.set_prefix(format!("trial {done}/{trials}"));
        total.enable_steady_tick(Duration::from_millis(500));
        Self { bars, total, workers, plain: !quiet && !interactive(), epochs }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        if self.plain {
            output::tell(text);
        } else {
            // Fails only where stderr is closed, and then nobody reads it.
            let _ = self.bars.println(report::visible(text));
        }
    }

    /// A worker takes a trial up.
    pub fn started(&self, worker: usize, label: &str) {
        let (bar, columns) = (&self.workers[worker], columns());
        self.total.set_style(total_style(columns));
        bar.reset();
        bar.set_style(worker_style(columns));
        bar.set_prefix(report::visible(label));
        bar.set_message("compiling");
    }

    /// Some steps are done.
    pub fn step(&self, worker: usize, at: &StepProgress, images_per_second: f64) {
        let bar = &self.workers[worker];
        bar.set_length(u64::from(at.epochs) * u64::from(at.steps));
        bar.set_position(u64::from(at.epoch - 1) * u64::from(at.steps) + u64::from(at.step));
        bar.set_message(format!(
            "epoch {}/{} loss {} {:.0} images/s",
            at.epoch,
            at.epochs,
            loss(at.loss),
            images_per_second
        ));
    }

    /// An epoch is done.
    pub fn epoch(&self, worker: usize, label: &str, epochs: u32, record: &EpochRecord) {
        self.total.inc(1);
        let top1 = record.validation.as_ref().map(|validation| validation.top1);
        let EpochRecord { epoch, images_per_second, .. } = record;
        let train_loss = loss(record.train_loss);
        let validation = top1.map_or_else(String::new, |top1| format!(" top1 {top1:.4}"));
        let bar = &self.workers[worker];
        bar.set_length(u64::from(epochs) * u64::from(record.steps));
        bar.set_position(u64::from(*epoch) * u64::from(record.steps));
        bar.set_message(format!("epoch {epoch}/{epochs} loss {train_loss}{validation}"));
        if self.plain {
            let validation = top1.map_or_else(String::new, |top1| format!(" validation {top1:.4}"));
            output::tell(&format!(
                "[{}/{} epochs] {label}: epoch {epoch}/{epochs} loss {train_loss}{validation} {images_per_second:.0} images/s",
                self.total.position(),
                self.epochs,
            ));
        }
    }

    /// Epochs that a checkpoint held already.
    pub fn skip(&self, epochs: u32) {
        self.total.inc(u64::from(epochs));
        // They took no time now.
        self.total.reset_eta();
    }

    /// A worker is free; so many trials are over.
    pub fn finished(&self, worker: usize, over: usize, trials: usize) {
        self.workers[worker].set_style(style("  {wide_msg}"));
        self.workers[worker].set_message("");
        self.workers[worker].set_prefix("");
        self.total.set_prefix(format!("trial {over}/{trials}"));
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        self.total.finish_and_clear();
        self.workers.iter().for_each(ProgressBar::finish_and_clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_once_something_goes_on() {
        assert_eq!(left(false, 0.0, Duration::ZERO), "?", "nothing was done yet");
        assert_eq!(left(false, 2.0, Duration::from_secs(41)), "41s");
        assert_eq!(left(true, 0.0, Duration::ZERO), "0s");
    }
}
