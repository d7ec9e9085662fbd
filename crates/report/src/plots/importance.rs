//! Bars of how much each swept key matters, beside what chance alone would give.

use super::axis::{Axis, percent_tick};
use super::canvas::{Align, INK, Key, NORMAL, PALETTE, Plot, SMALL, draw, fit, text_width};
use super::{Scene, WIDTH};
use crate::ReportError;
use crate::front::Measure;
use crate::importance::Importance;
use crate::naming;

/// At most so many keys.
const MOST_KEYS: usize = 16;

/// For each objective: bars for each network and key, the share of the variance, and that of being among the best where there are
/// enough runs.
pub fn importance(scene: &Scene<'_>) -> Result<Vec<Plot>, ReportError> {
    // One key alone is in no order with others.
    if scene.analysis.swept().len() < 2 {
        return Ok(Vec::new());
    }
    let mut objectives: Vec<&'static Measure> = Vec::new();
    for importance in &scene.analysis.importance {
        if !objectives.iter().any(|known| known.name() == importance.objective.name()) {
            objectives.push(importance.objective);
        }
    }
    let several = objectives.len() > 1;
    objectives.into_iter().map(|objective| of_objective(scene, objective, several)).collect()
}

fn of_objective(scene: &Scene<'_>, objective: &Measure, several: bool) -> Result<Plot, ReportError> {
    let networks = scene.analysis.networks();
    let each = (MOST_KEYS / networks.len().max(1)).max(1);
    let own = |network: &str, importance: &Importance| {
        importance.network == network && importance.objective.name() == objective.name()
    };
    let bars: Vec<_> = networks
        .iter()
        .take(PALETTE.len())
        .flat_map(|network| scene.analysis.importance.iter().filter(move |i| own(network, i)).take(each))
        .map(|importance| (format!("{}, {}", importance.network, naming::key(&importance.key)), importance.shares))
        .collect();
    let what = objective.short;
    let (name, title) = match several {
        true => (format!("importance-{}", objective.name()), format!("Which settings matter to {what}")),
        false => ("importance".to_owned(), "Which settings matter".to_owned()),
    };
    let with_best = bars.iter().any(|(_, shares)| shares.best.is_some());
    let mut legend = vec![
        (format!("share of the variance of {what}"), Key::Line { color: PALETTE[2], width: 9.0, opacity: 0.95 }),
        ("what chance may give".to_owned(), Key::Line { color: INK, width: 2.0, opacity: 0.9 }),
    ];
    if with_best {
        let best = Key::Line { color: PALETTE[4], width: 9.0, opacity: 0.95 };
        legend.insert(1, ("share of what tells the best tenth apart (PED-ANOVA)".to_owned(), best));
    }
    let mut caption = format!(
        "How much of the differences in {what} over the whole range of all keys each key explains by itself, from all finished runs \
         (functional analysis of variance over a random forest, Hutter et al. 2014). The stroke is what the key would reach in 5 of \
         100 cases by chance: a bar that ends left of it says nothing."
    );
    if with_best {
        caption.push_str(
            " PED-ANOVA (Watanabe et al. 2023) asks instead which keys tell the best tenth of the runs from the rest, as shares of all keys.",
        );
    } else {
        caption.push_str(" There are too few runs for PED-ANOVA, which looks at the best tenth only.");
    }
    let labels_wide = bars.iter().map(|(label, _)| text_width(label, SMALL)).fold(60.0, f64::max).min(230.0);
    let row = if with_best { 36.0 } else { 24.0 };
    let legend_height = if with_best { 60.0 } else { 40.0 };
    let height = 44.0 + legend_height + bars.len() as f64 * row + 54.0;
    let x = Axis::spanned("share explained", 0.0, 1.0, 5.0, percent_tick);
    draw(&name, &title, &caption, (WIDTH, height), |canvas| {
        let used = canvas.legend(16.0, 48.0, WIDTH - 32.0, &legend);
        let left = 16.0 + labels_wide + 10.0;
        let (width, top, bottom) = (WIDTH - 32.0 - left - 20.0, 48.0 + used, height - 54.0);
        let row = (bottom - top) / bars.len() as f64;
        let place = |share: f64| left + x.place(share) * width;
        for (value, label) in x.ticks() {
            canvas.path(&[(place(*value), top), (place(*value), bottom)], INK, 0.75, 0.18);
            canvas.text(place(*value), bottom + 14.0, label, SMALL, Align::Middle);
        }
        for (index, (label, shares)) in bars.iter().enumerate() {
            let middle = top + (index as f64 + 0.5) * row;
            canvas.text(left - 8.0, middle, &fit(label, SMALL, labels_wide), SMALL, Align::End);
            let mut bar = |y: f64, share: f64, chance: Option<f64>, color| {
                canvas.rectangle((place(0.0), y - 5.0), (place(share), y + 5.0), color, 0.95);
                if let Some(chance) = chance.map(|chance| chance.min(1.0)) {
                    canvas.path(&[(place(chance), y - 7.0), (place(chance), y + 7.0)], INK, 2.0, 0.9);
                }
            };
            let apart = if shares.best.is_some() { 7.0 } else { 0.0 };
            if let Some(variance) = shares.variance {
                bar(middle - apart, variance, shares.variance_by_chance, PALETTE[2]);
            }
            if let Some(best) = shares.best {
                bar(middle + apart, best, shares.best_by_chance, PALETTE[4]);
            }
        }
        canvas.path(&[(place(0.0), top), (place(0.0), bottom)], INK, 1.0, 0.7);
        canvas.text(left + width / 2.0, bottom + 36.0, x.title(), NORMAL, Align::Middle);
    })
}
