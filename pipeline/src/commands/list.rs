//! `pipeline list`: experiments and runs.

use clap::Args;
use store::{EXPERIMENT_COLUMNS, Listing, Order, RUN_COLUMNS, Store};

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
    /// In the order of this column, or of `-COLUMN` with the greatest first [default: the newest first]
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// At most so many rows, the first of that order
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// How rows are printed.
    #[command(flatten)]
    pub rows: Rows,
}

/// What `--sort` asks for.
fn order<'a>(sort: &'a str, columns: &[&str]) -> anyhow::Result<Order<'a>> {
    let (column, descending) = sort.strip_prefix('-').map_or((sort, false), |column| (column, true));
    anyhow::ensure!(columns.contains(&column), "--sort {sort}: expected one of {}", columns.join(", "));
    Ok(Order { column, descending })
}

/// Prints the list.
pub fn run(list: &List, global: &Global) -> anyhow::Result<Exit> {
    let store = Store::open_read_only(&global.db)?;
    let experiment = list.experiment.as_deref().map(|name| subject::experiment(&store, name)).transpose()?;
    let of_runs = list.runs || experiment.is_some() || list.status.is_some() || list.network.is_some();
    let columns = if of_runs { &RUN_COLUMNS[..] } else { &EXPERIMENT_COLUMNS[..] };
    let listing = Listing {
        experiment,
        status: list.status.as_deref(),
        tag: list.tag.as_deref(),
        network: list.network.as_deref(),
        archived: list.archived,
        limit: list.limit,
        skip: 0,
        order: list.sort.as_deref().map(|sort| order(sort, columns)).transpose()?,
    };
    let table = if of_runs { store.list_runs(&listing)? } else { store.list_experiments(&listing)? };
    query::print(&table, &list.rows)?;
    if !of_runs && list.tag.is_some() && table.rows.is_empty() && !global.quiet {
        output::tell("no experiment has this tag; --runs looks for runs that have it");
    }
    Ok(Exit::Fine)
}
