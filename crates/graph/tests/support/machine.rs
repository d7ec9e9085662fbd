//! What runs a graph: the reference in any float type, or luminal's executor after any compilers.

use graph::{Autograd, Interpreter, Real, State, step::Variables};
use luminal::prelude::Graph;

use super::random::uniform;

pub trait Machine {
    fn compile(&self, graph: &mut Graph);
    fn run(&mut self, graph: &mut Graph);
    fn set(&mut self, state: &State, values: &[f32]);
    fn get(&mut self, state: &State) -> Vec<f64>;
}

/// The interpreter, in f32 or f64; leaves the states themselves alone.
#[derive(Default)]
pub struct Reference<T: Real>(pub Interpreter<T>);

impl<T: Real> Machine for Reference<T> {
    fn compile(&self, graph: &mut Graph) {
        graph.compile(Autograd, ());
    }
    fn run(&mut self, graph: &mut Graph) {
        self.0.run(graph);
    }
    fn set(&mut self, state: &State, values: &[f32]) {
        *self.0.state(state) = values.iter().map(|&v| T::of(f64::from(v))).collect();
    }
    fn get(&mut self, state: &State) -> Vec<f64> {
        self.0.state(state).iter().map(|v| v.to_f64().expect("floats convert")).collect()
    }
}

/// Weights at random, of the size that keeps values of any depth in bounds, running statistics near those of nothing, and no moments.
pub fn start(variables: &Variables, machine: &mut impl Machine) {
    for (stream, parameter) in (0..).zip(&variables.parameters) {
        let limit = (1.0 / parameter.fan_in as f32).sqrt();
        let values: Vec<f32> = uniform(stream, parameter.values.elements()).into_iter().map(|v| v * limit).collect();
        machine.set(&parameter.values, &values);
        parameter.moments.iter().for_each(|moment| machine.set(moment, &vec![0.0; moment.elements()]));
    }
    for (stream, state) in (1000..).zip(&variables.running) {
        let middle = if state.name().ends_with("running_var") { 1.0 } else { 0.0 };
        let values: Vec<f32> = uniform(stream, state.elements()).into_iter().map(|v| middle + 0.25 * v).collect();
        machine.set(state, &values);
    }
}

/// luminal's own executor over the states, after these compilers.
pub struct Executor<F>(pub F);

impl<F: Fn(&mut Graph)> Machine for Executor<F> {
    fn compile(&self, graph: &mut Graph) {
        (self.0)(graph);
    }
    fn run(&mut self, graph: &mut Graph) {
        graph.execute();
    }
    fn set(&mut self, state: &State, values: &[f32]) {
        state.write().copy_from_slice(values);
    }
    fn get(&mut self, state: &State) -> Vec<f64> {
        state.read().iter().map(|&v| f64::from(v)).collect()
    }
}

/// luminal's executor over the reference operators.
pub fn luminal() -> Executor<impl Fn(&mut Graph)> {
    Executor(|graph: &mut Graph| graph.compile(Autograd, ()))
}
