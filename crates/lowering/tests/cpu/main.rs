//! The CPU lowering judged by PyTorch and by the reference.

mod average;
mod bf16;
mod dropout;
mod freeze;
mod golden;
mod memory;
mod parity;
#[allow(dead_code, reason = "the reference's tests use the rest")]
#[path = "../../../graph/tests/support/mod.rs"]
mod support;
mod threads;
mod winograd;
mod work;

use graph::Autograd;
use lowering::cpu::{CpuCompiler, Workspace};
use luminal::prelude::Graph;
use support::machine::Executor;

/// luminal's executor over graphs lowered to the CPU.
fn cpu(threads: usize) -> Executor<impl Fn(&mut Graph)> {
    let workspace = Workspace::new(threads);
    Executor(move |graph: &mut Graph| graph.compile((Autograd, CpuCompiler::new(&workspace)), ()))
}
