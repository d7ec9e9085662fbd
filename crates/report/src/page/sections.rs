//! What stands in the report, section by section.

use std::collections::BTreeMap;

use super::{Page, Picture, Section, Table};
use crate::analysis::{Analysis, Comparison, Configuration};
use crate::answer::{accuracy, answer, notes, states};
use crate::evidence::Examination;
use crate::frames::FRAMES;
use crate::front::Front;
use crate::importance::Importance;
use crate::mistakes::{MOST_PAIRS, class_name, class_names, confused, examined};
use crate::naming;
use crate::plots::{Plot, Plots};
use crate::statistics::Estimate;
use crate::statistics::calibration::{calibration_error, reliability};
use crate::study::{Run, Status, Study};
use crate::text::{self, count, grouped, measure, p_value, percent, points, seconds, significant};

/// Rows of a table that could have a thousand.
const MOST_ROWS: usize = 30;

/// Other configurations that the chosen one is tested against on the page.
const MOST_RIVALS: usize = 10;

/// The whole page.
pub fn page(study: &Study, analysis: &Analysis<'_>, plots: &Plots) -> Page {
    let names: Vec<&str> = study.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
    let mut sections = vec![comparison(study, analysis, plots)];
    sections.push(front(study, analysis, plots));
    sections.push(tests(analysis));
    sections.push(Section { plots: pictures(&plots.learning), ..section("learning-curves", "Learning curves") });
    sections.push(Section {
        plots: [pictures(&plots.settings), pictures(&plots.importance)].concat(),
        tables: importance(analysis),
        ..section("settings", "What the settings do")
    });
    sections.push(Section { plots: pictures(&plots.schedules), ..section("schedules", "Learning-rate schedules") });
    sections.push(configurations(analysis, plots));
    sections.push(Section {
        plots: [pictures(&plots.confusion), pictures(&plots.mistakes)].concat(),
        tables: confused_table(study, analysis),
        ..section("errors", "What is confused with what")
    });
    sections
        .push(Section { plots: pictures(&plots.calibration), ..section("calibration", "Are its probabilities true?") });
    sections.push(Section { plots: pictures(&plots.filters), ..section("filters", "What the first layer looks for") });
    sections.push(failures(study));
    sections.push(provenance(study, analysis));
    for section in &mut sections {
        section.tables.retain(|table| !table.rows.is_empty());
    }
    sections
        .retain(|s| !(s.paragraphs.is_empty() && s.tables.is_empty() && s.plots.is_empty() && s.commands.is_empty()));
    Page {
        title: text::visible(&names.join(", ")),
        questions: study
            .experiments
            .iter()
            .filter(|experiment| !experiment.question.trim().is_empty())
            .map(|experiment| text::visible(experiment.question.trim()))
            .collect(),
        answer: answer(study, analysis).to_vec(),
        notes: notes(study, analysis),
        sections,
    }
}

/// The comparison for a terminal: the answer, an aligned table, what is missing.
pub fn summary(study: &Study, analysis: &Analysis<'_>) -> String {
    let mut out = format!("{}\n\n", answer(study, analysis).join(" "));
    for table in comparison(study, analysis, &Plots::default()).tables {
        out.push_str(&text::aligned(&table.header, &table.rows, &table.right));
    }
    for table in front(study, analysis, &Plots::default()).tables {
        out.push_str(&format!("\n{}\n\n", table.title));
        out.push_str(&text::aligned(&table.header, &table.rows, &table.right));
    }
    for note in notes(study, analysis) {
        out.push_str(&format!("\n{note}\n"));
    }
    out
}

fn section(id: &str, title: &str) -> Section {
    Section { id: id.to_owned(), title: title.to_owned(), ..Section::default() }
}

fn pictures(plots: &[Plot]) -> Vec<Picture> {
    plots
        .iter()
        .map(|plot| Picture {
            name: plot.name.clone(),
            title: plot.title.clone(),
            caption: plot.caption.clone(),
            svg: plot.svg.clone(),
        })
        .collect()
}

/// A number with a true minus sign.
fn signed(value: f64) -> String {
    significant(value, 3).replacen('-', "−", 1)
}

fn words(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

/// A mean with its interval where there is one.
fn plus_minus(estimate: Option<Estimate>, write: impl Fn(f64) -> String) -> String {
    match estimate {
        None => "–".to_owned(),
        Some(Estimate { mean, half_width: Some(half), .. }) => format!("{} ± {}", write(mean), write(half)),
        Some(Estimate { mean, .. }) => write(mean),
    }
}

fn mean_of(configuration: &Configuration<'_>, of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    configuration.estimate(of).map(|estimate| estimate.mean)
}

/// The configurations at the front of several objectives.
fn front(study: &Study, analysis: &Analysis<'_>, plots: &Plots) -> Section {
    let Some(front) = Front::of(study, analysis) else { return Section::default() };
    let rows: Vec<Vec<String>> = front
        .members
        .iter()
        .take(MOST_ROWS)
        .enumerate()
        .map(|(number, place)| {
            let (configuration, values) = &front.all[*place];
            let settings = if configuration.settings.is_empty() { "–" } else { &configuration.settings };
            let own = [(number + 1).to_string(), configuration.network.clone(), settings.to_owned()];
            let measured = front.measures.iter().zip(values).map(|(measure, value)| (measure.write)(*value));
            own.into_iter().chain([configuration.done.len().to_string()]).chain(measured).collect()
        })
        .collect();
    let header: Vec<String> = words(&["", "network", "settings", "n"])
        .into_iter()
        .chain(front.measures.iter().map(|m| m.title.to_owned()))
        .collect();
    let (members, all) = (front.members.len(), front.all.len());
    let shown = if rows.len() < members { format!(" {} of them are shown.", rows.len()) } else { String::new() };
    let verb = if members == 1 { "is" } else { "are" };
    let table = Table {
        title: format!("At the front {verb} {members} of {all} configurations: no other is better in all objectives"),
        right: (0..header.len()).map(|column| column == 0 || column > 2).collect(),
        header,
        rows,
        note: format!("Means over seeds, of the validation part; the test part has no say.{shown}"),
    };
    Section { tables: vec![table], plots: pictures(&plots.front), ..section("front", "Several objectives") }
}

fn comparison(study: &Study, analysis: &Analysis<'_>, plots: &Plots) -> Section {
    let chosen: Vec<&Configuration<'_>> = analysis.chosen().collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, of: &dyn Fn(&Configuration<'_>) -> String| {
        let values: Vec<String> = chosen.iter().map(|configuration| of(configuration)).collect();
        // A measure that nobody has is no row.
        if values.iter().any(|value| value != "–") {
            rows.push([vec![name.to_owned()], values].concat());
        }
    };
    let dash = || "–".to_owned();
    row("configuration", &|c| if c.settings.is_empty() { dash() } else { c.settings.clone() });
    row("seeds (n)", &|c| c.done.len().to_string());
    row("parameters", &|c| c.any().and_then(|run| run.parameters).map_or_else(dash, grouped));
    row("MACs per image, forward", &|c| c.any().and_then(|run| run.macs_per_image).map_or_else(dash, grouped));
    row("test accuracy, mean ± 95 % interval", &|c| accuracy(c.test));
    row("test top-5 accuracy", &|c| mean_of(c, |run| run.test?.top5).map_or_else(dash, percent));
    row("test loss (nats)", &|c| plus_minus(c.estimate(|run| Some(run.test?.loss)), |loss| significant(loss, 3)));
    row("calibration error (ECE) on test", &|c| {
        examined(study, c).and_then(|(_, examination)| expected_error(examination)).map_or_else(dash, percent)
    });
    row("validation accuracy", &|c| accuracy(c.validation));
    row("generalization gap, training − test (points)", &|c| mean_of(c, Run::test_gap).map_or_else(dash, points));
    if let Some(target) = analysis.target {
        row(&format!("epochs to {} % validation accuracy", significant(100.0 * target, 4)), &|c| {
            mean_of(c, |run| run.epochs_to(target).map(f64::from)).map_or_else(dash, |epochs| significant(epochs, 3))
        });
    }
    row("training time of one run", &|c| mean_of(c, Run::train_seconds).map_or_else(dash, seconds));
    row("images/s, training", &|c| mean_of(c, Run::images_per_second).map_or_else(dash, measure));
    row("compute of one training (GFLOP)", &|c| {
        mean_of(c, Run::train_flop).map_or_else(dash, |flop| measure(flop / 1e9))
    });
    row("memory of one training step (MiB)", &|c| {
        mean_of(c, |run| Some(run.step_memory_bytes? as f64)).map_or_else(dash, |b| measure(b / 1_048_576.0))
    });
    row("largest memory of the process (MiB)", &|c| {
        mean_of(c, |run| Some(run.peak_memory_bytes? as f64)).map_or_else(dash, |b| measure(b / 1_048_576.0))
    });
    row("test accuracy per GFLOP of a forward pass (points)", &|c| {
        let flop = c.any().and_then(|run| run.macs_per_image).filter(|macs| *macs > 0).map(|macs| 2e-9 * macs as f64);
        c.test.zip(flop).map_or_else(dash, |(test, gflop)| measure(100.0 * test.mean / gflop))
    });
    row("test accuracy per second of training (points)", &|c| {
        let time = mean_of(c, Run::train_seconds).filter(|time| *time > 0.0);
        c.test.zip(time).map_or_else(dash, |(test, time)| measure(100.0 * test.mean / time))
    });
    let mut header = vec![String::new()];
    header.extend(chosen.iter().map(|configuration| configuration.network.clone()));
    let right = std::iter::once(false).chain(chosen.iter().map(|_| true)).collect();
    Section {
        tables: vec![Table { header, rows, right, ..Table::default() }],
        plots: pictures(&plots.cost),
        ..section("comparison", "Comparison")
    }
}

fn expected_error(examination: &Examination) -> Option<f64> {
    let right: Vec<bool> = examination.predicted.iter().zip(&examination.actual).map(|(said, is)| said == is).collect();
    calibration_error(&reliability(&examination.confidence, &right))
}

fn tests(analysis: &Analysis<'_>) -> Section {
    let mut section = section("tests", "Is it real?");
    if !analysis.comparisons.is_empty() {
        section.tables.push(between_networks(analysis));
    }
    section
}

/// The chosen configuration of each network against its others.
fn rivals(analysis: &Analysis<'_>) -> Vec<Table> {
    let mut tables = Vec::new();
    for chosen in analysis.chosen() {
        let rivals: Vec<Vec<String>> = analysis
            .selections
            .iter()
            .filter(|selection| std::ptr::eq(&analysis.configurations[selection.chosen], chosen))
            .take(MOST_RIVALS)
            .map(|selection| {
                let other = &analysis.configurations[selection.other];
                let mut row = vec![other.settings.clone()];
                row.extend(match (selection.paired, selection.adjusted_p) {
                    (Some(test), Some(p)) => vec![
                        test.n.to_string(),
                        points(test.mean_difference),
                        format!("{} to {}", points(test.interval.0), points(test.interval.1)),
                        p_value(p),
                        signed(test.cohens_d),
                    ],
                    _ => words(&["–", "–", "–", "–", "–"]),
                });
                row
            })
            .collect();
        if !rivals.is_empty() {
            tables.push(Table {
                title: format!(
                    "{}: {} against its other configurations, on validation",
                    chosen.network, chosen.settings
                ),
                header: words(&[
                    "other configuration",
                    "n",
                    "difference (points)",
                    "95 % interval",
                    "p (Holm)",
                    "Cohen's d",
                ]),
                rows: rivals,
                right: vec![false, true, true, true, true, true],
                note:
                    "Paired t-tests across the shared seeds; the next best come first. A dash: fewer than two shared \
                       seeds, or no spread."
                        .to_owned(),
            });
        }
    }
    tables
}

fn between_networks(analysis: &Analysis<'_>) -> Table {
    let mut rows = Vec::new();
    for comparison in &analysis.comparisons {
        rows.extend(test_rows(analysis, comparison));
    }
    Table {
        title: "Between networks, on test".to_owned(),
        header: words(&["pair", "test", "n", "difference (points)", "95 % interval", "p", "p (Holm)", "effect"]),
        rows,
        right: vec![false, false, true, true, true, true, true, false],
        note:
            "Seeds are paired: both networks see the same batches under the same seed. McNemar counts the images that \
               only one of the two gets right, for each seed."
                .to_owned(),
    }
}

fn test_rows(analysis: &Analysis<'_>, comparison: &Comparison) -> Vec<Vec<String>> {
    let (a, b) = (&analysis.configurations[comparison.first], &analysis.configurations[comparison.second]);
    let pair = format!("{} − {}", a.network, b.network);
    let adjusted = comparison.adjusted_p.map_or_else(|| "–".to_owned(), p_value);
    let interval = |(low, high): (f64, f64)| format!("{} to {}", points(low), points(high));
    let mut rows = Vec::new();
    let mut row = |cells: [String; 7]| rows.push([vec![pair.clone()], cells.to_vec()].concat());
    if let Some(test) = comparison.paired {
        row([
            "paired t".to_owned(),
            test.n.to_string(),
            points(test.mean_difference),
            interval(test.interval),
            p_value(test.p),
            adjusted.clone(),
            format!("Cohen's d {}", signed(test.cohens_d)),
        ]);
    }
    if let Some(test) = comparison.welch {
        row([
            "Welch's t (unpaired)".to_owned(),
            format!("{}, {}", a.done.len(), b.done.len()),
            points(test.mean_difference),
            interval(test.interval),
            p_value(test.p),
            adjusted,
            "–".to_owned(),
        ]);
    }
    let dash = || "–".to_owned();
    if let Some(test) = comparison.wilcoxon {
        row([
            "Wilcoxon signed rank".to_owned(),
            test.n.to_string(),
            dash(),
            dash(),
            p_value(test.p),
            dash(),
            format!("W {}", significant(test.statistic, 4)),
        ]);
    }
    for (seed, test, p) in &comparison.mcnemar {
        row([
            format!("McNemar, seed {seed}{}", if test.exact { " (exact)" } else { "" }),
            "1".to_owned(),
            dash(),
            dash(),
            p_value(test.p),
            p_value(*p),
            format!("only one right: {} / {}", grouped(test.only_first), grouped(test.only_second)),
        ]);
    }
    if rows.is_empty() {
        let difference = comparison.difference.map_or_else(dash, points);
        let why = if comparison.same_data { "none possible" } else { "none: different data" };
        let n = comparison.shared_seeds.to_string();
        rows.push([vec![pair], vec![why.to_owned(), n, difference, dash(), dash(), dash(), dash()]].concat());
    }
    rows
}

fn importance(analysis: &Analysis<'_>) -> Vec<Table> {
    if analysis.importance.is_empty() {
        return Vec::new();
    }
    let share = |share: Option<f64>| match share {
        None => "–".to_owned(),
        // By chance a key may tell the best apart better than all keys do.
        Some(share) if share > 1.0 => "> 100 %".to_owned(),
        Some(share) => format!("{:.0} %", 100.0 * share),
    };
    let mut objectives: Vec<&str> = analysis.importance.iter().map(|importance| importance.objective.short).collect();
    objectives.sort_unstable();
    objectives.dedup();
    let several = objectives.len() > 1;
    let mut rows = Vec::new();
    let mut seeds = Vec::new();
    let first = |network: &str, objective: &str| match several {
        true => vec![network.to_owned(), objective.to_owned()],
        false => vec![network.to_owned()],
    };
    for network in analysis.networks() {
        for sources in analysis.sources.iter().filter(|sources| sources.network == network) {
            let objective = sources.objective.short;
            let of =
                |importance: &&Importance| importance.network == network && importance.objective.short == objective;
            for importance in analysis.importance.iter().filter(of) {
                let own = [
                    text::visible(&importance.key),
                    importance.values.to_string(),
                    share(importance.shares.variance),
                    share(importance.shares.variance_by_chance),
                    share(importance.shares.best),
                    share(importance.shares.best_by_chance),
                ];
                rows.push([first(network, objective), own.to_vec()].concat());
            }
            if sources.together.is_some() {
                let own = ["keys together (interactions)", "", &share(sources.together), "", "", ""];
                rows.push([first(network, objective), own.map(str::to_owned).to_vec()].concat());
            }
            if sources.seeds.is_some() {
                seeds.push(format!("{} for {network} ({objective})", share(sources.seeds)));
            }
        }
    }
    let mut note = format!(
        "Variance explained: the share of the variance, over the whole range of all keys, that each key explains by itself (functional \
         analysis of variance over a random forest, Hutter et al. 2014; a range that was searched by its logarithm counts by it), from \
         all finished runs{}. Beside it what the key would reach in 5 of 100 cases if its values were shuffled: what is not above that \
         may be chance.",
        if several { ", for each objective" } else { "; of validation accuracy" }
    );
    if analysis.importance.iter().any(|importance| importance.shares.best.is_some()) {
        note.push_str(
            " Among the best: which keys tell the best tenth of the runs from the rest, as shares of all keys (PED-ANOVA, Watanabe et al. \
             2023); this is what Optuna shows of the exported study.",
        );
    } else {
        note.push_str(" There is no best tenth to speak of: that takes more than ten runs that differ.");
    }
    if analysis.importance.iter().any(|importance| importance.shares.variance.is_none()) {
        note.push_str(" A key that exists only beside certain values of others is no part of the forest (–).");
    }
    if !seeds.is_empty() {
        note.push_str(&format!(
            " Of the variance between runs, so much is between seeds of the same configuration: {}.",
            seeds.join(", ")
        ));
    }
    let title = "Which setting matters".to_owned();
    let mut header = vec!["network", "key", "values", "variance explained", "by chance", "among the best", "by chance"];
    let mut right = vec![false, false, true, true, true, true, true];
    if several {
        header.insert(1, "objective");
        right.insert(1, false);
    }
    vec![Table { title, header: words(&header), rows, right, note }]
}

fn configurations(analysis: &Analysis<'_>, plots: &Plots) -> Section {
    let networks = analysis.networks();
    let each = (MOST_ROWS / networks.len().max(1)).max(3);
    let mut rows = Vec::new();
    for network in &networks {
        for (rank, c) in analysis.of_network(network).take(each).enumerate() {
            let missing = if c.unfinished > 0 { format!(" (+ {} unfinished)", c.unfinished) } else { String::new() };
            rows.push(vec![
                c.network.clone(),
                (rank + 1).to_string(),
                if c.settings.is_empty() { "–".to_owned() } else { c.settings.clone() },
                format!("{}{missing}", c.done.len()),
                accuracy(c.validation).replace(" (n = 1, no interval)", ""),
                mean_of(c, |run| run.tested_epoch()?.validation_loss)
                    .map_or_else(|| "–".to_owned(), |l| significant(l, 3)),
                mean_of(c, Run::generalization_gap).map_or_else(|| "–".to_owned(), points),
                mean_of(c, Run::train_seconds).map_or_else(|| "–".to_owned(), seconds),
            ]);
        }
    }
    let shown = rows.len();
    let all = analysis.configurations.len();
    let mut note =
        "Best on validation first; the test part has no say here. ± is the 95 % interval over seeds.".to_owned();
    if shown < all {
        note.push_str(&format!(
            " {shown} of {all} configurations are shown; all of them are in frames/configurations.csv."
        ));
    }
    let all = Table {
        header: words(&[
            "network",
            "rank",
            "settings",
            "n",
            "validation accuracy",
            "validation loss",
            "gap (points)",
            "time",
        ]),
        rows,
        right: vec![false, true, false, true, true, true, true, true],
        note,
        ..Table::default()
    };
    Section {
        tables: [vec![all], rivals(analysis)].concat(),
        plots: pictures(&plots.gaps),
        ..section("configurations", "Configurations")
    }
}

fn confused_table(study: &Study, analysis: &Analysis<'_>) -> Vec<Table> {
    let mut rows = Vec::new();
    for chosen in analysis.chosen() {
        let classes = class_names(study, chosen);
        for pair in confused(study, chosen, MOST_PAIRS) {
            rows.push(vec![
                chosen.network.clone(),
                class_name(classes, pair.actual),
                class_name(classes, pair.predicted),
                grouped(pair.images),
                percent(pair.images as f64 / pair.of.max(1) as f64),
            ]);
        }
    }
    if rows.is_empty() {
        return Vec::new();
    }
    vec![Table {
        title: "Most confused pairs".to_owned(),
        header: words(&["network", "true class", "taken for", "images", "of that class"]),
        rows,
        right: vec![false, false, false, true, true],
        note: "Over all seeds of the chosen configuration.".to_owned(),
    }]
}

fn failures(study: &Study) -> Section {
    let mut section = section("failures", "Unfinished, pruned and failed runs");
    let unfinished: Vec<&Run> = study.runs.iter().filter(|run| run.status != Status::Done).collect();
    if unfinished.is_empty() && study.waiting == 0 {
        return section;
    }
    section.paragraphs.push(format!("{}.", states(study)));
    let rows: Vec<Vec<String>> = unfinished
        .iter()
        .take(MOST_ROWS)
        .map(|run| {
            vec![
                run.id.to_string(),
                text::shorten(&text::visible(&run.label), 80),
                run.seed.to_string(),
                run.status.name().to_owned(),
                run.epochs.len().to_string(),
                text::shorten(&text::visible(run.error.as_deref().unwrap_or("–")), 300),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let more = unfinished.len().saturating_sub(rows.len());
        section.tables.push(Table {
            header: words(&["run", "trial", "seed", "state", "epochs", "why"]),
            rows,
            right: vec![true, false, true, false, true, false],
            note: if more > 0 { format!("… and {more} more, in frames/runs.csv.") } else { String::new() },
            ..Table::default()
        });
    }
    section
}

fn provenance(study: &Study, analysis: &Analysis<'_>) -> Section {
    let mut groups: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for run in study.runs.iter().filter(|run| run.status == Status::Done) {
        let made = &run.provenance;
        let short = |hash: &str| text::shorten(&text::visible(hash), 17);
        let or_dash = |word: &str| if word.is_empty() { "–".to_owned() } else { text::visible(word) };
        let key = vec![
            or_dash(&short(&made.commit)),
            or_dash(&made.version),
            or_dash(&made.device),
            made.threads.map_or_else(|| "–".to_owned(), |threads| threads.to_string()),
            or_dash(&made.cpu),
            or_dash(&short(&made.data_fingerprint)),
        ];
        *groups.entry(key).or_default() += 1;
    }
    let rows = groups.into_iter().map(|(key, runs)| [key, vec![runs.to_string()]].concat()).collect();
    let mut chosen_rows = Vec::new();
    for chosen in analysis.chosen() {
        let seeds: Vec<String> = chosen.done.iter().map(|run| run.seed.to_string()).collect();
        let runs: Vec<String> = chosen.done.iter().map(|run| run.id.to_string()).collect();
        let images = chosen.done.iter().filter_map(|run| run.test).map(|test| test.images).max();
        chosen_rows.push(vec![
            chosen.network.clone(),
            text::shorten(&text::visible(chosen.key), 17),
            seeds.join(", "),
            runs.join(", "),
            images.filter(|images| *images > 0).map_or_else(|| "–".to_owned(), grouped),
        ]);
    }
    let mut commands: Vec<String> = Vec::new();
    for experiment in &study.experiments {
        if !experiment.command.trim().is_empty() {
            commands.push(text::visible(experiment.command.trim()));
        }
    }
    let names: Vec<String> = study.experiments.iter().map(|experiment| text::shell_word(&experiment.name)).collect();
    commands.push(format!("pipeline report {}", names.join(" ")));
    for chosen in analysis.chosen() {
        if let Some(command) = chosen.any().map(|run| run.provenance.command.trim()).filter(|c| !c.is_empty()) {
            commands.push(text::visible(command));
        }
    }
    let mut seen = std::collections::HashSet::new();
    commands.retain(|command| seen.insert(command.clone()));
    let keys: Vec<String> = analysis
        .swept()
        .iter()
        .map(|(key, values)| format!("{} ({})", naming::axis(key), count(*values, "value")))
        .collect();
    let mut paragraphs = Vec::new();
    if !keys.is_empty() {
        paragraphs.push(format!("Swept: {}.", keys.join(", ")));
    }
    let numbers = "Every number above is a mean over the finished runs of a configuration, one per seed; the rows behind it are in \
                   frames/*.csv and frames/*.parquet. These commands make them again:";
    let nothing = "There are no numbers yet. These commands make them:";
    paragraphs.push(if analysis.configurations.is_empty() { nothing } else { numbers }.to_owned());
    let files =
        FRAMES.iter().map(|(file, rows)| vec![format!("frames/{file}.csv, .parquet"), (*rows).to_owned()]).collect();
    Section {
        paragraphs,
        tables: vec![
            Table {
                title: "Where the runs were made".to_owned(),
                header: words(&["commit", "version", "device", "threads", "processor", "data fingerprint", "runs"]),
                rows,
                right: vec![false, false, false, true, false, false, true],
                ..Table::default()
            },
            Table {
                title: "Runs that the comparison rests on".to_owned(),
                header: words(&["network", "configuration", "seeds", "runs", "test images"]),
                rows: chosen_rows,
                right: vec![false, false, false, false, true],
                ..Table::default()
            },
            Table {
                title: "The numbers behind the tables and plots".to_owned(),
                header: words(&["file", "a row is"]),
                rows: files,
                right: vec![false, false],
                ..Table::default()
            },
        ],
        commands,
        ..section("provenance", "Provenance")
    }
}
