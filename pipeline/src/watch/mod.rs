//! A full-screen view of a database, which only reads it.

mod page;
mod screen;

use std::{
    io::IsTerminal,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use store::{ExperimentRow, RunStatus, Standing, Store, Value};

use self::{
    page::{Line, lines},
    screen::{Key, Screen},
};
use crate::{
    cli::{self, Global},
    output,
    runner::now_ms,
};

/// How long a change of the window's size may go unseen.
const TICK: Duration = Duration::from_millis(200);
/// Reading takes no more than one part in so many of the time, however large the database is.
const IDLE: u32 = 4;

/// What is shown.
struct View<'a> {
    store: &'a Store,
    asked: &'a [String],
    /// Experiments with their trials, those with running ones first.
    experiments: Vec<(ExperimentRow, Vec<Standing>)>,
    /// What SQLite counts up when another connection has written.
    version: Option<Value>,
}

impl View<'_> {
    /// Reads anew what was written since.
    fn read(&mut self) -> anyhow::Result<()> {
        let table = self.store.query("SELECT data_version FROM pragma_data_version", &[])?;
        let version = table.rows.into_iter().flatten().next();
        if version.is_some() && version == self.version {
            return Ok(());
        }
        let rows = self.store.experiments()?;
        if let Some(unknown) = self.asked.iter().find(|name| rows.iter().all(|row| row.name != **name)) {
            anyhow::bail!("{}: no experiment {unknown}; see `pipeline list`", self.store.path().display());
        }
        self.experiments.clear();
        for row in rows.into_iter().filter(|row| self.asked.is_empty() || self.asked.contains(&row.name)) {
            let standings = self.store.standings(row.id)?;
            self.experiments.push((row, standings));
        }
        let is_running = |standings: &[Standing]| standings.iter().any(|s| s.status == RunStatus::Running);
        self.experiments.sort_by_key(|(_, standings)| !is_running(standings));
        self.version = version;
        Ok(())
    }

    fn lines(&self, columns: Option<usize>) -> Vec<Line> {
        lines(&self.experiments, columns, now_ms())
    }

    /// Nothing is under way or waiting.
    fn is_over(&self) -> bool {
        let all = self.experiments.iter().flat_map(|(_, standings)| standings);
        all.into_iter().all(|s| matches!(s.status, RunStatus::Done | RunStatus::Failed | RunStatus::Pruned))
    }

    fn print(&self) -> anyhow::Result<()> {
        let lines: Vec<String> = self.lines(None).into_iter().map(|line| line.text).collect();
        output::line(&lines.join("\n"))
    }
}

/// Draws anew again and again until all trials are over or somebody has seen enough; once where nobody looks at a terminal.
pub fn watch(asked: &cli::Watch, global: &Global) -> anyhow::Result<()> {
    let store = Store::open_read_only(&global.db)?;
    let mut view = View { store: &store, asked: &asked.experiments, experiments: Vec::new(), version: None };
    view.read()?;
    let obeys = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    if asked.once || view.is_over() || !obeys || !std::io::stdout().is_terminal() {
        return view.print();
    }
    let (mut screen, keys) = Screen::enter()?;
    let seen_enough =
        follow(&mut view, &mut screen, &keys, Duration::from_secs_f64(asked.interval_s.clamp(0.1, 3600.0)));
    drop(screen);
    // What it came to stays on the terminal.
    if seen_enough? { Ok(()) } else { view.print() }
}

/// Returns whether somebody had seen enough before all trials were over.
fn follow(view: &mut View, screen: &mut Screen, keys: &Receiver<Key>, interval: Duration) -> anyhow::Result<bool> {
    let place = view.store.path().display().to_string();
    let mut due = Instant::now() + interval;
    loop {
        if view.is_over() {
            return Ok(false);
        }
        screen.draw(|columns| view.lines(Some(columns)), &place)?;
        match keys.recv_timeout(TICK.min(due.saturating_duration_since(Instant::now()))) {
            Ok(Key::Quit) | Err(RecvTimeoutError::Disconnected) => return Ok(true),
            Ok(key) => screen.scroll(key),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= due {
            let start = Instant::now();
            view.read()?;
            due = Instant::now() + interval.max(start.elapsed() * IDLE);
        }
    }
}
