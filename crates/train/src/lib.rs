//! The epoch loop: training, evaluation, metrics, checkpoints.
