//! Reports for the browser: made beside the connection that asks, so that a page is there at once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use store::{Store, Value};

use crate::cli::Global;

/// How long a browser waits for a report before it is shown something else.
const PATIENCE: Duration = Duration::from_millis(300);
/// Seconds between two reports while runs are running.
const GROWING_S: u32 = 20;

/// A report as it stands now.
pub struct Shown {
    /// The page; none where there is none yet.
    pub page: Option<String>,
    /// Seconds after which there is more to see.
    pub again_s: Option<u32>,
}

/// What one experiment has.
#[derive(Default)]
struct Entry {
    /// The newest page, what it was made from, and when.
    made: Option<(String, String, Instant)>,
    /// Why the last one could not be made, to be said once.
    failed: Option<String>,
    /// A thread is making one.
    making: bool,
}

/// The reports of all experiments.
#[derive(Default)]
pub struct Reports {
    entries: Mutex<HashMap<i64, Entry>>,
    made: Condvar,
}

impl Reports {
    fn entries(&self) -> MutexGuard<'_, HashMap<i64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The report of an experiment. A new one is begun where something was recorded since the last, into `scratch`.
    pub fn of(self: &Arc<Self>, id: i64, name: &str, store: &Store, to: (&Path, &Global)) -> anyhow::Result<Shown> {
        let (state, grows) = state(store)?;
        let mut entries = self.entries();
        let entry = entries.entry(id).or_default();
        if let Some((page, of, _)) = &entry.made
            && *of == state
        {
            return Ok(Shown { page: Some(page.clone()), again_s: grows.then_some(GROWING_S) });
        }
        if !entry.making {
            entry.making = true;
            let (reports, name) = (Arc::clone(self), name.to_owned());
            let (scratch, global) = to;
            let (out, global) = (scratch.join(id.to_string()), global.clone());
            thread::spawn(move || reports.make(id, &name, state, (&out, &global)));
        }
        let under_way = |entries: &mut HashMap<i64, Entry>| entries.get(&id).is_some_and(|entry| entry.making);
        let waited = self.made.wait_timeout_while(entries, PATIENCE, under_way);
        let (mut entries, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(id).or_default();
        if let Some(error) = entry.failed.take() {
            anyhow::bail!(error);
        }
        Ok(match &entry.made {
            None => Shown { page: None, again_s: Some(1) },
            Some((page, ..)) if !entry.making => {
                Shown { page: Some(page.clone()), again_s: grows.then_some(GROWING_S) }
            }
            // Of a little while ago: while runs are running that is new enough, afterwards the last one follows at once.
            Some((page, _, at)) => {
                let recent = at.elapsed() < Duration::from_secs(u64::from(GROWING_S) * 3 / 2);
                Shown { page: Some(page.clone()), again_s: Some(if grows && recent { GROWING_S } else { 2 }) }
            }
        })
    }

    fn make(&self, id: i64, name: &str, state: String, (out, global): (&PathBuf, &Global)) {
        let make = || -> anyhow::Result<String> {
            // A connection of its own: pages do not wait for a report's long queries.
            let store = Store::open_read_only(&global.db)?;
            let written = crate::commands::report::make(&store, &[name.to_owned()], out, global)?;
            Ok(std::fs::read_to_string(&written.html)?)
        };
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make));
        let mut entries = self.entries();
        let entry = entries.entry(id).or_default();
        entry.making = false;
        match made {
            Ok(Ok(page)) => entry.made = Some((page, state, Instant::now())),
            Ok(Err(error)) => entry.failed = Some(format!("{error:#}")),
            Err(_) => entry.failed = Some("a bug: the terminal says more".to_owned()),
        }
        self.made.notify_all();
    }
}

/// What reports are made from, as text that changes when something is recorded; and whether a run is running.
fn state(store: &Store) -> anyhow::Result<(String, bool)> {
    let sql = "SELECT coalesce(sum(status = 'running'), 0), count(*), coalesce(sum(status = 'done'), 0), \
               (SELECT count(*) FROM epochs), coalesce(max(finished_ms), 0) FROM runs";
    let rows = store.query(sql, &[])?.rows;
    let grows = rows.first().is_some_and(|row| row[0] != Value::Integer(0));
    Ok((format!("{rows:?}"), grows))
}
