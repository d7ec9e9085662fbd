//! `lenet5_trace.safetensors` and `alexnet_trace.safetensors`: whole training runs.

use graph::{
    Builder, Network, Operator, State, Value, node, nodes_in_order,
    step::{Batch, Variables},
};
use luminal::prelude::Graph;
use plan::{Activation, Architecture, Decay, Model, Normalization, Stem, Train};
use serde_json::Value as Json;

use super::{
    golden::{Golden, assert_close, number, text, widen},
    machine::Machine,
    optimizers::optimizer,
    random::sample,
};

/// First sample of the evaluation batch.
const EVALUATION: u64 = 1_000_000;

/// What a run took of its tolerances, as shares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shares {
    pub first_logits: f64,
    pub losses: f64,
    pub gradients: f64,
    pub last: f64,
}

fn model(case: &Json) -> Model {
    let alexnet = text(case, "architecture") == "alexnet";
    Model {
        architecture: if alexnet { Architecture::AlexNet } else { Architecture::LeNet5 },
        activation: Some(match text(case, "activation") {
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            other => panic!("no activation {other}"),
        }),
        normalization: Some(match text(case, "normalization") {
            "batch" => Normalization::Batch,
            "local-response" => Normalization::LocalResponse,
            "none" => Normalization::None,
            other => panic!("no normalization {other}"),
        }),
        dropout: Some(0.0),
        overlapping_pooling: alexnet.then(|| case["overlapping_pooling"].as_bool().expect("a bool")),
        towers: alexnet.then(|| number(case, "towers") as usize),
        stem: match case["stem"].as_str() {
            Some("small") => Some(Stem::Small),
            Some("large") => Some(Stem::Large),
            _ => None,
        },
        width: alexnet.then_some(1.0 / 16.0),
        ..Model::default()
    }
}

struct Run<'a> {
    golden: &'a Golden,
    name: &'a str,
    case: &'a Json,
    train: Train,
    size: usize,
    variables: Variables,
}

impl<'a> Run<'a> {
    fn new(golden: &'a Golden, case: &'a Json) -> Self {
        let train = Train {
            optimizer: optimizer(text(case, "optimizer")),
            momentum: number(case, "momentum"),
            beta2: number(case, "beta2"),
            nesterov: case["nesterov"].as_bool().expect("a bool"),
            weight_decay: number(case, "weight_decay"),
            decay: if text(case, "decay") == "all" { Decay::All } else { Decay::Weights },
            ..Train::default()
        };
        let side = |i: usize| case["input"][i].as_u64().expect("an extent") as usize;
        let network = Network::new(&model(case), [side(0), side(1), side(2)], number(case, "classes") as usize);
        let network = network.expect("the golden networks can be built");
        assert_eq!(network.parameters(), number(case, "parameters") as usize, "parameters of {case}");
        let variables = Variables::new(&network, train.optimizer);
        Self { golden, name: text(case, "name"), case, train, size: number(case, "batch_size") as usize, variables }
    }

    /// All that outlives a step as it was before the first.
    fn start(&self, machine: &mut impl Machine) {
        let moments = self.variables.parameters.iter().flat_map(|p| &p.moments);
        moments.for_each(|m| machine.set(m, &vec![0.0; m.elements()]));
        for state in self.weights() {
            let own = self.golden.find(&format!("{}/initial/{}", self.name, state.name()));
            let tensor = own.unwrap_or_else(|| self.golden.tensor(&format!("initial/{}", state.name())));
            assert_eq!(tensor.shape, state.shape(), "{}: {}", self.name, state.name());
            machine.set(state, &tensor.values);
        }
    }

    fn weights(&self) -> impl Iterator<Item = &State> {
        self.variables.parameters.iter().map(|p| &p.values).chain(&self.variables.running)
    }

    fn feed(&self, batch: &Batch, first: u64, machine: &mut impl Machine) {
        let elements = batch.images.elements() / self.size;
        let classes = batch.targets.shape()[1];
        let (mut images, mut targets) = (Vec::new(), vec![0.0; self.size * classes]);
        for i in 0..self.size {
            let (label, pixels) = sample(first + i as u64, elements);
            images.extend(pixels);
            targets[i * classes + label] = 1.0;
        }
        machine.set(&batch.images, &images);
        machine.set(&batch.targets, &targets);
    }

    fn rate(&self, step: u64, machine: &mut impl Machine) {
        self.variables.set_hyper(&self.train, number(self.case, "learning_rate"), step);
        let hyper = self.variables.hyper.read().to_vec();
        machine.set(&self.variables.hyper, &hyper);
    }

    fn expect(&self, tensor: &str, got: &[f64], relative: f64, absolute: f64) -> f64 {
        let expected = widen(&self.golden.tensor(&format!("{}/{tensor}", self.name)).values);
        assert_close(&format!("{}/{tensor}", self.name), got, &expected, relative, absolute)
    }

    /// One step whose gradients are kept besides.
    fn first_step(&self, machine: &mut impl Machine, shares: &mut Shares) {
        let (mut graph, batch) = self.variables.training_graph(self.size, &self.train);
        let gradients = keep_gradients(&mut graph);
        machine.compile(&mut graph);
        self.start(machine);
        self.feed(&batch, 0, machine);
        self.rate(1, machine);
        machine.run(&mut graph);
        shares.first_logits = self.expect("first_logits", &machine.get(&batch.logits), 1e-4, 1e-7);
        let expected = self.golden.names(&format!("{}/gradients/", self.name));
        assert!(!expected.is_empty(), "{}: no gradients", self.name);
        for name in expected {
            let got = machine.get(&gradients.iter().find(|g| g.name() == name).expect("a parameter").clone());
            let normalized = text(self.case, "normalization") == "batch";
            if normalized && name.starts_with("conv") && name.ends_with(".bias") {
                assert!(got.iter().all(|g| g.abs() <= 1e-5), "{}: gradient of {name}: {got:?}", self.name);
                continue;
            }
            shares.gradients = shares.gradients.max(self.expect(&format!("gradients/{name}"), &got, 1e-4, 1e-7));
        }
    }

    fn all_steps(&self, machine: &mut impl Machine, shares: &mut Shares) {
        let (mut graph, batch) = self.variables.training_graph(self.size, &self.train);
        machine.compile(&mut graph);
        self.start(machine);
        let steps = number(self.case, "steps") as u64;
        let mut losses = Vec::new();
        for step in 0..steps {
            self.feed(&batch, step * self.size as u64, machine);
            self.rate(step + 1, machine);
            machine.run(&mut graph);
            losses.extend(machine.get(&batch.loss));
        }
        shares.losses = self.expect("losses", &losses, 0.0, 1e-3);
        let relative = f64::max(1e-4, 10.0 * number(self.case, "final_noise"));
        for name in self.golden.names(&format!("{}/final/", self.name)) {
            let state = self.weights().find(|s| s.name() == name).expect("a parameter or running statistic");
            shares.last = shares.last.max(self.expect(&format!("final/{name}"), &machine.get(state), relative, 1e-7));
        }
        let (mut graph, batch) = self.variables.evaluation_graph(self.size);
        machine.compile(&mut graph);
        self.feed(&batch, EVALUATION, machine);
        machine.run(&mut graph);
        let logits = machine.get(&batch.logits);
        shares.last = shares.last.max(self.expect("evaluation_logits", &logits, relative, 1e-7));
    }
}

/// Stores every gradient that the graph's placeholders stand for, in states named after the parameters.
pub fn keep_gradients(graph: &mut Graph) -> Vec<State> {
    let placeholders: Vec<_> = nodes_in_order(graph)
        .into_iter()
        .filter(|&index| node(graph, index).is_some_and(|n| n.operator == Operator::Gradient))
        .collect();
    let keep = |index| {
        let (parameter, ..) = graph.get_sources(index)[1];
        let Operator::Source(state) = &node(graph, parameter).expect("ours").operator else { panic!("not a source") };
        let kept = State::new(state.name(), state.shape());
        let value = Value { node: index, shape: state.shape().to_vec() };
        Builder::new(graph).store(&value, &kept);
        kept
    };
    placeholders.into_iter().map(keep).collect()
}

/// Runs the cases of a file that `wanted` takes; returns their names and shares.
pub fn check(file: &str, machine: &mut impl Machine, wanted: impl Fn(&str) -> bool) -> Vec<(String, Shares)> {
    let golden = Golden::open(file);
    let cases = golden.cases.iter().filter(|case| wanted(text(case, "name")));
    let shares = cases.map(|case| {
        let run = Run::new(&golden, case);
        let mut shares = Shares::default();
        run.first_step(machine, &mut shares);
        run.all_steps(machine, &mut shares);
        (run.name.to_owned(), shares)
    });
    shares.collect()
}
