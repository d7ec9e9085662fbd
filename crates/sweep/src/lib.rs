//! Samplers, the queue of trials and its workers.
