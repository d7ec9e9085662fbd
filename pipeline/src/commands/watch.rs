//! `pipeline watch`: where the trials of a database stand, drawn anew again and again. It only reads.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::Duration,
};

use store::{ExperimentRow, RunStatus, Standing, Store};

use crate::{
    cli::{self, Global},
    exit::Exit,
    runner::now_ms,
};

/// Trials under way that are listed.
const MOST_RUNNING: usize = 16;
/// Configurations that are listed.
const BEST: usize = 5;
/// Columns of a curve.
const CURVE: usize = 24;

/// Draws until all trials are over, or once where nobody looks at a terminal.
pub fn run(asked: &cli::Watch, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    let live = std::io::stdout().is_terminal() && !asked.once;
    loop {
        let rows: Vec<ExperimentRow> = store
            .experiments()?
            .into_iter()
            .filter(|row| asked.experiments.is_empty() || asked.experiments.contains(&row.name))
            .collect();
        if let Some(unknown) = asked.experiments.iter().find(|name| rows.iter().all(|row| row.name != **name)) {
            anyhow::bail!("{}: no experiment {unknown}; see `pipeline list`", global.db.display());
        }
        let mut page = String::new();
        let mut waiting = false;
        for row in &rows {
            let standings = store.standings(row.id)?;
            waiting |= standings.iter().any(|standing| !is_over(standing.status));
            draw(&mut page, row, &standings, now_ms());
        }
        if rows.is_empty() {
            page.push_str("nothing has been planned yet\n");
        }
        let mut out = std::io::stdout().lock();
        if live {
            // To the top, each line over the one before, and what is left below away: no flicker.
            write!(out, "\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\n"))?;
        } else {
            out.write_all(page.as_bytes())?;
        }
        out.flush()?;
        drop(out);
        if !live || !waiting {
            return Ok(Exit::Fine);
        }
        std::thread::sleep(Duration::from_secs_f64(asked.interval_s.clamp(0.1, 3600.0)));
    }
}

fn is_over(status: RunStatus) -> bool {
    matches!(status, RunStatus::Done | RunStatus::Failed | RunStatus::Pruned)
}

/// One experiment: counts, what is under way, the best so far.
fn draw(page: &mut String, row: &ExperimentRow, standings: &[Standing], now_ms: i64) {
    let statuses = [
        RunStatus::Done,
        RunStatus::Running,
        RunStatus::Queued,
        RunStatus::Interrupted,
        RunStatus::Pruned,
        RunStatus::Failed,
    ];
    let counts: Vec<String> = statuses
        .into_iter()
        .filter_map(|status| {
            let count = standings.iter().filter(|standing| standing.status == status).count();
            (count > 0).then(|| format!("{count} {status}"))
        })
        .collect();
    let epochs: usize = standings.iter().map(|standing| standing.validations.len()).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{}: {} trials: {}; {epochs} epochs", row.name, standings.len(), counts.join(", "));
    let running = standings.iter().filter(|standing| standing.status == RunStatus::Running);
    for standing in running.clone().take(MOST_RUNNING) {
        let last = standing.validations.last();
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
        let dead = standing.lease_until_ms.is_some_and(|lease| lease <= now_ms);
        let _ = writeln!(
            page,
            "  run {:<5} {} seed {}: epoch {}, validation loss {}, top1 {} {}{}",
            standing.run.map_or_else(String::new, |run| run.to_string()),
            standing.network,
            standing.seed,
            standing.validations.len() + 1,
            number(last.and_then(|validation| validation.loss)),
            number(last.and_then(|validation| validation.top1)),
            curve(standing),
            if dead { "  (no sign of life)" } else { "" },
        );
    }
    let more = running.count().saturating_sub(MOST_RUNNING);
    if more > 0 {
        let _ = writeln!(page, "  … and {more} more");
    }
    let mut done: Vec<(f64, &Standing)> = standings
        .iter()
        .filter(|standing| standing.status == RunStatus::Done)
        .filter_map(|standing| Some((standing.validations.last()?.top1?, standing)))
        .collect();
    done.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (top1, standing) in done.into_iter().take(BEST) {
        let run = standing.run.map_or_else(String::new, |run| run.to_string());
        let (network, seed) = (&standing.network, standing.seed);
        let _ = writeln!(page, "  best: {top1:.4} {network} seed {seed} (run {run}) {}", curve(standing));
    }
}

/// The validation accuracy over the epochs, from its least to its largest value.
fn curve(standing: &Standing) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let values: Vec<f64> = standing.validations.iter().filter_map(|validation| validation.top1).collect();
    let shown = &values[values.len().saturating_sub(CURVE)..];
    let (least, most) =
        shown.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(*value), b.max(*value)));
    let bar = |value: &f64| {
        let share = if most > least { (value - least) / (most - least) } else { 1.0 };
        BARS[((share * 7.0).round() as usize).min(7)]
    };
    shown.iter().map(bar).collect()
}
