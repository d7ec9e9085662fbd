//! The threads that prepare and verify.

use std::error::Error;

use crate::DatasetError;

/// Starts them, unless they run already or the caller brings its own. Left to the first parallel work, a system without room for
/// them would be a panic.
pub(crate) fn start() -> Result<(), DatasetError> {
    if rayon::current_thread_index().is_some() {
        return Ok(());
    }
    let started = rayon::ThreadPoolBuilder::new().build_global();
    // That there is a pool already is an error without a cause.
    match started.as_ref().err().and_then(Error::source).and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(cause) => Err(DatasetError::Threads { reason: cause.to_string() }),
        None => Ok(()),
    }
}
