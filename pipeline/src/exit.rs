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
