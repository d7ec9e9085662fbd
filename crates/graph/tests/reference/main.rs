//! The reference judged by PyTorch, by finite differences and by counting.

mod autograd;
mod decay;
mod differences;
mod golden;
mod networks;
#[allow(dead_code, reason = "the lowerings' tests use the rest")]
#[path = "../support/mod.rs"]
mod support;
