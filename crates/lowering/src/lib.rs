//! Luminal compilers that lower the training graph to the machine.
//!
//! [`cpu::CpuCompiler`] replaces all nodes of a graph by one operator, a [`cpu::Program`]: kernels in a fixed order
//! over an arena whose layout is known before the first step. Results do not depend on the number of threads: work is
//! split by shape alone and partial sums are added in a fixed order. [`cuda::CudaCompiler`] does the same for an NVIDIA GPU.

#![allow(clippy::needless_range_loop, reason = "kernels walk several arrays of fixed length with one index")]

pub mod cpu;
pub mod cuda;
mod fusion;
mod memory;
mod precision;
mod schedule;

pub use precision::Precision;
