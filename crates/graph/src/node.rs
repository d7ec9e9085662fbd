//! The one operator type that luminal sees.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use luminal::{
    op::{InputTensor, Operator as LuminalOperator},
    prelude::{Graph, NodeIndex, ShapeTracker, Tensor, petgraph},
};

use crate::{Operator, State};

/// An [`Operator`] in a luminal graph with the shapes it was built for.
pub struct Node {
    id: u64,
    /// What it computes.
    pub operator: Operator,
    /// Shape of each input.
    pub inputs: Vec<Vec<usize>>,
    /// Shape of the output; empty for operators that only write states.
    pub output: Vec<usize>,
}

impl Node {
    pub(crate) fn new(operator: Operator, inputs: Vec<Vec<usize>>, output: Vec<usize>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), operator, inputs, output }
    }

    /// Grows with every node that is built, within a process.
    pub fn sequence(&self) -> u64 {
        self.id
    }
}

/// Nodes are equal only to themselves: luminal's common-subexpression pass must not merge two draws of dropout.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?}", self.operator, self.output)
    }
}

impl LuminalOperator for Node {
    /// The reference: obvious loops in f32, one fresh buffer per result.
    fn process(&mut self, inputs: Vec<(InputTensor, ShapeTracker)>) -> Vec<Tensor> {
        if let Operator::Source(state) = &self.operator {
            return vec![Tensor::new(state.clone())];
        }
        let tensors: Vec<&Tensor> = inputs.iter().map(|(t, _)| t.borrowed()).collect();
        let owned: Vec<Vec<f32>> = tensors
            .iter()
            .map(|t| {
                let any = t.data.as_any();
                match any.downcast_ref::<State>() {
                    Some(state) => state.read().to_vec(),
                    None => any.downcast_ref::<Vec<f32>>().expect("every operator's result is a Vec<f32>").clone(),
                }
            })
            .collect();
        let values: Vec<&[f32]> = owned.iter().map(Vec::as_slice).collect();
        if self.operator.writes().is_empty() {
            return vec![Tensor::new(self.operator.evaluate(&values, &self.inputs, &self.output))];
        }
        for (input, new) in self.operator.effects(&values, &self.inputs) {
            let state = tensors[input].data.as_any().downcast_ref::<State>().expect("operators write only states");
            state.write().copy_from_slice(&new);
        }
        vec![]
    }
}

/// The [`Node`] at an index, if it is one of ours.
pub fn node(graph: &Graph, index: NodeIndex) -> Option<&Node> {
    graph.graph.node_weight(index).and_then(|operator| operator.as_any().downcast_ref())
}

/// All indices in an order in which they can run; the same for every build of the same graph.
pub fn nodes_in_order(graph: &Graph) -> Vec<NodeIndex> {
    petgraph::algo::toposort(&graph.graph, None).expect("a training graph has no cycle")
}

/// The data inputs of a node in their order.
pub(crate) fn inputs_of(graph: &Graph, index: NodeIndex) -> Vec<NodeIndex> {
    graph.get_sources(index).into_iter().map(|(source, _, _)| source).collect()
}
