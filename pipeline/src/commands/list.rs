//! `pipeline list`: experiments and runs.

use clap::Args;
use store::{Listing, Store};

use crate::{
    cli::{Global, Rows},
    commands::query,
    exit::Exit,
    output, subject,
};

/// List experiments or runs.
#[derive(Clone, Debug, Args)]
pub struct List {
    /// List the runs of this experiment [default: the experiments]
    #[arg(value_name = "EXPERIMENT")]
    pub experiment: Option<String>,
    /// List the runs of all experiments
    #[arg(long)]
    pub runs: bool,
    /// Only runs that stand so
    #[arg(long, value_name = "STATUS", value_parser = ["queued", "running", "done", "failed", "interrupted", "pruned"])]
    pub status: Option<String>,
    /// Only runs of this variant or architecture
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Only what has this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// What was put away too
    #[arg(long)]
    pub archived: bool,
    /// At most so many rows, the newest first
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// How rows are printed.
    #[command(flatten)]
    pub rows: Rows,
}

/// Prints the list.
pub fn run(list: &List, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    let experiment = list.experiment.as_deref().map(|name| subject::experiment(&store, name)).transpose()?;
    let listing = Listing {
        experiment,
        status: list.status.as_deref(),
        tag: list.tag.as_deref(),
        network: list.network.as_deref(),
        archived: list.archived,
        limit: list.limit,
        skip: 0,
        order: None,
    };
    let of_runs = list.runs || experiment.is_some() || list.status.is_some() || list.network.is_some();
    let table = if of_runs { store.list_runs(&listing)? } else { store.list_experiments(&listing)? };
    query::print(&table, &list.rows)?;
    if !of_runs && list.tag.is_some() && table.rows.is_empty() && !global.quiet {
        output::tell("no experiment has this tag; --runs looks for runs that have it");
    }
    Ok(Exit::Fine)
}
