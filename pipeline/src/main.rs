//! The command line of `pipeline`: one file per subcommand in [`commands`], no logic of its own.

/// Tells on standard error. Whoever read it may have seen enough, as `head` has: that is no reason to panic, as `std`'s does.
macro_rules! eprintln {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($said)*);
    }};
}

mod adaptive;
mod cli;
mod commands;
mod data;
mod exit;
mod forecast;
mod output;
mod progress;
mod provenance;
mod public;
mod queue;
mod runner;
mod searching;
mod serve;
mod subject;
mod trained;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, exit::Exit};

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| exit::usage(&error));
    exit::code(std::panic::catch_unwind(|| commands::run(cli)).unwrap_or(Ok(Exit::Bug)))
}
