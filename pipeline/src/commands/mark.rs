//! `pipeline tag`, `note`, `archive` and `unarchive`: what people add to results.

use std::path::Path;

use store::{Store, StoreError};

use crate::{cli::Global, exit::Exit, output, subject};

/// The database, which must be there: marking makes none.
pub fn open(db: &Path) -> anyhow::Result<Store> {
    match Store::open_read_only(db) {
        // It is brought up to date by being opened for writing.
        Ok(_) | Err(StoreError::Older { .. }) => Ok(Store::open(db)?),
        Err(error) => Err(error.into()),
    }
}

/// Adds or removes tags.
pub fn tag(target: &str, tags: &[String], remove: bool, global: &Global) -> anyhow::Result<Exit> {
    let store = open(&global.db)?;
    let found = subject::find(&store, target)?;
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let changed = if remove { store.untag(found, &tags)? } else { store.tag(found, &tags)? };
    let what = if remove { "removed" } else { "added" };
    output::line(&format!("{}: {changed} of {} tags {what}", subject::told(target, found), tags.len()))?;
    Ok(Exit::Fine)
}

/// Prints, replaces or removes a note.
pub fn note(target: &str, text: Option<&str>, remove: bool, global: &Global) -> anyhow::Result<Exit> {
    if text.is_none() && !remove {
        let store = Store::open_read_only(&global.db)?;
        let found = subject::find(&store, target)?;
        // Line by line: a note may have several, and each is shown as text.
        for line in store.note(found)?.unwrap_or_default().lines() {
            output::line(&report::visible(line))?;
        }
        return Ok(Exit::Fine);
    }
    let store = open(&global.db)?;
    let found = subject::find(&store, target)?;
    let text = text.unwrap_or_default().trim();
    anyhow::ensure!(remove || !text.is_empty(), "the note is empty; --remove takes one away");
    store.set_note(found, text)?;
    output::line(&format!("{}: note {}", subject::told(target, found), if remove { "removed" } else { "kept" }))?;
    Ok(Exit::Fine)
}

/// Puts experiments and runs away, or takes them out again.
pub fn archive(targets: &[String], away: bool, global: &Global) -> anyhow::Result<Exit> {
    let store = open(&global.db)?;
    let found = subject::find_all(&store, targets)?;
    for (target, found) in targets.iter().zip(found) {
        let changed = store.archive(found, away)?;
        let state = match (away, changed) {
            (true, true) => "archived",
            (true, false) => "was archived already",
            (false, true) => "taken out of the archive",
            (false, false) => "was not archived",
        };
        output::line(&format!("{}: {state}", subject::told(target, found)))?;
    }
    Ok(Exit::Fine)
}
