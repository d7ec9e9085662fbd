//! What is said of experiments and their trials.

use report::{shorten, visible};
use store::{ExperimentRow, RunStatus, Standing};

use crate::output;

/// Configurations that are listed as the best, and trials as the last that failed.
const BEST: usize = 5;
const FAILED: usize = 3;
/// Columns of a curve.
const CURVE: usize = 24;
/// Columns of a trial's label before its curve, at most.
const LABEL: usize = 48;

/// A line of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it says, with nothing in it that a terminal obeys.
    pub text: String,
    /// It opens an experiment.
    pub is_head: bool,
}

/// All that is said, for a window of so many columns; `None` where there is no window.
pub fn lines(experiments: &[(ExperimentRow, Vec<Standing>)], columns: Option<usize>, now_ms: i64) -> Vec<Line> {
    let mut out = Vec::new();
    for (row, standings) in experiments {
        let name = visible(&row.name);
        // A long name leaves room for the numbers.
        let name = columns.map_or_else(|| name.clone(), |columns| shorten(&name, (columns / 2).max(8)));
        out.push(Line { text: format!("{name}: {}", counts(standings)), is_head: true });
        out.extend(trials(standings, now_ms).into_iter().map(|text| Line { text, is_head: false }));
    }
    if out.is_empty() {
        out.push(Line { text: "nothing has been planned yet".to_owned(), is_head: false });
    }
    out
}

/// How many trials stand where.
fn counts(standings: &[Standing]) -> String {
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
    let (trials, epochs) = (output::counted(standings.len(), "trial"), output::counted(epochs, "epoch"));
    if counts.is_empty() { trials } else { format!("{trials}: {}; {epochs}", counts.join(", ")) }
}

/// What is under way, the best so far, and what failed last. Numbers come first: a narrow window cuts at the right.
fn trials(standings: &[Standing], now_ms: i64) -> Vec<String> {
    let of = |status: RunStatus| standings.iter().filter(move |standing| standing.status == status);
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"));
    let run = |standing: &Standing| standing.run.map_or_else(|| "–".to_owned(), |run| run.to_string());
    let label = |standing: &Standing| {
        let label = shorten(&visible(&standing.label), LABEL);
        format!("{label} {}", curve(standing)).trim_end().to_owned()
    };
    let mut out = Vec::new();
    for standing in of(RunStatus::Running) {
        let last = standing.validations.last();
        let dead = standing.lease_until_ms.is_some_and(|lease| lease <= now_ms);
        out.push(format!(
            "  run {:<4} epoch {:<3} loss {} top1 {} {}{}",
            run(standing),
            standing.validations.len() + 1,
            number(last.and_then(|validation| validation.loss)),
            number(last.and_then(|validation| validation.top1)),
            if dead { "(no sign of life) " } else { "" },
            label(standing),
        ));
    }
    let mut done: Vec<(f64, &Standing)> =
        of(RunStatus::Done).filter_map(|standing| Some((standing.validations.last()?.top1?, standing))).collect();
    done.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (top1, standing) in done.into_iter().take(BEST) {
        out.push(format!("  best: {top1:.4} run {:<4} {}", run(standing), label(standing)));
    }
    let mut failed: Vec<&Standing> = of(RunStatus::Failed).collect();
    failed.sort_by_key(|standing| std::cmp::Reverse(standing.run.map(|run| run.0)));
    for standing in failed.into_iter().take(FAILED) {
        let kind = visible(standing.failure_kind.as_deref().unwrap_or_default());
        out.push(format!("  failed: run {:<4} {} {}", run(standing), shorten(&kind, 16), label(standing)));
    }
    out
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

#[cfg(test)]
mod tests {
    use store::{ExperimentId, RunId, Validation};

    use super::*;

    fn standing(run: i64, status: RunStatus, epochs: u32) -> Standing {
        let validation = |epoch| Validation { top1: Some(f64::from(epoch) / 10.0), loss: Some(1.0 / f64::from(epoch)) };
        Standing {
            identity: format!("{run:032}"),
            configuration: String::new(),
            network: "lenet5".to_owned(),
            label: format!("lenet5 λ={run} seed=1"),
            seed: 1,
            status,
            run: Some(RunId(run)),
            lease_until_ms: Some(1000),
            failure_kind: (status == RunStatus::Failed).then(|| "not-finite".to_owned()),
            validations: (1..=epochs).map(validation).collect(),
            train_seconds: None,
            macs_per_image: 1,
            parameters: 1,
        }
    }

    fn experiment(name: &str) -> ExperimentRow {
        ExperimentRow {
            id: ExperimentId(1),
            name: name.to_owned(),
            question: String::new(),
            file: String::new(),
            config_toml: String::new(),
            command: String::new(),
            created_ms: 0,
            updated_ms: 0,
            trials: 0,
            done: 0,
            pruned: 0,
            failed: 0,
        }
    }

    #[test]
    fn it_says_what_runs_what_is_best_and_what_failed() {
        let mut standings = vec![standing(1, RunStatus::Running, 2), standing(2, RunStatus::Failed, 1)];
        standings.extend((3..10).map(|run| standing(run, RunStatus::Done, run as u32)));
        let said = lines(&[(experiment("a"), standings)], None, 999);
        let texts: Vec<&str> = said.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts[0], "a: 9 trials: 7 done, 1 running, 1 failed; 45 epochs");
        assert_eq!(texts[1], "  run 1    epoch 3   loss 0.5000 top1 0.2000 lenet5 λ=1 seed=1 ▁█");
        assert_eq!(
            texts[2],
            "  best: 0.9000 run 9    lenet5 λ=9 seed=1 ▁▂▃▄▅▅▆▇█"
                .replace("▁▂▃▄▅▅▆▇█", &curve(&standing(9, RunStatus::Done, 9)))
        );
        assert_eq!(texts[6].split(" run").next(), Some("  best: 0.5000"), "five of them");
        assert_eq!(texts[7], "  failed: run 2    not-finite lenet5 λ=2 seed=1 █");
        assert_eq!(texts.len(), 8);
        let dead = lines(&[(experiment("a"), vec![standing(1, RunStatus::Running, 2)])], None, 1000);
        assert!(dead[1].text.contains("no sign of life"), "{}", dead[1].text);
    }

    #[test]
    fn a_long_name_leaves_room_for_the_numbers_and_nothing_is_obeyed() {
        let name = format!("{}\u{1b}[2J\n\u{202e}", "n".repeat(300));
        let said = lines(&[(experiment(&name), vec![standing(1, RunStatus::Done, 1)])], Some(40), 0);
        assert!(
            said[0].text.starts_with(&"n".repeat(19)) && said[0].text.ends_with("…: 1 trial: 1 done; 1 epoch"),
            "{}",
            said[0].text
        );
        let whole = lines(&[(experiment(&name), Vec::new())], None, 0);
        assert!(
            !whole[0].text.contains(['\u{1b}', '\n', '\u{202e}']) && whole[0].text.ends_with("0 trials"),
            "{}",
            whole[0].text
        );
        assert_eq!(lines(&[], Some(40), 0)[0].text, "nothing has been planned yet");
    }
}
