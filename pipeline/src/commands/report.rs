//! `pipeline report`: the comparison as pages, pictures and tables.

use std::path::{Path, PathBuf};

use store::Store;

use crate::{cli::Global, exit::Exit};

/// Writes the report of some experiments.
pub fn run(experiments: &[String], out: Option<&Path>, global: &Global) -> anyhow::Result<Exit> {
    write(experiments, out, global)?;
    Ok(Exit::Fine)
}

/// Writes the report and prints the comparison and where the pages are.
pub fn write(experiments: &[String], out: Option<&Path>, global: &Global) -> anyhow::Result<()> {
    let store = Store::open_read_only(&global.db)?;
    let out = out.map_or_else(|| PathBuf::from("reports").join(folder(experiments)), Path::to_path_buf);
    let written = report::write(&store, experiments, &out)?;
    println!("{}", written.summary.trim_end());
    println!("\nreport: {}", written.html.display());
    Ok(())
}

/// Names joined into one that any file system takes.
fn folder(experiments: &[String]) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = experiments.join("+").chars().map(|c| if c == '+' { c } else { plain(c) }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "report".to_owned() } else { name.chars().take(100).collect() }
}
