//! Weights before the first step.

use dataset::rng::{Counter, Purpose};
use graph::step::{Role, Variables};
use plan::{Activation, Initialization, Model};

/// Draws all parameters from `seed`; moments are zeroed, running statistics start at mean 0 and variance 1.
///
/// Each tensor has a stream of its own, so that networks which share a layer start with the same weights in it.
pub fn initialize(variables: &Variables, model: &Model, seed: u64) {
    let scheme = model.resolved_initialization();
    // tanh shrinks what passes through it; this keeps deep signals at about unit deviation (PyTorch's gain for tanh).
    let gain = if model.resolved_activation() == Activation::Tanh { 5.0 / 3.0 } else { 1.0 };
    for parameter in &variables.parameters {
        let stream =
            parameter.values.name().bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let mut rng = Counter::new(seed, Purpose::Weights, 0, stream);
        let (fan_in, fan_out) = (parameter.fan_in as f64, parameter.fan_out as f64);
        let mut draw: Box<dyn FnMut() -> f64> = match (parameter.role, scheme) {
            (Role::Gamma, _) => Box::new(|| 1.0),
            (Role::Beta, _) => Box::new(|| 0.0),
            (Role::Weight, Initialization::He) => Box::new(move || rng.normal() * (2.0 / fan_in).sqrt()),
            (Role::Weight, Initialization::Xavier) => {
                let limit = gain * (6.0 / (fan_in + fan_out)).sqrt();
                Box::new(move || rng.range(-limit, limit))
            }
            (Role::Weight, Initialization::Paper) => Box::new(move || rng.normal() * 0.01),
            (Role::Weight | Role::Bias, Initialization::Uniform) => {
                let limit = 1.0 / fan_in.sqrt();
                Box::new(move || rng.range(-limit, limit))
            }
            (Role::Bias, Initialization::Paper) => {
                let one = matches!(parameter.layer.as_str(), "conv2" | "conv4" | "conv5" | "fc6" | "fc7" | "fc4");
                Box::new(move || f64::from(u8::from(one)))
            }
            (Role::Bias, Initialization::He | Initialization::Xavier) => Box::new(|| 0.0),
        };
        parameter.values.write().iter_mut().for_each(|value| *value = draw() as f32);
        for moment in &parameter.moments {
            moment.write().fill(0.0);
        }
    }
    for state in &variables.running {
        let start = if state.name().ends_with("running_var") { 1.0 } else { 0.0 };
        state.write().fill(start);
    }
}
