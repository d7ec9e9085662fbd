//! `pipeline serve`: the results as a web page on this machine.

use std::net::IpAddr;

use clap::Args;

use crate::{cli::Global, exit::Exit, serve};

/// Show the results in a browser.
#[derive(Clone, Copy, Debug, Args)]
pub struct Serve {
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8642)]
    pub port: u16,
    /// Address to listen on; whoever reaches it sees all results
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
}

/// Serves until it is stopped.
pub fn run(to: Serve, global: &Global) -> anyhow::Result<Exit> {
    serve::serve(to.host, to.port, global)?;
    Ok(Exit::Fine)
}
