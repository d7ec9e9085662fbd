//! One file per subcommand.

mod bench;
mod evaluate;
mod model;
mod plan;
mod prepare;
mod query;
mod report;
mod sweep;
mod train;

use clap::CommandFactory;

use crate::{
    cli::{Cli, Command},
    exit::Exit,
};

/// Runs what was typed.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    match cli.command {
        Command::Prepare { experiment, preview } => prepare::run(&experiment, preview.as_deref(), global),
        Command::Plan { experiment, rows } => plan::run(&experiment, &rows, global),
        Command::Train { experiment, trial, again, machine } => train::run(&experiment, trial, again, machine, global),
        Command::Sweep { experiment, again, retry_failed, no_report, machine } => {
            sweep::run(&experiment, again, retry_failed, no_report, machine, global)
        }
        Command::Evaluate { run, split, data, overrides, rows, threads } => {
            let images = evaluate::Images { split, file: data.as_deref(), overrides: &overrides };
            evaluate::run(run, images, &rows, threads, global)
        }
        Command::Query { query, arguments, schema, rows } => {
            if schema {
                query::schema(&rows)
            } else {
                query::run(query.as_deref().unwrap_or_default(), &arguments, &rows, global)
            }
        }
        Command::Report { experiments, out } => report::run(&experiments, out.as_deref(), global),
        Command::Model { model, input, classes, overrides, rows } => {
            model::run(&model, input, classes, &overrides, &rows, global)
        }
        Command::Bench(bench) => bench::run(&bench),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pipeline", &mut std::io::stdout());
            Ok(Exit::Fine)
        }
    }
}
