//! `pipeline watch`: where the trials of a database stand.

use crate::{
    cli::{self, Global},
    exit::Exit,
    watch,
};

/// Draws until all trials are over, or once where nobody looks at a terminal.
pub fn run(asked: &cli::Watch, global: &Global) -> anyhow::Result<Exit> {
    watch::watch(asked, global)?;
    Ok(Exit::Fine)
}
