//! One file per subcommand.

mod bench;
pub mod bundle;
mod delete;
mod device;
mod diff;
mod evaluate;
mod export;
pub mod gc;
mod keys;
pub mod list;
mod mark;
pub mod merge;
mod model;
mod plan;
mod predict;
mod prepare;
mod query;
mod records;
pub mod report;
pub mod serve;
pub mod show;
mod sweep;
mod train;
mod verify;
mod watch;

use std::io::Write;

use clap::CommandFactory;

use crate::{
    cli::{Cli, Command},
    data,
    exit::Exit,
    output,
    runner::Redo,
};

/// Runs what was typed.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    let global = &cli.global;
    if !global.quiet {
        store::when_waiting(|db| {
            output::tell(&format!("waiting for {}, which another program keeps locked", db.display()));
        });
    }
    // Without a folder for the cache they are compiled whenever they are needed.
    if let Ok(cache) = data::cache(global) {
        ::train::Device::keep_kernels(&cache.join("cuda-kernels"));
    }
    match cli.command {
        Command::Prepare(prepare) => prepare::run(&prepare, global),
        Command::Plan { experiment, estimate, machine, rows } => {
            plan::run(&experiment, estimate, machine, &rows, global)
        }
        Command::Train { experiment, trial, again, threads, rows } => {
            train::run(&experiment, trial, again, threads, &rows, global)
        }
        Command::Sweep { experiment, again, retry_failed, resume_pruned, no_report, machine } => {
            let redo = Redo { done: again, failed: again || retry_failed, pruned: resume_pruned };
            sweep::run(&experiment, redo, no_report, machine, global)
        }
        Command::Evaluate(evaluate) => evaluate::run(&evaluate, global),
        Command::Watch(asked) => watch::run(&asked, global),
        Command::Verify(asked) => verify::run(&asked, global),
        Command::Predict(predict) => predict::run(&predict, global),
        Command::Export(export) if export.out.is_none() => records::run(&export, global),
        Command::Export(export) => export::run(&export, global),
        Command::Query { query, arguments, schema, rows } => {
            if schema {
                query::schema(&rows)
            } else {
                query::run(query.as_deref().unwrap_or_default(), &arguments, &rows, global)
            }
        }
        Command::List(list) => list::run(&list, global),
        Command::Show { run, rows } => show::run(run, &rows, global),
        Command::Diff { a, b, rows } => diff::run(a, b, &rows, global),
        Command::Tag { target, tags, remove } => mark::tag(&target, &tags, remove, global),
        Command::Note { target, text, remove } => mark::note(&target, text.as_deref(), remove, global),
        Command::Archive { targets } => mark::archive(&targets, true, global),
        Command::Unarchive { targets } => mark::archive(&targets, false, global),
        Command::Delete { targets, yes } => delete::run(&targets, yes, global),
        Command::Gc(gc) => gc::run(&gc, global),
        Command::Bundle(bundle) => bundle::run(&bundle, global),
        Command::Merge(merge) => merge::run(&merge, global),
        Command::Serve(serve) => serve::run(serve, global),
        Command::Report { experiments, out } => report::run(&experiments, out.as_deref(), global),
        Command::Model { model, trial, input, classes, overrides, rows } => {
            model::run(&model, trial, (input, classes), &overrides, &rows, global)
        }
        Command::Bench(bench) => bench::run(&bench),
        Command::Device { rows } => device::run(&rows),
        Command::Keys { word, rows } => keys::run(word.as_deref(), &rows),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where the output is closed early.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pipeline", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(Exit::Fine)
        }
    }
}
