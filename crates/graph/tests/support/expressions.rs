//! Every differentiable operator, and chains of them, over shapes given at run time.

use graph::{
    Builder, Operator, Value,
    operators::{Activation, Convolution, Dropout, LocalResponse, Pool},
};

use super::{
    random::{apart, eighths, uniform, word},
    subject::{Input, Subject},
};

/// Sizes of an image batch.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    pub n: usize,
    pub c: usize,
    pub h: usize,
    pub w: usize,
}

impl Images {
    pub fn shape(self) -> Vec<usize> {
        vec![self.n, self.c, self.h, self.w]
    }
    fn elements(self) -> usize {
        self.n * self.c * self.h * self.w
    }
}

fn input(name: &str, shape: &[usize], values: Vec<f32>) -> Input {
    Input { name: name.to_owned(), shape: shape.to_vec(), values, wanted: true }
}

fn constant(name: &str, shape: &[usize], values: Vec<f32>) -> Input {
    Input { wanted: false, ..input(name, shape, values) }
}

/// An expression whose upstream gradient has as many values as y, which a first build tells.
fn subject(seed: u64, inputs: Vec<Input>, forward: impl Fn(&mut Builder, &[Value]) -> Value + 'static) -> Subject {
    let mut subject = Subject { inputs, forward: Box::new(forward), dy: None };
    let elements = subject.build().results[0].1.elements();
    subject.dy = Some(uniform(seed + 900, elements));
    subject
}

fn weights(seed: u64, n: usize, fan_in: usize) -> Vec<f32> {
    let scale = (3.0 / fan_in as f32).sqrt();
    uniform(seed, n).into_iter().map(|v| v * scale).collect()
}

/// `o` output channels per group; x has `c` channels per group.
pub fn convolution(seed: u64, x: Images, o: usize, kernel: (usize, usize), attributes: Convolution) -> Subject {
    let g = attributes.groups;
    let x = Images { c: x.c * g, ..x };
    let w = [o * g, x.c / g, kernel.0, kernel.1];
    let fan_in = w[1..].iter().product();
    let inputs = vec![
        input("x", &x.shape(), uniform(seed, x.elements())),
        input("w", &w, weights(seed + 1, w.iter().product(), fan_in)),
        input("b", &w[..1], uniform(seed + 2, w[0])),
    ];
    subject(seed, inputs, move |build, x| build.add(Operator::Convolution(attributes), &[&x[0], &x[1], &x[2]]))
}

pub fn linear(seed: u64, rows: usize, inputs: usize, outputs: usize) -> Subject {
    let inputs = vec![
        input("x", &[rows, inputs], uniform(seed, rows * inputs)),
        input("w", &[outputs, inputs], weights(seed + 1, inputs * outputs, inputs)),
        input("b", &[outputs], uniform(seed + 2, outputs)),
    ];
    subject(seed, inputs, |build, x| build.add(Operator::Linear, &[&x[0], &x[1], &x[2]]))
}

pub fn activation(seed: u64, kind: Activation, x: Images) -> Subject {
    let inputs = vec![input("x", &x.shape(), apart(seed, x.elements()))];
    subject(seed, inputs, move |build, x| build.add(Operator::Activation(kind), &[&x[0]]))
}

pub fn max_pool(seed: u64, x: Images, pool: Pool) -> Subject {
    let inputs = vec![input("x", &x.shape(), apart(seed, x.elements()))];
    subject(seed, inputs, move |build, x| build.add(Operator::MaxPool(pool), &[&x[0]]))
}

pub fn average_pool(seed: u64, x: Images, pool: Pool) -> Subject {
    let inputs = vec![input("x", &x.shape(), uniform(seed, x.elements()))];
    subject(seed, inputs, move |build, x| build.add(Operator::AveragePool(pool), &[&x[0]]))
}

fn normalize(build: &mut Builder, x: &Value, gamma: &Value, beta: &Value) -> Value {
    let statistics = build.add(Operator::BatchStatistics, &[x]);
    build.add(Operator::BatchNormalize, &[x, &statistics, gamma, beta])
}

/// Through the statistics of the batch; the running ones move.
pub fn batch_norm(seed: u64, x: Images) -> Subject {
    let inputs = vec![
        input("x", &x.shape(), uniform(seed, x.elements())),
        input("gamma", &[x.c], uniform(seed + 1, x.c)),
        input("beta", &[x.c], uniform(seed + 2, x.c)),
        constant("mean", &[x.c], uniform(seed + 3, x.c)),
        constant("variance", &[x.c], uniform(seed + 4, x.c)),
    ];
    let count = x.n * x.h * x.w;
    subject(seed, inputs, move |build, x| {
        let statistics = build.add(Operator::BatchStatistics, &[&x[0]]);
        build.add(Operator::UpdateRunning(0.1, count), &[&x[3], &x[4], &statistics]);
        build.add(Operator::BatchNormalize, &[&x[0], &statistics, &x[1], &x[2]])
    })
}

/// With constant statistics.
pub fn batch_norm_inference(seed: u64, x: Images) -> Subject {
    let inputs = vec![
        input("x", &x.shape(), uniform(seed, x.elements())),
        input("gamma", &[x.c], uniform(seed + 1, x.c)),
        input("beta", &[x.c], uniform(seed + 2, x.c)),
        constant("mean", &[x.c], uniform(seed + 3, x.c)),
        constant("variance", &[x.c], uniform(seed + 4, x.c).into_iter().map(|v| v + 1.1).collect()),
    ];
    subject(seed, inputs, |build, x| {
        let statistics = build.add(Operator::Stack, &[&x[3], &x[4]]);
        build.add(Operator::BatchNormalize, &[&x[0], &statistics, &x[1], &x[2]])
    })
}

pub fn local_response(seed: u64, x: Images, attributes: LocalResponse) -> Subject {
    let inputs = vec![input("x", &x.shape(), uniform(seed, x.elements()))];
    subject(seed, inputs, move |build, x| build.add(Operator::LocalResponse(attributes), &[&x[0]]))
}

/// Targets that sum to one only roughly, as nothing says they must.
pub fn cross_entropy(seed: u64, rows: usize, classes: usize) -> Subject {
    let targets = uniform(seed + 1, rows * classes).into_iter().map(|v| (v + 1.0) / classes as f32).collect();
    let logits = uniform(seed, rows * classes).into_iter().map(|v| v * 5.0).collect();
    let inputs = vec![input("x", &[rows, classes], logits), constant("targets", &[rows, classes], targets)];
    let forward = |build: &mut Builder, x: &[Value]| build.add(Operator::CrossEntropy, &[&x[0], &x[1]]);
    Subject { inputs, forward: Box::new(forward), dy: None }
}

fn key(seed: u64) -> Input {
    constant("key", &[4], (0..4).map(|i| (word(seed, i) >> 40) as f32).collect())
}

pub fn dropout(seed: u64, x: Images, rate: f32) -> Subject {
    let inputs = vec![input("x", &x.shape(), uniform(seed, x.elements())), key(seed)];
    let dropout = Dropout { rate, layer: 1 };
    subject(seed, inputs, move |build, x| build.add(Operator::Dropout(dropout), &[&x[0], &x[1]]))
}

pub fn add(seed: u64, x: Images) -> Subject {
    let inputs = vec![
        input("a", &x.shape(), uniform(seed, x.elements())),
        input("b", &x.shape(), uniform(seed + 1, x.elements())),
    ];
    subject(seed, inputs, |build, x| build.add(Operator::Add, &[&x[0], &x[1]]))
}

/// tanh(x) + tanh(x) + x, so that one value has several readers.
pub fn shared(seed: u64, x: Images) -> Subject {
    let inputs = vec![input("x", &x.shape(), uniform(seed, x.elements()))];
    subject(seed, inputs, |build, x| {
        let y = build.add(Operator::Activation(Activation::Tanh), &[&x[0]]);
        let twice = build.add(Operator::Add, &[&y, &y]);
        build.add(Operator::Add, &[&twice, &x[0]])
    })
}

/// Inputs of a 3×3 convolution in exact numbers: ReLU and max pooling decide alike in f32 and f64.
fn exact(seed: u64, x: Images, o: usize) -> Vec<Input> {
    vec![
        input("x", &x.shape(), eighths(seed, x.elements())),
        input("w", &[o, x.c, 3, 3], eighths(seed + 1, o * x.c * 9)),
        input("b", &[o], eighths(seed + 2, o)),
    ]
}

const SAME: Convolution = Convolution { stride: 1, padding: 1, groups: 1 };

/// convolution → activation → max pool: the activation joins the convolution.
pub fn convolution_activation_pool(seed: u64, x: Images, o: usize, kind: Activation, pool: Pool) -> Subject {
    subject(seed, exact(seed, x, o), move |build, x| {
        let y = build.add(Operator::Convolution(SAME), &[&x[0], &x[1], &x[2]]);
        // Eighths of sums of eighths reach far into saturation: bring them back.
        let statistics = build.add(Operator::BatchStatistics, &[&y]);
        let one = build.add(Operator::Fill(1.0, vec![o]), &[]);
        let third = build.add(Operator::Fill(0.3, vec![o]), &[]);
        let y = if kind == Activation::Relu {
            y
        } else {
            build.add(Operator::BatchNormalize, &[&y, &statistics, &one, &third])
        };
        let y = build.add(Operator::Activation(kind), &[&y]);
        build.add(Operator::MaxPool(pool), &[&y])
    })
}

/// convolution → batch norm → ReLU → max pool → dropout, as AlexNet's blocks go.
pub fn block(seed: u64, x: Images, o: usize, pool: Pool) -> Subject {
    let mut inputs = exact(seed, x, o);
    inputs.push(input("gamma", &[o], apart(seed + 3, o)));
    inputs.push(input("beta", &[o], apart(seed + 4, o)));
    inputs.push(key(seed));
    subject(seed, inputs, move |build, x| {
        let y = build.add(Operator::Convolution(SAME), &[&x[0], &x[1], &x[2]]);
        let y = normalize(build, &y, &x[3], &x[4]);
        let y = build.add(Operator::Activation(Activation::Relu), &[&y]);
        let y = build.add(Operator::MaxPool(pool), &[&y]);
        build.add(Operator::Dropout(Dropout { rate: 0.3, layer: 2 }), &[&y, &x[5]])
    })
}

/// What else becomes of a normalized value that is pooled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// It is pooled once more.
    Pool,
    /// It is squashed, and that is pooled.
    Squash,
}

/// batch norm → activation, if there is one → max pool, and what goes on beside.
pub fn pool_of_normalized(seed: u64, x: Images, kind: Option<Activation>, pool: Pool, beside: Beside) -> Subject {
    let inputs = vec![
        input("x", &x.shape(), apart(seed, x.elements())),
        input("gamma", &[x.c], apart(seed + 1, x.c)),
        input("beta", &[x.c], apart(seed + 2, x.c)),
    ];
    subject(seed, inputs, move |build, x| {
        let mut y = normalize(build, &x[0], &x[1], &x[2]);
        if let Some(kind) = kind {
            y = build.add(Operator::Activation(kind), &[&y]);
        }
        let pooled = build.add(Operator::MaxPool(pool), &[&y]);
        let other = match beside {
            Beside::Nothing => return pooled,
            Beside::Pool => y,
            Beside::Squash => build.add(Operator::Activation(Activation::Tanh), &[&y]),
        };
        let other = build.add(Operator::MaxPool(pool), &[&other]);
        build.add(Operator::Add, &[&pooled, &other])
    })
}

/// linear → ReLU → dropout → linear → tanh.
pub fn hidden(seed: u64, rows: usize, inputs: usize, width: usize) -> Subject {
    let inputs = vec![
        input("x", &[rows, inputs], eighths(seed, rows * inputs)),
        input("w1", &[width, inputs], eighths(seed + 1, width * inputs)),
        input("b1", &[width], eighths(seed + 2, width)),
        input("w2", &[3, width], weights(seed + 3, 3 * width, width * inputs)),
        input("b2", &[3], eighths(seed + 4, 3)),
        key(seed),
    ];
    subject(seed, inputs, |build, x| {
        let y = build.add(Operator::Linear, &[&x[0], &x[1], &x[2]]);
        let y = build.add(Operator::Activation(Activation::Relu), &[&y]);
        let y = build.add(Operator::Dropout(Dropout { rate: 0.5, layer: 1 }), &[&y, &x[5]]);
        let y = build.add(Operator::Linear, &[&y, &x[3], &x[4]]);
        build.add(Operator::Activation(Activation::Tanh), &[&y])
    })
}

/// Two convolutions of one input with the same weights and another, added, flattened, squashed and summed up.
pub fn branches(seed: u64, x: Images, o: usize) -> Subject {
    let mut inputs = exact(seed, x, o);
    inputs.push(input("v", &[o, x.c, 3, 3], weights(seed + 3, o * x.c * 9, x.c * 9)));
    inputs.push(input("u", &[2, o * x.h * x.w], weights(seed + 4, 2 * o * x.h * x.w, o * x.h * x.w)));
    inputs.push(input("a", &[2], uniform(seed + 5, 2)));
    subject(seed, inputs, move |build, x| {
        let left = build.add(Operator::Convolution(SAME), &[&x[0], &x[1], &x[2]]);
        let left = build.add(Operator::Activation(Activation::Sigmoid), &[&left]);
        let right = build.add(Operator::Convolution(SAME), &[&x[0], &x[3], &x[2]]);
        let sum = build.add(Operator::Add, &[&left, &right]);
        let flat = build.add(Operator::Reshape(vec![sum.shape[0], sum.shape[1..].iter().product()]), &[&sum]);
        let y = build.add(Operator::Activation(Activation::Tanh), &[&flat]);
        build.add(Operator::Linear, &[&y, &x[4], &x[5]])
    })
}

/// A random chain with branches, of smooth operators: what fusion, the memory plan and the sums of gradients must
/// get right whatever stands beside what.
pub fn random(seed: u64, x: Images, length: usize) -> Subject {
    let [fan_in, c] = [x.c * 9, x.c];
    let inputs = vec![
        input("x", &x.shape(), uniform(seed, x.elements())),
        input("w", &[c, c, 3, 3], weights(seed + 1, c * fan_in, fan_in)),
        input("b", &[c], uniform(seed + 2, c)),
        input("gamma", &[c], uniform(seed + 3, c).into_iter().map(|v| v + 1.5).collect()),
        key(seed),
    ];
    subject(seed, inputs, move |build, inputs| {
        let [_, w, b, gamma, key] = inputs else { unreachable!("five inputs") };
        let mut values = vec![inputs[0].clone()];
        let mut used = vec![false];
        for step in 0..length as u64 {
            let draw = |i: u64, n: usize| (word(seed + 5, step * 8 + i) >> 11) as usize % n;
            // Mostly the newest value, so that there are chains.
            let pick = |i: u64| if draw(i, 3) > 0 { values.len() - 1 } else { draw(i + 1, values.len()) };
            let (i, j) = (pick(0), pick(2));
            let (a, other) = (&values[i], &values[j]);
            let shape = a.shape.clone();
            let y = match draw(4, 10) {
                0 | 1 => build.add(Operator::Activation(Activation::Tanh), &[a]),
                2 => build.add(Operator::Activation(Activation::Sigmoid), &[a]),
                3 | 4 => build.add(Operator::Add, &[a, other]),
                5 => {
                    let layer = 1 + step as u32;
                    build.add(Operator::Dropout(Dropout { rate: 0.2, layer }), &[a, key])
                }
                6 => build.add(Operator::Convolution(SAME), &[a, w, b]),
                7 => normalize(build, a, gamma, b),
                8 => {
                    let flat = build.add(Operator::Reshape(vec![shape[0], shape[1..].iter().product()]), &[a]);
                    let flat = build.add(Operator::Activation(Activation::Tanh), &[&flat]);
                    build.add(Operator::Reshape(shape), &[&flat])
                }
                _ => build.add(Operator::LocalResponse(LocalResponse::PAPER), &[a]),
            };
            used[i] = true;
            used[j] = true;
            values.push(y);
            used.push(false);
        }
        // Every value reaches the end.
        let ends = values.iter().zip(used).filter(|(_, used)| !used).map(|(value, _)| value.clone());
        let mut y = ends.reduce(|a, b| build.add(Operator::Add, &[&a, &b])).expect("the newest value");
        // And so does every input.
        y = build.add(Operator::Convolution(SAME), &[&y, w, b]);
        normalize(build, &y, gamma, b)
    })
}
