//! Reverse-mode differentiation as a luminal compiler.

use std::collections::{HashMap, HashSet};

use luminal::prelude::{Compiler, Graph, NodeIndex, ToIdsMut, move_outgoing_edge, move_references};

use crate::{
    Builder, Operator, Value,
    node::{inputs_of, node, nodes_in_order},
};

/// Replaces every [`Operator::Gradient`] of a graph by the operators that compute it, then orders in-place writes
/// after all readers.
///
/// Only nodes between a parameter and the loss are differentiated, so that the first convolution's input gradient is
/// never built. All placeholders of a graph share one loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Autograd;

impl Compiler for Autograd {
    fn compile<T: ToIdsMut>(&self, graph: &mut Graph, mut remap: T) {
        let order = nodes_in_order(graph);
        let placeholders: Vec<NodeIndex> = order
            .iter()
            .copied()
            .filter(|&i| node(graph, i).is_some_and(|n| n.operator == Operator::Gradient))
            .collect();
        if let Some(&first) = placeholders.first() {
            let loss = inputs_of(graph, first)[0];
            let parameters: Vec<NodeIndex> = placeholders.iter().map(|&p| inputs_of(graph, p)[1]).collect();
            let gradients = differentiate(graph, &order, loss, &parameters);
            for (placeholder, gradient) in placeholders.into_iter().zip(gradients) {
                move_outgoing_edge(placeholder, gradient.node, &mut graph.graph);
                move_references(&mut remap, &mut graph.no_delete, &mut graph.to_retrieve, placeholder, gradient.node);
                graph.graph.remove_node(placeholder);
            }
        }
        Builder::new(graph).order_writes();
    }
}

/// The gradient of `loss` [1] with respect to each of `parameters`.
fn differentiate(graph: &mut Graph, order: &[NodeIndex], loss: NodeIndex, parameters: &[NodeIndex]) -> Vec<Value> {
    let mut downstream: HashSet<NodeIndex> = parameters.iter().copied().collect();
    for &index in order {
        if inputs_of(graph, index).iter().any(|input| downstream.contains(input)) {
            downstream.insert(index);
        }
    }
    let mut adjoints: HashMap<NodeIndex, Value> = HashMap::new();
    let mut tape = Builder::new(graph);
    let one = tape.add(Operator::Fill(1.0, vec![1]), &[]);
    adjoints.insert(loss, one);
    for &index in order.iter().rev() {
        if !downstream.contains(&index) {
            continue;
        }
        let Some(upstream) = adjoints.get(&index).cloned() else { continue };
        let here = node(tape.graph(), index).expect("a training graph holds only our operators");
        let (operator, shapes, shape) = (here.operator.clone(), here.inputs.clone(), here.output.clone());
        let inputs: Vec<Value> =
            inputs_of(tape.graph(), index).into_iter().zip(shapes).map(|(node, shape)| Value { node, shape }).collect();
        let wanted: Vec<bool> = inputs.iter().map(|input| downstream.contains(&input.node)).collect();
        let output = Value { node: index, shape };
        for (input, gradient) in operator.gradients(&mut tape, &inputs, &wanted, &output, &upstream) {
            let source = inputs[input].node;
            let sum = match adjoints.remove(&source) {
                Some(earlier) => tape.add(Operator::Add, &[&earlier, &gradient]),
                None => gradient,
            };
            adjoints.insert(source, sum);
        }
    }
    parameters.iter().map(|p| adjoints.get(p).cloned().expect("the loss depends on every parameter")).collect()
}

impl Operator {
    /// Gradients of the inputs that are wanted, by input position. The calculus stands at each operator's reference.
    ///
    /// # Panics
    /// For operators that only occur after the loss, such as gradients themselves: there are no second derivatives.
    fn gradients(
        &self,
        tape: &mut Builder,
        x: &[Value],
        wanted: &[bool],
        y: &Value,
        dy: &Value,
    ) -> Vec<(usize, Value)> {
        let mut out = Vec::new();
        let mut give = |input: usize, make: &mut dyn FnMut() -> Value| {
            if wanted[input] {
                out.push((input, make()));
            }
        };
        match self {
            Self::Source(_) | Self::Fill(..) => {}
            Self::Reshape(_) => give(0, &mut || tape.add(Self::Reshape(x[0].shape.clone()), &[dy])),
            Self::Add => {
                give(0, &mut || dy.clone());
                give(1, &mut || dy.clone());
            }
            Self::Convolution(attributes) => {
                give(0, &mut || tape.add(Self::ConvolutionInputGrad(*attributes, x[0].shape.clone()), &[&x[1], dy]));
                give(1, &mut || tape.add(Self::ConvolutionWeightGrad(*attributes, x[1].shape.clone()), &[&x[0], dy]));
                give(2, &mut || bias_gradient(tape, dy));
            }
            Self::Linear => {
                give(0, &mut || tape.add(Self::LinearInputGrad, &[&x[1], dy]));
                give(1, &mut || tape.add(Self::LinearWeightGrad, &[&x[0], dy]));
                give(2, &mut || bias_gradient(tape, dy));
            }
            Self::Activation(kind) => give(0, &mut || tape.add(Self::ActivationGrad(*kind), &[y, dy])),
            Self::MaxPool(pool) => give(0, &mut || tape.add(Self::MaxPoolGrad(*pool), &[&x[0], dy])),
            Self::AveragePool(pool) => {
                give(0, &mut || tape.add(Self::AveragePoolGrad(*pool, x[0].shape.clone()), &[dy]))
            }
            Self::BatchNormalize => {
                let wants = wanted[1..].contains(&true);
                let both = wants.then(|| tape.add(Self::BatchNormalizeParameterGrad, &[&x[0], &x[1], dy]));
                give(0, &mut || {
                    // Statistics that do not depend on x, such as running ones, are constants: nothing flows through them.
                    let constant = || tape.add(Self::Fill(0.0, x[1].shape.clone()), &[]);
                    let through = both.clone().filter(|_| wanted[1]).unwrap_or_else(constant);
                    tape.add(Self::BatchNormalizeInputGrad, &[&x[0], &x[1], &x[2], &through, dy])
                });
                for (input, row) in [(2, 0), (3, 1)] {
                    give(input, &mut || tape.add(Self::Row(row), &[both.as_ref().expect("one of both is wanted")]));
                }
            }
            // The gradient through the statistics is part of BatchNormalizeInputGrad.
            Self::BatchStatistics => {}
            Self::LocalResponse(attributes) => {
                give(0, &mut || tape.add(Self::LocalResponseGrad(*attributes), &[&x[0], dy]))
            }
            Self::Dropout(dropout) => give(0, &mut || tape.add(Self::Dropout(*dropout), &[dy, &x[1]])),
            Self::CrossEntropy => give(0, &mut || tape.add(Self::CrossEntropyGrad, &[&x[0], &x[1], dy])),
            Self::Gradient
            | Self::ChannelSum
            | Self::Row(_)
            | Self::Stack
            | Self::ConvolutionInputGrad(..)
            | Self::ConvolutionWeightGrad(..)
            | Self::LinearInputGrad
            | Self::LinearWeightGrad
            | Self::ActivationGrad(_)
            | Self::MaxPoolGrad(_)
            | Self::AveragePoolGrad(..)
            | Self::BatchNormalizeParameterGrad
            | Self::BatchNormalizeInputGrad
            | Self::UpdateRunning(..)
            | Self::LocalResponseGrad(_)
            | Self::CrossEntropyGrad
            | Self::ClipFactor
            | Self::Store
            | Self::Update(_) => unreachable!("{self:?} is never upstream of a loss"),
        }
        out
    }
}

/// The sum over all but the second dimension, which is 0 behind a normalization by the batch's own statistics: no shift of a channel gets through
/// (Ioffe & Szegedy 2015, section 3.2). Computed, it would be rounding, which Adam takes for a gradient like any other.
fn bias_gradient(tape: &mut Builder, dy: &Value) -> Value {
    if is_without_mean(tape.graph(), dy.node) {
        return tape.add(Operator::Fill(0.0, vec![dy.shape[1]]), &[]);
    }
    tape.add(Operator::ChannelSum, &[dy])
}

/// Whether a value is the gradient of what a normalization reads and takes the statistics of.
fn is_without_mean(graph: &Graph, value: NodeIndex) -> bool {
    let is = |index: NodeIndex, wanted: &Operator| node(graph, index).is_some_and(|n| n.operator == *wanted);
    if !is(value, &Operator::BatchNormalizeInputGrad) {
        return false;
    }
    let inputs = inputs_of(graph, value);
    let [x, statistics, _, through, _] = inputs[..] else { unreachable!("it has five inputs") };
    // Through constant statistics gradients go as they are.
    is(through, &Operator::BatchNormalizeParameterGrad)
        && is(statistics, &Operator::BatchStatistics)
        && inputs_of(graph, statistics) == [x]
}
