//! "did you mean".

use std::{path::PathBuf, sync::LazyLock};

use crate::{Settings, settings::ResizedCrop, synonyms};

/// Key paths of all settings, such as `train.weight_decay`.
static LEAVES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut leaves = Vec::new();
    // What is left out of the canonical form where it is not set is a key all the same.
    let mut settings = Settings::default();
    settings.augment.resized_crop = Some(ResizedCrop::default());
    settings.train.average_decay = Some(0.0);
    settings.train.initial_weights = Some(PathBuf::new());
    settings.train.initial_weights_skip = vec![String::new()];
    settings.train.freeze = vec![String::new()];
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(settings) {
        for (section, keys) in sections {
            if let serde_json::Value::Object(keys) = keys {
                leaves.extend(keys.into_iter().map(|(key, _)| format!("{section}.{key}")));
            }
        }
    }
    leaves.sort_unstable();
    leaves
});

/// Whether this is the key path of a setting (not of a section).
pub(crate) fn is_setting(path: &str) -> bool {
    LEAVES.iter().any(|leaf| leaf == path)
}

/// Message for a key that does not exist; `path` is the whole key path, `siblings` the keys that would be valid in its place.
pub(crate) fn unknown_key(path: &[String], siblings: &[&str]) -> String {
    let name = path.last().map_or("", String::as_str);
    let parent = &path[..path.len().saturating_sub(1)];
    let section = parent.join(".");
    let in_section = |leaf: &&'static String| leaf.rsplit_once('.').is_some_and(|(other, _)| other == section);
    let leaf_name = |leaf: &'static String| leaf.rsplit('.').next().unwrap_or(leaf);
    // Sweeps write whole paths, where the section's keys are the siblings.
    let own: Vec<&str> = match siblings {
        [] => LEAVES.iter().filter(in_section).map(leaf_name).collect(),
        _ => siblings.to_vec(),
    };
    let here = |sibling: &str| match section.as_str() {
        "" => sibling.to_owned(),
        section => format!("{section}.{sibling}"),
    };
    // What others call it; a word of a longer name, as `rotation` of `rotation_degrees`; a typing error.
    let synonym = synonyms::key(parent, name).filter(|path| {
        // What a sweep varies is a setting.
        !siblings.is_empty() || is_setting(path)
    });
    if let Some(meant) = synonym {
        return did_you_mean(&meant);
    }
    if let Some(sibling) = longer(name, &own).or_else(|| nearest(name, own.iter().copied())) {
        return did_you_mean(&here(sibling));
    }
    // Inside a value, such as a schedule's table, other sections are far away.
    if path.len() > 2 && !siblings.is_empty() {
        return format!("unknown key; valid here: {}", siblings.join(", "));
    }
    // The same name, or nearly, in another section: `epochs` for `train.epochs`.
    let elsewhere = LEAVES.iter().find(|leaf| leaf_name(leaf) == name).or_else(|| {
        let meant = nearest(name, LEAVES.iter().map(leaf_name))?;
        LEAVES.iter().find(|leaf| leaf_name(leaf) == meant)
    });
    match elsewhere {
        Some(meant) => did_you_mean(meant),
        None if siblings.is_empty() => "unknown key".to_owned(),
        None => format!("unknown key; valid here: {}", siblings.join(", ")),
    }
}

fn did_you_mean(path: &str) -> String {
    format!("unknown key, did you mean `{path}`?")
}

/// Message for a value that is not among the names a key takes.
pub(crate) fn unknown_name(name: &str, names: &[&str]) -> String {
    match synonyms::value(name, names).or_else(|| nearest(name, names.iter().copied())) {
        Some(meant) => format!("unknown value `{name}`, did you mean `{meant}`? (one of {})", names.join(", ")),
        None => format!("must be one of {}, got `{name}`", names.join(", ")),
    }
}

/// The only candidate of several words that begins with the name.
fn longer<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let mut longer = candidates
        .iter()
        .filter(|candidate| candidate.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')) && !name.is_empty());
    longer.next().filter(|_| longer.next().is_none()).copied()
}

/// The candidate within a third of the name's length in edits, if any; the first of equals.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.chars().count().div_ceil(3);
    candidates
        .map(|candidate| (distance(&name.to_lowercase(), candidate), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Damerau–Levenshtein distance (optimal string alignment): insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, edits) in rows[0].iter_mut().enumerate() {
        *edits = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, expected) in
            [("", "abc", 3), ("epoch", "epochs", 1), ("wieght", "weight", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
