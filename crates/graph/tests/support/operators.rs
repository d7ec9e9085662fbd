//! `operators.safetensors`: every operator's value and gradients.

use graph::{
    Builder, Operator, Value,
    operators::{Activation, Convolution, Dropout, LocalResponse, Pool},
};
use serde_json::Value as Json;

use super::{
    golden::{Golden, assert_close, number, text, widen},
    machine::Machine,
    subject::{Input, Subject},
};

const RELATIVE: f64 = 1e-4;
const ABSOLUTE: f64 = 1e-7;

/// Runs every case; returns how many there were and the largest share of the tolerance that one took.
pub fn check_all(machine: &mut impl Machine) -> (usize, f64) {
    let golden = Golden::open("operators.safetensors");
    let shares: Vec<f64> = golden.cases.iter().map(|case| check(&golden, case, machine)).collect();
    (shares.len(), shares.into_iter().fold(0.0, f64::max))
}

fn subject(golden: &Golden, case: &Json) -> Subject {
    let name = text(case, "name");
    let operator = text(case, "operator").to_owned();
    let inputs: &[(&str, bool)] = match operator.as_str() {
        "conv2d" | "linear" => &[("x", true), ("w", true), ("b", true)],
        "batch_norm_training" | "batch_norm_inference" => {
            &[("x", true), ("gamma", true), ("beta", true), ("running_mean", false), ("running_var", false)]
        }
        "softmax_cross_entropy" => &[("logits", true), ("targets", false)],
        "add" => &[("a", true), ("b", true)],
        _ => &[("x", true)],
    };
    let mut inputs: Vec<Input> = inputs
        .iter()
        .map(|&(input, wanted)| {
            let tensor = golden.tensor(&format!("{name}/{input}"));
            Input { name: input.to_owned(), shape: tensor.shape.clone(), values: tensor.values.clone(), wanted }
        })
        .collect();
    if operator == "dropout" {
        inputs.push(Input { name: "key".into(), shape: vec![4], values: vec![3.0, 1.0, 4.0, 1.0], wanted: false });
    }
    let dy = (operator != "softmax_cross_entropy").then(|| golden.tensor(&format!("{name}/dy")).values.clone());
    let case = case.clone();
    let forward = move |build: &mut Builder, x: &[Value]| forward(build, &operator, &case, x);
    Subject { inputs, forward: Box::new(forward), dy }
}

fn forward(build: &mut Builder, operator: &str, case: &Json, x: &[Value]) -> Value {
    let size = |key| number(case, key) as usize;
    let all: Vec<&Value> = x.iter().collect();
    match operator {
        "conv2d" => {
            let attributes = Convolution { stride: size("stride"), padding: size("pad"), groups: size("groups") };
            build.add(Operator::Convolution(attributes), &all)
        }
        "linear" => build.add(Operator::Linear, &all),
        "relu" => build.add(Operator::Activation(Activation::Relu), &all),
        "tanh" => build.add(Operator::Activation(Activation::Tanh), &all),
        "sigmoid" => build.add(Operator::Activation(Activation::Sigmoid), &all),
        "max_pool2d" => build.add(Operator::MaxPool(Pool { size: size("kernel"), stride: size("stride") }), &all),
        "avg_pool2d" => build.add(Operator::AveragePool(Pool { size: size("kernel"), stride: size("stride") }), &all),
        "batch_norm_training" => {
            assert_eq!(number(case, "eps"), graph::operators::batch_norm::EPSILON);
            let statistics = build.add(Operator::BatchStatistics, &[&x[0]]);
            let count = x[0].shape[0] * x[0].shape[2..].iter().product::<usize>();
            let momentum = number(case, "momentum") as f32;
            build.add(Operator::UpdateRunning(momentum, count), &[&x[3], &x[4], &statistics]);
            build.add(Operator::BatchNormalize, &[&x[0], &statistics, &x[1], &x[2]])
        }
        "batch_norm_inference" => {
            let statistics = build.add(Operator::Stack, &[&x[3], &x[4]]);
            build.add(Operator::BatchNormalize, &[&x[0], &statistics, &x[1], &x[2]])
        }
        "local_response_norm" => {
            let value = |key| number(case, key) as f32;
            let attributes =
                LocalResponse { size: size("n"), alpha: value("alpha"), beta: value("beta"), k: value("k") };
            build.add(Operator::LocalResponse(attributes), &all)
        }
        "softmax_cross_entropy" => build.add(Operator::CrossEntropy, &all),
        "dropout" => build.add(Operator::Dropout(Dropout { rate: number(case, "p") as f32, layer: 1 }), &all),
        "add" => build.add(Operator::Add, &all),
        other => panic!("no test for the operator {other}"),
    }
}

fn check(golden: &Golden, case: &Json, machine: &mut impl Machine) -> f64 {
    let name = text(case, "name");
    let subject = subject(golden, case);
    let results = subject.evaluate(machine);
    let compare = |tensor: &str, result: &str| {
        let expected = widen(&golden.tensor(&format!("{name}/{tensor}")).values);
        assert_close(&format!("{name}/{tensor}"), &results[result], &expected, RELATIVE, ABSOLUTE)
    };
    let mut shares: Vec<f64> = Vec::new();
    match text(case, "operator") {
        "dropout" => check_dropout(golden, name, &results["y"], &results["dx"]),
        "softmax_cross_entropy" => shares.push(compare("loss", "y")),
        "batch_norm_training" => {
            shares.push(compare("y", "y"));
            shares.push(compare("new_running_mean", "running_mean"));
            shares.push(compare("new_running_var", "running_var"));
        }
        _ => shares.push(compare("y", "y")),
    }
    if text(case, "operator") != "dropout" {
        let wanted = subject.inputs.iter().filter(|input| input.wanted);
        shares.extend(wanted.map(|input| format!("d{}", input.name)).map(|d| compare(&d, &d)));
    }
    shares.into_iter().fold(0.0, f64::max)
}

/// Our mask is another one than PyTorch's: where both keep a value they must agree, where ours drops it is 0 in y and dx.
fn check_dropout(golden: &Golden, name: &str, y: &[f64], dx: &[f64]) {
    let tensor = |suffix: &str| &golden.tensor(&format!("{name}/{suffix}")).values;
    let mut both = 0;
    for i in 0..y.len() {
        let ours = y[i] != 0.0;
        assert_eq!(ours, dx[i] != 0.0, "{name}: y and dx at {i} have the same mask");
        if ours && tensor("mask")[i] == 1.0 {
            both += 1;
            assert_close(name, &[y[i], dx[i]], &[tensor("y")[i].into(), tensor("dx")[i].into()], RELATIVE, ABSOLUTE);
        }
    }
    assert!(both * 8 > y.len(), "{name}: {both} values of {} were compared", y.len());
}
