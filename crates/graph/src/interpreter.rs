//! Runs a graph's reference operators in any float type.

use std::collections::HashMap;

use luminal::prelude::{Graph, NodeIndex};

use crate::{
    Operator, Real, State,
    node::{inputs_of, node, nodes_in_order},
};

/// The reference in f32 or f64, apart from the states themselves: what finite differences and parity tests compare with.
pub struct Interpreter<T> {
    states: HashMap<u64, Vec<T>>,
}

impl<T: Real> Default for Interpreter<T> {
    fn default() -> Self {
        Self { states: HashMap::new() }
    }
}

impl<T: Real> Interpreter<T> {
    /// Values of a state, taken from the state itself at first use.
    pub fn state(&mut self, state: &State) -> &mut Vec<T> {
        self.states.entry(state.id()).or_insert_with(|| state.read().iter().map(|&v| T::of(f64::from(v))).collect())
    }

    /// Runs one step; returns every node's value.
    pub fn run(&mut self, graph: &Graph) -> HashMap<NodeIndex, Vec<T>> {
        let mut values: HashMap<NodeIndex, Vec<T>> = HashMap::new();
        for index in nodes_in_order(graph) {
            let here = node(graph, index).expect("a training graph holds only our operators");
            if let Operator::Source(state) = &here.operator {
                let value = self.state(state).clone();
                values.insert(index, value);
                continue;
            }
            let sources = inputs_of(graph, index);
            let inputs: Vec<&[T]> = sources.iter().map(|source| values[source].as_slice()).collect();
            if here.operator.writes().is_empty() {
                let value = here.operator.evaluate(&inputs, &here.inputs, &here.output);
                values.insert(index, value);
                continue;
            }
            for (input, new) in here.operator.effects(&inputs, &here.inputs) {
                let source = node(graph, sources[input]).expect("operators write only states");
                let Operator::Source(state) = &source.operator else { unreachable!("operators write only states") };
                self.states.insert(state.id(), new);
            }
        }
        values
    }
}
