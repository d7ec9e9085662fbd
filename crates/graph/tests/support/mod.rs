//! What the tests of the reference and of the lowerings share: golden vectors, the machines that run graphs, and the
//! operators to run on them.

pub mod expressions;
pub mod golden;
pub mod machine;
pub mod operators;
pub mod optimizers;
pub mod random;
pub mod subject;
pub mod traces;
