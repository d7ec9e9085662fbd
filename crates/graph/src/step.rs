//! Graphs of a whole step, and the states they share.

use luminal::prelude::Graph;
use plan::{Decay, Optimizer, Train};

use crate::{
    Builder, LayerKind, Network, Operator, State, Value,
    operators::{
        Dropout, Rule, dropout,
        update::{self, HYPER},
    },
};

/// Share of a new batch's statistics in the running ones, as PyTorch's default.
const RUNNING_MOMENTUM: f32 = 0.1;

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weights of a convolution [O, C/g, KH, KW] or linear layer [O, I].
    Weight,
    /// Its bias \[O\].
    Bias,
    /// Scale of a batch normalization \[C\].
    Gamma,
    /// Shift of a batch normalization \[C\].
    Beta,
}

/// A trained tensor with the optimizer's moments.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// `conv1.weight`, in PyTorch's layout.
    pub values: State,
    /// What it is to its layer.
    pub role: Role,
    /// Name of its layer.
    pub layer: String,
    /// Inputs that one output sums over.
    pub fan_in: usize,
    /// Outputs that one input feeds (times the kernel's size).
    pub fan_out: usize,
    /// Momentum; for Adam both moments; last the average, if there is one. A frozen one has none.
    pub moments: Vec<State>,
    /// Exponential moving average of the values, which is evaluated and kept in their place.
    pub average: Option<State>,
    /// It stays as it starts (`train.freeze`).
    pub is_frozen: bool,
}

impl Parameter {
    /// What evaluations use and weights files hold: the average, or the values where there is none.
    pub fn evaluated(&self) -> &State {
        self.average.as_ref().unwrap_or(&self.values)
    }
}

/// Everything of a network that outlives a step. Shared by its training and evaluation graphs.
#[derive(Clone, Debug)]
pub struct Variables {
    /// The network they belong to.
    pub network: Network,
    /// In layer order.
    pub parameters: Vec<Parameter>,
    /// `norm1.running_mean`, `norm1.running_var`, …, in layer order.
    pub running: Vec<State>,
    /// Hyperparameters of the optimizer; positions in [`update`].
    pub hyper: State,
    /// Key of dropout [[`dropout::KEY`]].
    pub key: State,
}

/// States through which one graph's batch goes in and its results come out.
#[derive(Clone, Debug)]
pub struct Batch {
    /// [N, C, H, W], normalized.
    pub images: State,
    /// [N, K]: class probabilities.
    pub targets: State,
    /// \[1\]: mean cross-entropy without penalty. Training only.
    pub loss: State,
    /// [N, K]: logits.
    pub logits: State,
}

impl Variables {
    /// Zeroed states for a network and an optimizer; memory is taken at first use.
    pub fn new(network: &Network, optimizer: Optimizer) -> Self {
        let moments = rule(optimizer, false, false, false).moments();
        let mut parameters = Vec::new();
        let mut running = Vec::new();
        let mut parameter = |layer: &str, suffix: &str, shape: &[usize], role, fan_in, fan_out| {
            let name = format!("{layer}.{suffix}");
            let moments = (0..moments).map(|i| State::new(format!("{name}.moment{}", i + 1), shape)).collect();
            let values = State::new(name, shape);
            parameters.push(Parameter {
                values,
                role,
                layer: layer.to_owned(),
                fan_in,
                fan_out,
                moments,
                average: None,
                is_frozen: false,
            });
        };
        for layer in &network.layers {
            match &layer.kind {
                LayerKind::Convolution { outputs, kernel, attributes } => {
                    let window = kernel * kernel;
                    let (fan_in, fan_out) =
                        (layer.input[0] / attributes.groups * window, outputs / attributes.groups * window);
                    let shape = [*outputs, layer.input[0] / attributes.groups, *kernel, *kernel];
                    parameter(&layer.name, "weight", &shape, Role::Weight, fan_in, fan_out);
                    parameter(&layer.name, "bias", &[*outputs], Role::Bias, fan_in, fan_out);
                }
                LayerKind::Linear { outputs } => {
                    parameter(
                        &layer.name,
                        "weight",
                        &[*outputs, layer.input[0]],
                        Role::Weight,
                        layer.input[0],
                        *outputs,
                    );
                    parameter(&layer.name, "bias", &[*outputs], Role::Bias, layer.input[0], *outputs);
                }
                LayerKind::BatchNorm => {
                    let channels = [layer.input[0]];
                    parameter(&layer.name, "weight", &channels, Role::Gamma, 1, 1);
                    parameter(&layer.name, "bias", &channels, Role::Beta, 1, 1);
                    running.push(State::new(format!("{}.running_mean", layer.name), &channels));
                    running.push(State::new(format!("{}.running_var", layer.name), &channels));
                }
                LayerKind::LocalResponse(_)
                | LayerKind::Activation(_)
                | LayerKind::MaxPool(_)
                | LayerKind::AveragePool(_)
                | LayerKind::Flatten
                | LayerKind::Dropout(_) => {}
            }
        }
        Self {
            network: network.clone(),
            parameters,
            running,
            hyper: State::new("hyper", &[HYPER]),
            key: State::new("key", &[dropout::KEY]),
        }
    }

    /// [`Self::new`] for these settings of training: with frozen layers, and with averages if they are asked for.
    pub fn for_training(network: &Network, train: &Train) -> Self {
        let mut variables = Self::new(network, train.optimizer);
        for parameter in variables.parameters.iter_mut().filter(|parameter| train.freezes(&parameter.layer)) {
            parameter.is_frozen = true;
            parameter.moments.clear();
        }
        if train.average_decay.is_some() {
            for parameter in variables.parameters.iter_mut().filter(|parameter| !parameter.is_frozen) {
                let average = State::new(format!("{}.average", parameter.values.name()), parameter.values.shape());
                parameter.moments.push(average.clone());
                parameter.average = Some(average);
            }
        }
        variables
    }

    /// Every state that a checkpoint must hold: parameters, running statistics, moments.
    pub fn persistent(&self) -> impl Iterator<Item = &State> {
        let values = self.parameters.iter().map(|p| &p.values);
        values.chain(&self.running).chain(self.parameters.iter().flat_map(|p| &p.moments))
    }

    /// Bytes of all states at f32.
    pub fn bytes(&self) -> usize {
        self.persistent().map(|state| state.elements() * size_of::<f32>()).sum()
    }

    fn batch(&self, size: usize) -> Batch {
        let [c, h, w] = self.network.input;
        let classes = self.network.classes;
        Batch {
            images: State::new("images", &[size, c, h, w]),
            targets: State::new("targets", &[size, classes]),
            loss: State::new("loss", &[1]),
            logits: State::new("logits", &[size, classes]),
        }
    }

    /// Logits for a batch of images. In training, statistics come from the batch unless their layer is frozen, running ones follow, and
    /// dropout drops.
    fn forward(&self, build: &mut Builder, images: Value, training: bool) -> Value {
        let mut parameters = self.parameters.iter();
        let mut running = self.running.iter();
        let mut x = images;
        let mut dropouts = 0;
        for layer in &self.network.layers {
            let mut is_frozen = false;
            let mut next = |build: &mut Builder| {
                let parameter = parameters.next().expect("variables were made for this network");
                is_frozen = parameter.is_frozen;
                build.source(if training { &parameter.values } else { parameter.evaluated() })
            };
            x = match &layer.kind {
                LayerKind::Convolution { attributes, .. } => {
                    let (w, b) = (next(build), next(build));
                    build.add(Operator::Convolution(*attributes), &[&x, &w, &b])
                }
                LayerKind::Linear { .. } => {
                    let (w, b) = (next(build), next(build));
                    build.add(Operator::Linear, &[&x, &w, &b])
                }
                LayerKind::BatchNorm => {
                    let (gamma, beta) = (next(build), next(build));
                    let mut state = || running.next().expect("variables were made for this network");
                    let (mean, variance) = (build.source(state()), build.source(state()));
                    let statistics = if training && !is_frozen {
                        let statistics = build.add(Operator::BatchStatistics, &[&x]);
                        let count = x.shape[0] * x.shape[2..].iter().product::<usize>();
                        build.add(Operator::UpdateRunning(RUNNING_MOMENTUM, count), &[&mean, &variance, &statistics]);
                        statistics
                    } else {
                        build.add(Operator::Stack, &[&mean, &variance])
                    };
                    build.add(Operator::BatchNormalize, &[&x, &statistics, &gamma, &beta])
                }
                LayerKind::LocalResponse(attributes) => build.add(Operator::LocalResponse(*attributes), &[&x]),
                LayerKind::Activation(kind) => build.add(Operator::Activation(*kind), &[&x]),
                LayerKind::MaxPool(pool) => build.add(Operator::MaxPool(*pool), &[&x]),
                LayerKind::AveragePool(pool) => build.add(Operator::AveragePool(*pool), &[&x]),
                LayerKind::Flatten => {
                    let shape = vec![x.shape[0], x.shape[1..].iter().product()];
                    build.add(Operator::Reshape(shape), &[&x])
                }
                LayerKind::Dropout(rate) => {
                    dropouts += 1;
                    if training {
                        let key = build.source(&self.key);
                        build.add(Operator::Dropout(Dropout { rate: *rate, layer: dropouts }), &[&x, &key])
                    } else {
                        x
                    }
                }
            };
        }
        x
    }

    /// One training step for batches of `size`: forward, loss, gradients (as placeholders for [`crate::Autograd`]), update.
    pub fn training_graph(&self, size: usize, train: &Train) -> (Box<Graph>, Batch) {
        let batch = self.batch(size);
        let mut graph = Box::new(Graph::new());
        let mut build = Builder::new(&mut graph);
        let (images, targets) = (build.source(&batch.images), build.source(&batch.targets));
        let logits = self.forward(&mut build, images, true);
        let loss = build.add(Operator::CrossEntropy, &[&logits, &targets]);
        build.store(&logits, &batch.logits);
        build.store(&loss, &batch.loss);
        let hyper = build.source(&self.hyper);
        let trained: Vec<&Parameter> = self.parameters.iter().filter(|parameter| !parameter.is_frozen).collect();
        let values: Vec<Value> = trained.iter().map(|p| build.source(&p.values)).collect();
        let gradients: Vec<Value> = values.iter().map(|value| build.add(Operator::Gradient, &[&loss, value])).collect();
        let clip = train.gradient_clip.map(|_| {
            let inputs: Vec<&Value> = gradients.iter().chain([&hyper]).collect();
            build.add(Operator::ClipFactor, &inputs)
        });
        for ((parameter, value), gradient) in trained.iter().zip(&values).zip(&gradients) {
            let decays = train.decay == Decay::All || parameter.role == Role::Weight;
            let moments: Vec<Value> = parameter.moments.iter().map(|m| build.source(m)).collect();
            let inputs: Vec<&Value> = [value, gradient, &hyper].into_iter().chain(&moments).chain(&clip).collect();
            let rule = rule(train.optimizer, train.nesterov, decays, parameter.average.is_some());
            build.add(Operator::Update(rule), &inputs);
        }
        (graph, batch)
    }

    /// Logits of `size` images with running statistics and without dropout.
    pub fn evaluation_graph(&self, size: usize) -> (Box<Graph>, Batch) {
        let batch = self.batch(size);
        let mut graph = Box::new(Graph::new());
        let mut build = Builder::new(&mut graph);
        let images = build.source(&batch.images);
        let logits = self.forward(&mut build, images, false);
        build.store(&logits, &batch.logits);
        (graph, batch)
    }

    /// Sets the hyperparameters of the step to come. `step` counts from 1.
    pub fn set_hyper(&self, train: &Train, learning_rate: f64, step: u64) {
        let mut hyper = self.hyper.write();
        hyper[update::LEARNING_RATE] = learning_rate as f32;
        hyper[update::WEIGHT_DECAY] = train.weight_decay as f32;
        hyper[update::MOMENTUM] = train.momentum as f32;
        hyper[update::BETA2] = train.beta2 as f32;
        hyper[update::EPSILON] = 1e-8;
        hyper[update::CORRECTION1] = (1.0 - train.momentum.powf(step as f64)) as f32;
        hyper[update::CORRECTION2] = (1.0 - train.beta2.powf(step as f64)) as f32;
        hyper[update::CLIP_NORM] = train.gradient_clip.unwrap_or(f64::INFINITY) as f32;
        // At first the mean of few steps, so that the start is forgotten soon.
        let warm = (step as f64 - 1.0) / (step as f64 + 9.0);
        hyper[update::AVERAGE_DECAY] = train.average_decay.unwrap_or(0.0).min(warm) as f32;
    }
}

fn rule(optimizer: Optimizer, nesterov: bool, decay: bool, average: bool) -> Rule {
    match optimizer {
        Optimizer::Sgd => Rule::Sgd { nesterov, decay, average },
        Optimizer::Adam => Rule::Adam { decoupled: false, decay, average },
        Optimizer::Adamw => Rule::Adam { decoupled: true, decay, average },
    }
}
