//! An expression whose value and gradients are to be judged.

use std::collections::BTreeMap;

use graph::{Builder, Operator, State, Value};
use luminal::prelude::Graph;

use super::machine::Machine;

pub struct Input {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
    /// Whether its gradient is wanted.
    pub wanted: bool,
}

type Forward = dyn Fn(&mut Builder, &[Value]) -> Value;

pub struct Subject {
    pub inputs: Vec<Input>,
    /// Builds y from the inputs.
    pub forward: Box<Forward>,
    /// Upstream gradient of y; without one, y is the loss itself.
    pub dy: Option<Vec<f32>>,
}

/// A subject's graph, not yet compiled.
pub struct Built {
    pub graph: Box<Graph>,
    pub inputs: Vec<State>,
    pub dy: Option<State>,
    /// `y`, `loss` and `dNAME` for the gradient of the input NAME.
    pub results: Vec<(String, State)>,
}

/// Σ y·dy as a scalar: a linear layer with one output whose weights are dy.
pub fn weighted_sum(build: &mut Builder, y: &Value, dy: &State) -> Value {
    let n = y.shape.iter().product();
    let flat = build.add(Operator::Reshape(vec![1, n]), &[y]);
    let weights = build.source(dy);
    let zero = build.add(Operator::Fill(0.0, vec![1]), &[]);
    let sum = build.add(Operator::Linear, &[&flat, &weights, &zero]);
    build.add(Operator::Reshape(vec![1]), &[&sum])
}

impl Subject {
    pub fn build(&self) -> Built {
        let mut graph = Box::new(Graph::new());
        let mut build = Builder::new(&mut graph);
        let inputs: Vec<State> = self.inputs.iter().map(|i| State::new(i.name.clone(), &i.shape)).collect();
        let sources: Vec<Value> = inputs.iter().map(|state| build.source(state)).collect();
        let y = (self.forward)(&mut build, &sources);
        let mut results = Vec::new();
        let mut keep = |build: &mut Builder, name: String, value: &Value| {
            let state = State::new(name.clone(), &value.shape);
            build.store(value, &state);
            results.push((name, state));
        };
        keep(&mut build, "y".to_owned(), &y);
        let dy = self.dy.as_ref().map(|dy| State::new("dy", &[1, dy.len()]));
        let loss = dy.as_ref().map_or_else(|| y.clone(), |dy| weighted_sum(&mut build, &y, dy));
        keep(&mut build, "loss".to_owned(), &loss);
        for (input, source) in self.inputs.iter().zip(&sources).filter(|(input, _)| input.wanted) {
            let gradient = build.add(Operator::Gradient, &[&loss, source]);
            keep(&mut build, format!("d{}", input.name), &gradient);
        }
        Built { graph, inputs, dy, results }
    }

    /// Hands all values to the machine.
    pub fn feed(&self, built: &Built, machine: &mut impl Machine) {
        for (input, state) in self.inputs.iter().zip(&built.inputs) {
            machine.set(state, &input.values);
        }
        if let (Some(values), Some(state)) = (&self.dy, &built.dy) {
            machine.set(state, values);
        }
    }

    /// Results and the inputs as they are after one run, by name.
    pub fn evaluate(&self, machine: &mut impl Machine) -> BTreeMap<String, Vec<f64>> {
        let mut built = self.build();
        machine.compile(&mut built.graph);
        self.feed(&built, machine);
        machine.run(&mut built.graph);
        let inputs = self.inputs.iter().map(|input| input.name.clone()).zip(built.inputs);
        built.results.into_iter().chain(inputs).map(|(name, state)| (name, machine.get(&state))).collect()
    }
}
