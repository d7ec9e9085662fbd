//! Exit codes, which scripts rely on.

use std::process::ExitCode;

/// How a command ended, if not by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Fine,
    /// The command did its work, but trials failed; they are recorded.
    TrialsFailed,
    /// Stopped from the terminal; the same command goes on.
    Interrupted,
    /// A panic of the program, which has told about itself.
    Bug,
}

/// The code of an end. Errors are for the person at the terminal: bad usage, configuration or input.
pub fn code(end: anyhow::Result<Exit>) -> ExitCode {
    ExitCode::from(match end {
        Ok(Exit::Fine) => 0,
        Ok(Exit::TrialsFailed) => 3,
        Ok(Exit::Interrupted) => 130,
        Ok(Exit::Bug) => 70,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            eprintln!("error: {error:#}");
            2
        }
    })
}

/// Whoever read the output has seen enough, as `head` has.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
