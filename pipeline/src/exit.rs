//! Exit codes, which scripts rely on.

use std::process::ExitCode;

use anyhow::Context;

use crate::output;

/// How a command ended, if not by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Fine,
    /// The command did its work, but trials failed; they are recorded.
    TrialsFailed,
    /// Some of what was given could not be used, which has been told; the rest is done.
    BadInput,
    /// Stopped from the terminal; the same command goes on.
    Interrupted,
    /// A panic of the program, which has told about itself.
    Bug,
}

/// On Ctrl-C (or SIGTERM) says that the same command goes on, and ends: for work that can be stopped anywhere.
pub fn on_interrupt() -> anyhow::Result<()> {
    let stop = || {
        eprintln!("\nstopped; the same command goes on where it stopped");
        std::process::exit(130);
    };
    ctrlc::set_handler(stop).context("cannot listen for Ctrl-C")
}

/// Ends by what the parser of the command line says: help, a version or a mistake.
pub fn usage(error: &clap::Error) -> ! {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let _ = error.print();
    let argument = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) => Some(argument),
        _ => None,
    };
    // Elsewhere, settings are options: `--epochs 3`, `--train.lr 0.1`.
    if let Some(key) = argument.and_then(|argument| setting(argument)) {
        eprintln!("\nKeys of an experiment file are set without dashes: {key}=VALUE (see `pipeline keys`)");
    }
    std::process::exit(error.exit_code())
}

/// The key of an experiment file that an option would be.
fn setting(option: &str) -> Option<&'static str> {
    let name = option.trim_start_matches('-').replace('-', "_");
    let below =
        |path: &str| path.strip_suffix(name.as_str()).is_some_and(|above| above.is_empty() || above.ends_with('.'));
    plan::keys().iter().map(|key| key.path).find(|path| below(path))
}

/// The code of an end. Errors are for the person at the terminal: bad usage, configuration or input.
pub fn code(end: anyhow::Result<Exit>) -> ExitCode {
    ExitCode::from(match end {
        Ok(Exit::Fine) => 0,
        Ok(Exit::BadInput) => 2,
        Ok(Exit::TrialsFailed) => 3,
        Ok(Exit::Interrupted) => 130,
        Ok(Exit::Bug) => 70,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            output::tell(&format!("error: {}", message(&error)));
            2
        }
    })
}

/// An error and its causes, but for those that it has told itself.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.is_empty() {
        true => cause,
        false if told.contains(&cause) => told,
        false => format!("{told}: {cause}"),
    })
}

/// Whoever read the output has seen enough, as `head` has.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
