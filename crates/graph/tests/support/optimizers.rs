//! `optimizers.safetensors`: five steps of every update rule.

use graph::{
    Builder, Network, Operator, State, Value,
    operators::{Rule, update::HYPER},
    step::Variables,
};
use luminal::prelude::Graph;
use plan::{Model, Optimizer, Train};

use super::{
    golden::{Golden, assert_close, number, text, widen},
    machine::Machine,
};

/// Runs every case; returns the largest share of the tolerance that one took.
pub fn check_all(machine: &mut impl Machine) -> f64 {
    let golden = Golden::open("optimizers.safetensors");
    assert!(golden.cases.len() >= 14);
    let mut worst = 0.0_f64;
    for case in &golden.cases {
        let name = text(case, "name");
        let optimizer = optimizer(text(case, "optimizer"));
        let nesterov = case["nesterov"].as_bool().expect("nesterov is a bool");
        let train = Train {
            optimizer,
            nesterov,
            momentum: number(case, "momentum"),
            beta2: number(case, "beta2"),
            weight_decay: number(case, "weight_decay"),
            gradient_clip: case["gradient_clip"].as_f64(),
            ..Train::default()
        };
        assert_eq!(number(case, "eps"), 1e-8, "{name}: the program's ε");
        let rule = match optimizer {
            Optimizer::Sgd => Rule::Sgd { nesterov, decay: true, average: false },
            Optimizer::Adam => Rule::Adam { decoupled: false, decay: true, average: false },
            Optimizer::Adamw => Rule::Adam { decoupled: true, decay: true, average: false },
        };
        // Any network will do: only its hyperparameters are used.
        let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
        let variables = Variables::new(&network, optimizer);
        let tensors: Vec<_> = (0..number(case, "tensors") as usize)
            .map(|i| {
                let shape = golden.tensor(&format!("{name}/{i}/parameter")).shape.clone();
                let moments: Vec<State> = (0..rule.moments()).map(|_| State::new("moment", &shape)).collect();
                (State::new("parameter", &shape), State::new("gradient", &shape), moments)
            })
            .collect();
        let mut graph = Box::new(Graph::new());
        let mut build = Builder::new(&mut graph);
        let hyper = build.source(&variables.hyper);
        let gradients: Vec<Value> = tensors.iter().map(|(_, gradient, _)| build.source(gradient)).collect();
        let clip = train.gradient_clip.map(|_| {
            let inputs: Vec<&Value> = gradients.iter().chain([&hyper]).collect();
            build.add(Operator::ClipFactor, &inputs)
        });
        for ((parameter, _, moments), gradient) in tensors.iter().zip(&gradients) {
            let parameter = build.source(parameter);
            let moments: Vec<Value> = moments.iter().map(|m| build.source(m)).collect();
            let inputs: Vec<&Value> = [&parameter, gradient, &hyper].into_iter().chain(&moments).chain(&clip).collect();
            build.add(Operator::Update(rule), &inputs);
        }
        machine.compile(&mut graph);
        for (i, (parameter, _, moments)) in tensors.iter().enumerate() {
            machine.set(parameter, &golden.tensor(&format!("{name}/{i}/parameter")).values);
            moments.iter().for_each(|m| machine.set(m, &vec![0.0; m.elements()]));
        }
        let rates = case["learning_rates"].as_array().expect("learning_rates is an array");
        for (step, rate) in rates.iter().enumerate() {
            variables.set_hyper(&train, rate.as_f64().expect("a rate"), step as u64 + 1);
            let values = variables.hyper.read().to_vec();
            assert_eq!(values.len(), HYPER);
            machine.set(&variables.hyper, &values);
            let row = |kind: &str, i: usize, n: usize| {
                golden.tensor(&format!("{name}/{i}/{kind}")).values[step * n..][..n].to_vec()
            };
            for (i, (_, gradient, _)) in tensors.iter().enumerate() {
                machine.set(gradient, &row("gradients", i, gradient.elements()));
            }
            machine.run(&mut graph);
            for (i, (parameter, ..)) in tensors.iter().enumerate() {
                let expected = widen(&row("expected", i, parameter.elements()));
                let what = format!("{name}, tensor {i}, step {step}");
                worst = worst.max(assert_close(&what, &machine.get(parameter), &expected, 1e-4, 1e-7));
            }
        }
    }
    worst
}

pub fn optimizer(name: &str) -> Optimizer {
    match name {
        "sgd" => Optimizer::Sgd,
        "adam" => Optimizer::Adam,
        "adamw" => Optimizer::Adamw,
        other => panic!("no optimizer {other}"),
    }
}
