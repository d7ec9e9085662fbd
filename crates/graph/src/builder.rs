//! Adding operators to a luminal graph with shapes known at run time.

use std::collections::HashMap;

use luminal::prelude::{Graph, NodeIndex, ShapeTracker};

use crate::{Node, Operator, State, node::node};

/// The output of a node and its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Node that computes it.
    pub node: NodeIndex,
    /// Extent of each dimension.
    pub shape: Vec<usize>,
}

/// luminal's view of a contiguous tensor.
fn tracker(shape: &[usize]) -> ShapeTracker {
    let dims: Vec<_> = shape.iter().map(|&d| d.into()).collect();
    ShapeTracker::new(&dims)
}

/// Adds operators to a graph; each state has one source node, however often it is used.
pub struct Builder<'a> {
    graph: &'a mut Graph,
    sources: HashMap<u64, Value>,
}

impl<'a> Builder<'a> {
    /// Continues `graph`, knowing the sources that it has.
    pub fn new(graph: &'a mut Graph) -> Self {
        let sources = graph
            .graph
            .node_indices()
            .filter_map(|index| match &node(graph, index)?.operator {
                Operator::Source(state) => Some((state.id(), Value { node: index, shape: state.shape().to_vec() })),
                _ => None,
            })
            .collect();
        Self { graph, sources }
    }

    /// Adds an operator. For one that only writes states the value has no elements and nothing may read it.
    pub fn add(&mut self, operator: Operator, inputs: &[&Value]) -> Value {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|value| value.shape.clone()).collect();
        let shape = operator.output_shape(&shapes);
        let mut new = self.graph.add_op(Node::new(operator, shapes, shape.clone()));
        for input in inputs {
            new = new.input(input.node, 0, tracker(&input.shape));
        }
        Value { node: new.finish(), shape }
    }

    /// The source node of a state.
    pub fn source(&mut self, state: &State) -> Value {
        if let Some(value) = self.sources.get(&state.id()) {
            return value.clone();
        }
        let value = self.add(Operator::Source(state.clone()), &[]);
        self.sources.insert(state.id(), value.clone());
        value
    }

    /// Copies a value to a state at the end of the step.
    pub fn store(&mut self, value: &Value, state: &State) {
        let target = self.source(state);
        self.add(Operator::Store, &[value, &target]);
    }

    /// Orders each write to a state after every other reader of it. Call once the graph is whole.
    pub fn order_writes(&mut self) {
        let mut edges = Vec::new();
        for writer in self.graph.graph.node_indices() {
            let Some(node) = node(self.graph, writer) else { continue };
            let written = node.operator.writes();
            if written.is_empty() {
                continue;
            }
            let sources = crate::node::inputs_of(self.graph, writer);
            for &input in written {
                for (reader, _) in self.graph.get_dests(sources[input]) {
                    if reader != writer {
                        edges.push((reader, writer));
                    }
                }
            }
        }
        for (reader, writer) in edges {
            self.graph.add_schedule_dependency(reader, writer);
        }
    }

    /// The graph that is being built.
    pub fn graph(&mut self) -> &mut Graph {
        self.graph
    }
}
