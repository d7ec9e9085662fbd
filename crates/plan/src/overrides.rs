//! `key=value` from the command line, laid over the document before anything is read from it.

use crate::document::{self, Node, Place, Table, Value, dotted, quoted};

/// What is wrong with an override.
pub(crate) enum OverrideError {
    /// Not `key=value`, or the value is not TOML.
    Syntax(String),
    /// The key cannot be set or deleted.
    Key(String, String),
}

/// Sections that hold settings.
pub(crate) const SECTIONS: [&str; 4] = ["dataset", "augment", "model", "train"];

/// Applies one override. What the command line sets wins over everything: a setting's key is taken out of the variants and the sweep as
/// far as the file put it there.
pub(crate) fn apply(root: &mut Table, text: &str) -> Result<(), OverrideError> {
    if let Some(key) = text.strip_prefix('~') {
        let path = key_path(key)?;
        return match root.remove_at(&path) {
            Some(_) => Ok(()),
            None => {
                Err(OverrideError::Key(dotted(&path), "cannot be deleted, since the file does not set it".to_owned()))
            }
        };
    }
    let Some((key, typed)) = split(text) else {
        return Err(OverrideError::Syntax(format!(
            "`{text}` is not an override: write key=value, such as train.epochs=2, or ~key to delete"
        )));
    };
    let path = key_path(key)?;
    let node = value(typed)?;
    root.set(&path, node)
        .map_err(|at| OverrideError::Key(dotted(&path), format!("`{}` is not a section", dotted(&at))))?;
    if SECTIONS.contains(&path[0].as_str()) {
        let joined = path.join(".");
        withdraw_from_sweep(root, &joined);
        if let Some(Value::Table(variants)) = root.get_mut("variants").map(|node| &mut node.value) {
            for variant in &mut variants.entries {
                let Value::Table(table) = &mut variant.node.value else { continue };
                withdraw_from_sweep(table, &joined);
                if table.entry_at(&path).is_some_and(|entry| entry.place != Place::CommandLine) {
                    table.remove_at(&path);
                }
            }
        }
    }
    Ok(())
}

/// Takes a key, and what is below it, out of the grid and the lists that the file sweeps.
fn withdraw_from_sweep(table: &mut Table, key: &str) {
    let Some(Value::Table(sweep)) = table.get_mut("sweep").map(|node| &mut node.value) else { return };
    let withdraw = |axes: &mut Table| {
        axes.entries.retain(|entry| {
            let same = entry.key == key || entry.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
            !same || entry.place == Place::CommandLine
        });
        axes.entries.is_empty()
    };
    for name in ["grid", "zip", "space"] {
        let emptied = match sweep.get_mut(name).map(|node| &mut node.value) {
            Some(Value::Table(axes)) => withdraw(axes),
            Some(Value::Array(groups)) => {
                groups.retain_mut(|group| match &mut group.value {
                    Value::Table(axes) => !withdraw(axes),
                    _ => true,
                });
                groups.is_empty()
            }
            _ => false,
        };
        if emptied {
            sweep.remove(name);
            if name == "space" {
                // There is nothing left to draw.
                sweep.remove("sampler");
            }
        }
    }
}

/// Splits at the first `=` outside quotes.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some((text[..index].trim(), text[index + 1..].trim())),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

/// A key path as TOML writes it. Shells eat quotes, so what follows `sweep.grid`, `sweep.zip` or `sweep.space` is one key, quoted or not.
fn key_path(key: &str) -> Result<Vec<String>, OverrideError> {
    let mut path = Vec::new();
    let parsed = document::parse(&format!("{key} = 0")).ok();
    let mut level = parsed.as_ref().filter(|table| table.entries.len() == 1);
    while let Some(entry) = level.and_then(|table| table.entries.first()) {
        path.push(entry.key.clone());
        level = entry.node.as_table();
    }
    if path.is_empty() || key.contains('\n') {
        return Err(OverrideError::Syntax(format!("`{key}` is not a key path such as train.epochs")));
    }
    let axes = path
        .windows(2)
        .position(|pair| pair[0] == "sweep" && matches!(pair[1].as_str(), "grid" | "zip" | "space"))
        .map(|at| at + 2);
    if let Some(start) = axes.filter(|start| *start < path.len()) {
        let joined = path[start..].join(".");
        path.truncate(start);
        path.push(joined);
    }
    Ok(path)
}

/// A value as TOML writes it, or else a bare word.
fn value(typed: &str) -> Result<Node, OverrideError> {
    let parsed = document::parse(&format!("value = {typed}"));
    let mut node = match parsed {
        Ok(mut table) if table.entries.len() == 1 => match table.remove("value") {
            Some(entry) => entry.node,
            None => return Err(OverrideError::Syntax(format!("`{typed}` is not a value"))),
        },
        Err(error) if typed.starts_with(['[', '{', '"', '\'']) => {
            return Err(OverrideError::Syntax(format!("`{typed}` is not a TOML value: {}", error.message)));
        }
        _ => Node::new(Value::String(typed.to_owned()), Place::CommandLine),
    };
    node.onto_command_line();
    node.typed = Some(typed.to_owned()).filter(|_| node.as_array().is_none() && node.as_table().is_none());
    Ok(node)
}

/// Brings the axes of every `sweep` into one form, a flat table of quoted key paths: `[sweep.grid.train] epochs = [1, 2]` and
/// `[sweep.grid] train.epochs = [1, 2]` become `"train.epochs" = [1, 2]`. Gives the key path of a key that is there twice.
pub(crate) fn flatten_sweeps(root: &mut Table) -> Result<(), (String, Place)> {
    flatten_sweep(root, "sweep")?;
    let Some(Value::Table(variants)) = root.get_mut("variants").map(|node| &mut node.value) else { return Ok(()) };
    for variant in &mut variants.entries {
        let name = format!("variants.{}.sweep", quoted(&variant.key));
        if let Value::Table(table) = &mut variant.node.value {
            flatten_sweep(table, &name)?;
        }
    }
    Ok(())
}

fn flatten_sweep(table: &mut Table, name: &str) -> Result<(), (String, Place)> {
    let Some(Value::Table(sweep)) = table.get_mut("sweep").map(|node| &mut node.value) else { return Ok(()) };
    for kind in ["grid", "zip", "space"] {
        let whole = format!("{name}.{kind}");
        match sweep.get_mut(kind).map(|node| &mut node.value) {
            Some(Value::Table(axes)) => flatten_axes(axes, &whole)?,
            Some(Value::Array(groups)) => {
                for group in groups {
                    if let Value::Table(axes) = &mut group.value {
                        flatten_axes(axes, &whole)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a table stands for values rather than for keys.
fn is_leaf(table: &Table) -> bool {
    table.entry("values").is_some()
        || table.entry(crate::condition::WHEN).is_some()
        || crate::search::is_generator(table)
        || crate::space::is_distribution(table)
}

fn flatten_axes(axes: &mut Table, name: &str) -> Result<(), (String, Place)> {
    let mut flat = Table::default();
    let mut open: Vec<_> = std::mem::take(&mut axes.entries).into_iter().rev().collect();
    while let Some(mut entry) = open.pop() {
        match entry.node.value {
            Value::Table(inner) if !is_leaf(&inner) && !inner.entries.is_empty() => {
                open.extend(inner.entries.into_iter().rev().map(|mut below| {
                    below.key = format!("{}.{}", entry.key, below.key);
                    below
                }));
            }
            value => {
                entry.node.value = value;
                if flat.entry(&entry.key).is_some() {
                    return Err((format!("{name}.{}", quoted(&entry.key)), entry.place));
                }
                flat.entries.push(entry);
            }
        }
    }
    *axes = flat;
    Ok(())
}
