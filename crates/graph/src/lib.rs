//! The training graph: operators, autograd, layers, models, loss and optimizer.
//!
//! A training step (forward, loss, backward, update) is one [`luminal`] graph of the closed set of operators in
//! [`Operator`]. Nothing here names a device: an operator's own `process` is the slow, obvious reference by which the
//! lowerings of the crate `lowering` are judged.
//!
//! The way through the crate: [`models`] describes a network layer by layer, [`step`] turns it into a graph whose
//! parameters, inputs and results are [`State`] buffers, and [`Autograd`] is the luminal compiler that replaces
//! gradient placeholders by the operators that compute them.

mod autograd;
mod buffer;
mod builder;
mod interpreter;
pub mod models;
mod node;
pub mod operators;
mod state;
pub mod step;

pub use autograd::Autograd;
pub use buffer::Buffer;
pub use builder::{Builder, Value};
pub use interpreter::Interpreter;
pub use models::{Layer, LayerKind, ModelError, Network};
pub use node::{Node, node, nodes_in_order};
pub use operators::{Operator, Real};
pub use state::State;
