//! `pipeline keys`: what experiment files can say.

use crate::{
    cli::Rows,
    exit::Exit,
    output::{explanations, text},
};

/// Lists the keys whose path, or else whose meaning, holds a word; all without one.
pub fn run(word: Option<&str>, to: &Rows) -> anyhow::Result<Exit> {
    let word = word.unwrap_or_default().to_lowercase();
    let having = |of: fn(&plan::Key) -> &str| -> Vec<&plan::Key> {
        plan::keys().iter().filter(|key| of(key).to_lowercase().contains(&word)).collect()
    };
    let mut found = having(|key| key.path);
    if found.is_empty() {
        found = having(|key| key.meaning);
    }
    anyhow::ensure!(!found.is_empty(), "no key of experiment files has to do with {word:?}; `pipeline keys` lists all");
    let table: Vec<_> =
        found.iter().map(|key| vec![text(key.path), text(key.values), text(key.default), text(key.meaning)]).collect();
    explanations(&["key", "takes", "default", "meaning"], &[40, 30, 20, 60], &table, to)?;
    Ok(Exit::Fine)
}
