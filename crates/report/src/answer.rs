//! The answer in two sentences, and what the reader must know beside it.

use std::collections::BTreeSet;

use crate::analysis::{Analysis, Comparison, Configuration, Verdict};
use crate::statistics::Estimate;
use crate::study::{Status, Study};
use crate::text::{count, p_equation, percent, points, significant};

/// An accuracy with its 95 % interval: `97.31 ± 0.21 %`; one value says that it is one.
pub fn accuracy(estimate: Option<Estimate>) -> String {
    match estimate {
        None => "–".to_owned(),
        Some(Estimate { mean, half_width: Some(half), .. }) => format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * half),
        Some(Estimate { mean, .. }) => format!("{} (n = 1, no interval)", percent(mean)),
    }
}

/// What the experiments say, in two sentences.
pub fn answer(study: &Study, analysis: &Analysis<'_>) -> [String; 2] {
    let chosen: Vec<&Configuration<'_>> = analysis.chosen().collect();
    let first = match chosen[..] {
        [] => return nothing(study),
        [only] => alone(analysis, only),
        _ => analysis.comparisons.first().map_or_else(String::new, |comparison| versus(analysis, comparison)),
    };
    let settings: Vec<String> = chosen
        .iter()
        .map(|configuration| {
            let alternatives = analysis.of_network(&configuration.network).count();
            let settings = if configuration.settings.is_empty() { "its only setting" } else { &configuration.settings };
            format!("{} with {settings} (of {})", configuration.network, count(alternatives, "configuration"))
        })
        .collect();
    let how =
        if analysis.validated { "Chosen on validation" } else { "Without a validation part, chosen by training loss" };
    let test = if analysis.chosen().any(|configuration| configuration.test.is_some()) {
        "; the test part is quoted for these only"
    } else {
        "; the test part was not evaluated"
    };
    let cost = match chosen[..] {
        [first, second, ..] => costs(first, second).map_or_else(String::new, |cost| format!("; {cost}")),
        _ => String::new(),
    };
    [first, format!("{how}: {}{cost}{test}.", settings.join(", "))]
}

/// What the dearer of two configurations costs, as multiples of the other.
fn costs(a: &Configuration<'_>, b: &Configuration<'_>) -> Option<String> {
    let macs = |configuration: &Configuration<'_>| Some(configuration.any()?.macs_per_image? as f64);
    let (dear, cheap) = if macs(a)? >= macs(b)? { (a, b) } else { (b, a) };
    let operations = macs(dear)? / macs(cheap).filter(|macs| *macs > 0.0)?;
    let machine = |configuration: &Configuration<'_>| -> BTreeSet<(String, Option<u32>, String)> {
        let made = configuration.done.iter().map(|run| &run.provenance);
        made.map(|made| (made.device.clone(), made.threads, made.cpu.clone())).collect()
    };
    let seconds = |configuration: &Configuration<'_>| {
        Some(configuration.estimate(crate::study::Run::train_seconds)?.mean).filter(|seconds| *seconds > 0.0)
    };
    // Times of different machines say nothing about the networks.
    let comparable = machine(dear).len() == 1 && machine(dear) == machine(cheap);
    let times = |ratio: f64| match significant(ratio, 2).as_str() {
        "1" => "about".to_owned(),
        ratio => format!("{ratio} times"),
    };
    let time = seconds(dear)
        .zip(seconds(cheap))
        .filter(|_| comparable)
        .map_or_else(String::new, |(dear, cheap)| format!(" and {} the training time", times(dear / cheap)));
    let operations = times(operations);
    Some(format!("{} takes {operations} the operations per image{time} of {}", dear.network, cheap.network))
}

/// What there is to say where no run has finished.
fn nothing(study: &Study) -> [String; 2] {
    let waits = |status: Status| status != Status::Failed && status != Status::Pruned;
    let then = if study.waiting > 0 || study.runs.iter().any(|run| waits(run.status)) {
        "`pipeline sweep` goes on where it stopped; what follows is what is known so far"
    } else if study.runs.is_empty() {
        "there is nothing to compare"
    } else {
        "see below what went wrong; `pipeline sweep --retry-failed` tries again"
    };
    [format!("There is no answer yet: no run has finished ({}).", states(study)), format!("{}.", upper(then))]
}

fn upper(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn alone(analysis: &Analysis<'_>, only: &Configuration<'_>) -> String {
    let name = &only.network;
    let reached = match (only.test, only.validation) {
        (Some(test), _) => {
            format!("{name} reaches {} test accuracy over {}", accuracy(Some(test)), count(test.n, "seed"))
        }
        (None, Some(validation)) => format!(
            "{name} reaches {} validation accuracy over {}",
            accuracy(Some(validation)),
            count(validation.n, "seed")
        ),
        (None, None) => format!("{name} was trained, but neither validated nor tested"),
    };
    let runner_up = analysis.selections.first().map(|selection| {
        let other = &analysis.configurations[selection.other].settings;
        match selection.adjusted_p {
            Some(p) if p < crate::statistics::ALPHA => format!(
                ", and its best configuration is really better on validation than the next one, {other} (paired t-test, {} after Holm)",
                p_equation(p)
            ),
            Some(p) => format!(
                ", but on validation its best configuration cannot be told from the next one, {other} (paired t-test, {} after Holm)",
                p_equation(p)
            ),
            None => format!(", and there is no test of whether it is really better than the next one, {other}"),
        }
    });
    format!("{reached}{}.", runner_up.unwrap_or_default())
}

fn versus(analysis: &Analysis<'_>, comparison: &Comparison) -> String {
    let (a, b) = (&analysis.configurations[comparison.first], &analysis.configurations[comparison.second]);
    let (Some(difference), Some(left), Some(right)) = (comparison.difference, a.test, b.test) else {
        let (a_validation, b_validation) = (accuracy(a.validation), accuracy(b.validation));
        return format!(
            "There is no test result to compare {} with {} by; validation accuracy is {a_validation} and {b_validation}.",
            a.network, b.network
        );
    };
    // The better one is named first.
    let turned = difference < 0.0;
    let sign = if turned { -1.0 } else { 1.0 };
    let (better, worse, high, low) = if turned { (b, a, right, left) } else { (a, b, left, right) };
    let interval = comparison.paired.map(|t| t.interval).or(comparison.welch.map(|t| t.interval));
    let interval = interval.map_or_else(String::new, |(x, y)| {
        let (x, y) = (f64::min(sign * x, sign * y), f64::max(sign * x, sign * y));
        format!("95 % interval {} to {}; ", points(x), points(y))
    });
    let sample = match comparison.shared_seeds {
        0 => format!("{} and {} unpaired seeds", high.n, low.n),
        _ if comparison.welch.is_some() => format!("{} and {} unpaired seeds", high.n, low.n),
        _ => count(comparison.shared_seeds, "paired seed"),
    };
    let test = if comparison.welch.is_some() { "Welch's t-test" } else { "paired t-test" };
    let holm = if analysis.comparisons.len() > 1 { " after Holm" } else { "" };
    let p = comparison.adjusted_p.map_or_else(String::new, |p| format!(" ({test}, {}{holm})", p_equation(p)));
    let amount = format!(
        "{} against {} test accuracy, {} percentage points ({interval}{sample})",
        percent(high.mean),
        percent(low.mean),
        points(sign * difference)
    );
    let (better, worse) = (&better.network, &worse.network);
    if !comparison.same_data {
        return format!(
            "{better} has {amount} over {worse}, but the two were not tested on the same data, so this does not say which is better."
        );
    }
    match comparison.verdict() {
        Verdict::Real => format!("{better} is better than {worse}: {amount}, and the difference is real{p}."),
        Verdict::Inconclusive(more) => {
            let more = more.map_or_else(
                || "; no realistic number of seeds would decide a difference this small".to_owned(),
                |more| format!("; about {} would decide it", count(more, "more seed")),
            );
            format!("Inconclusive: {better} is ahead of {worse} with {amount}, but that may be chance{p}{more}.")
        }
        Verdict::TheseNetworksOnly => format!(
            "{better} is ahead of {worse}: {amount}; McNemar's test says that these trained networks really differ, but one seed cannot say whether others would."
        ),
        Verdict::Untested if difference == 0.0 => {
            format!("{better} and {worse} are equal: {amount}.")
        }
        Verdict::Untested if comparison.shared_seeds > 1 => format!(
            "{better} is ahead of {worse}: {amount}; the difference is the same for every seed, which leaves a t-test nothing to measure against."
        ),
        Verdict::Untested => format!(
            "{better} is ahead of {worse}: {amount}, but one seed (n = 1) gives no interval and no test: run at least three."
        ),
    }
}

/// What the reader must know beside the answer.
pub fn notes(study: &Study, analysis: &Analysis<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let states = states(study);
    let done = study.runs.iter().filter(|run| run.status == Status::Done).count();
    if done > 0 && (done < study.runs.len() || study.waiting > 0) {
        notes.push(format!("Not everything has finished: {states}. What follows is about finished runs only."));
    }
    let left: BTreeSet<&str> =
        study.runs.iter().filter(|run| run.status == Status::Pruned).map(|run| run.configuration.as_str()).collect();
    if !left.is_empty() {
        let epochs = study.runs.iter().filter(|run| run.status == Status::Pruned).map(|run| run.epochs.len()).sum();
        notes.push(format!(
            "{} left early, after {} in all over their seeds, because others were ahead on the validation part then. What they would have come to is not known; \
             they are no part of any mean, interval or test, and are listed at the end.",
            if left.len() == 1 { "1 configuration was".to_owned() } else { format!("{} configurations were", left.len()) },
            count(epochs, "epoch"),
        ));
    }
    if analysis.chosen().any(|configuration| configuration.done.len() == 1) {
        notes.push("n = 1 means one seed: there is no interval, and chance cannot be ruled out.".to_owned());
    }
    for chosen in analysis.chosen() {
        let most = analysis.of_network(&chosen.network).map(|c| c.done.len()).max().unwrap_or(0);
        if chosen.done.len() < most {
            notes.push(format!(
                "{}: the chosen configuration has {}, others have up to {most}.",
                chosen.network,
                count(chosen.done.len(), "finished seed")
            ));
        }
    }
    let distinct = |of: &dyn Fn(&crate::study::Run) -> String| -> BTreeSet<String> {
        analysis.chosen().flat_map(|configuration| configuration.done.iter().map(|run| of(run))).collect()
    };
    if distinct(&|run| format!("{} {:?}", run.provenance.device, run.provenance.threads)).len() > 1 {
        notes.push(
            "The compared runs used different devices or numbers of threads: their times are not comparable."
                .to_owned(),
        );
    }
    if distinct(&|run| run.provenance.commit.clone()).len() > 1 {
        notes.push("The compared runs were made by different commits of the program.".to_owned());
    }
    if distinct(&|run| run.provenance.data_fingerprint.clone()).len() > 1 {
        notes.push("The compared runs did not all see the same data.".to_owned());
    }
    if study.experiments.len() > 1 {
        notes.push(
            "Several experiments are put together here: a network's best configuration may come from any of them."
                .to_owned(),
        );
    }
    notes.extend(study.remarks.iter().cloned());
    notes
}

/// How many runs are in which state, as text.
pub fn states(study: &Study) -> String {
    let known = [Status::Done, Status::Running, Status::Queued, Status::Interrupted, Status::Pruned, Status::Failed];
    let others: BTreeSet<Status> =
        study.runs.iter().map(|run| run.status).filter(|status| !known.contains(status)).collect();
    let mut parts: Vec<String> = known
        .into_iter()
        .chain(others)
        .filter_map(|status| {
            let number = study.runs.iter().filter(|run| run.status == status).count();
            (number > 0).then(|| format!("{number} {}", status.name()))
        })
        .collect();
    if study.waiting > 0 {
        parts.push(format!("{} not started", study.waiting));
    }
    if parts.is_empty() { "no trial was planned".to_owned() } else { parts.join(", ") }
}
