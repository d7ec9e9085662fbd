//! A network's compiled steps, for any batch size.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

use dataset::{Draw, Loader, Scratch};
use graph::{
    Autograd, Network, State,
    step::{Batch, Variables},
};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Workspace, memory_plan},
    cuda::{self, CudaCompiler, Session},
};
use luminal::prelude::Graph;
use plan::Train;

use crate::{
    Assessment, Device, Evaluation, Scores, TrainError,
    device::cuda_precision,
    metrics::{first_largest, softmax},
};

/// What is shown of each image in an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Views {
    /// The centre.
    #[default]
    Center,
    /// Four corners and the centre, and all of them flipped; their probabilities are averaged (Krizhevsky et al. 2012,
    /// section 4.1).
    Ten,
}

/// Writes one sample: (scratch, index, image [C, H, W], target \[K\]).
type Fill<'a> = dyn Fn(&mut Scratch, u32, &mut [f32], &mut [f32]) + Sync + 'a;

/// Compiled steps over one set of variables. Lives on the thread that made it.
pub struct Engine {
    /// Parameters, moments, running statistics.
    pub variables: Variables,
    train: Train,
    workspace: Rc<RefCell<Workspace>>,
    /// On a GPU; else steps run in the workspace.
    session: Option<Rc<RefCell<Session>>>,
    training: BTreeMap<usize, (Box<Graph>, Batch)>,
    evaluation: BTreeMap<usize, (Box<Graph>, Batch)>,
    scratch: Vec<Mutex<Scratch>>,
}

/// Memory that training takes at its peak, known before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, running statistics and the optimizer's moments, in bytes.
    pub variable_bytes: usize,
    /// Activations, gradients and scratch of the larger of the training and evaluation step, in bytes.
    pub step_bytes: usize,
    /// Batches of images, targets and logits, in bytes.
    pub batch_bytes: usize,
}

impl Memory {
    /// All of it, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.variable_bytes + self.step_bytes + self.batch_bytes
    }
}

/// What a precision is on the processor.
pub(crate) fn precision(train: &Train) -> Precision {
    match train.precision {
        // Training in TF32 there is refused by the plan; its memory may be asked for.
        plan::Precision::F32 | plan::Precision::Tf32 => Precision::F32,
        plan::Precision::Bf16 => Precision::Bf16,
    }
}

/// Plans the memory of training `network` without allocating any of it. `train.batch_size` and
/// `train.evaluation_batch_size` are taken as they are.
pub fn memory(network: &Network, train: &Train, threads: usize) -> Memory {
    let variables = Variables::for_training(network, train);
    let (mut step, batch) = variables.training_graph(train.batch_size, train);
    step.compile(Autograd, ());
    let (evaluation, evaluated) = variables.evaluation_graph(train.evaluation_batch_size);
    let precision = precision(train);
    let plans = [memory_plan(&step, precision, threads), memory_plan(&evaluation, precision, threads)];
    let largest = |bytes: fn(&lowering::cpu::MemoryPlan) -> usize| plans.iter().map(bytes).max().unwrap_or(0);
    let elements = |states: &[&State]| states.iter().map(|state| state.elements()).sum::<usize>();
    Memory {
        variable_bytes: variables.bytes(),
        step_bytes: largest(|plan| plan.arena_bytes) + largest(|plan| plan.scratch_bytes),
        batch_bytes: size_of::<f32>()
            * (elements(&[&batch.images, &batch.targets, &batch.logits])
                + elements(&[&evaluated.images, &evaluated.logits])),
    }
}

impl Engine {
    /// Takes over variables; steps are compiled when a batch size first comes up. On the processor it never fails.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn new(variables: Variables, train: &Train, device: &Device, threads: usize) -> Result<Self, TrainError> {
        let workspace = Workspace::new(threads);
        let threads = workspace.borrow().threads();
        let session = match device {
            Device::Cpu => None,
            Device::Cuda(device) => Some(Session::new(device)?),
        };
        Ok(Self {
            variables,
            train: train.clone(),
            workspace,
            session,
            training: BTreeMap::new(),
            evaluation: BTreeMap::new(),
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
        })
    }

    fn compile(&self, graph: &mut Graph) {
        match &self.session {
            Some(session) => {
                let compiler = CudaCompiler::new(session).with_precision(cuda_precision(&self.train));
                graph.compile((Autograd, compiler), ());
            }
            None => {
                let compiler = CpuCompiler::new(&self.workspace).with_precision(precision(&self.train));
                graph.compile((Autograd, compiler), ());
            }
        }
    }

    /// Runs a compiled graph once and brings these of its results to the host.
    fn execute(&self, graph: &mut Graph, results: &[&State]) -> Result<(), TrainError> {
        match &self.session {
            Some(session) => {
                cuda::program(graph).run()?;
                session.borrow_mut().pull(results.iter().copied())?;
            }
            None => graph.execute(),
        }
        Ok(())
    }

    /// Brings all that outlives a step to the host: before it is saved, or read in any other way.
    ///
    /// # Errors
    /// When the GPU is lost.
    pub fn pull(&self) -> Result<(), TrainError> {
        match &self.session {
            Some(session) => Ok(session.borrow_mut().pull(self.variables.persistent())?),
            None => Ok(()),
        }
    }

    /// Splits a batch over the threads: `fill(scratch, index, image [C, H, W], target [K])` for every sample.
    fn load(&self, indices: &[u32], batch: &Batch, fill: &Fill) {
        let (mut images, mut targets) = (batch.images.write(), batch.targets.write());
        let (image, target) = (images.len() / indices.len(), targets.len() / indices.len());
        let mut workspace = self.workspace.borrow_mut();
        let share = indices.len().div_ceil(4 * workspace.threads()).max(1);
        let parts: Vec<_> = indices
            .chunks(share)
            .zip(images.chunks_mut(share * image))
            .zip(targets.chunks_mut(share * target))
            .map(Mutex::new)
            .collect();
        let rooms = &self.scratch;
        workspace.parallel(parts.len(), &|thread, task| {
            let mut scratch = rooms[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let mut part = parts[task].lock().unwrap_or_else(PoisonError::into_inner);
            let ((indices, images), targets) = &mut *part;
            let samples = images.chunks_exact_mut(image).zip(targets.chunks_exact_mut(target));
            for (&index, (image, target)) in indices.iter().zip(samples) {
                fill(&mut scratch, index, image, target);
            }
        });
    }

    /// One training step on the samples given; hyperparameters and dropout's key are set by the caller. Adds to
    /// `scores` and returns the batch's mean loss.
    ///
    /// # Errors
    /// When the GPU fails, as in all that follow; steps on the processor do not.
    pub fn train(
        &mut self,
        loader: &Loader,
        indices: &[u32],
        draw: &Draw,
        scores: &mut Scores,
    ) -> Result<f64, TrainError> {
        let size = indices.len();
        if !self.training.contains_key(&size) {
            let (mut graph, batch) = self.variables.training_graph(size, &self.train);
            self.compile(&mut graph);
            self.training.insert(size, (graph, batch));
        }
        let (mut graph, batch) = self.training.remove(&size).expect("it was just compiled");
        self.load(indices, &batch, &|scratch, index, image, target| {
            loader.training_sample(index, draw, scratch, image, target);
        });
        self.execute(&mut graph, &[&batch.loss, &batch.logits])?;
        let loss = f64::from(batch.loss.read()[0]);
        scores.loss += loss * size as f64;
        let logits = batch.logits.read();
        for (row, &index) in logits.chunks_exact(logits.len() / size).zip(indices) {
            scores.rank(row, loader.prepared().label(index) as usize);
        }
        drop(logits);
        self.training.insert(size, (graph, batch));
        Ok(loss)
    }

    /// Logits [N, K] of images that `fill` writes, as [C, H, W] each, by position.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn logits(&mut self, size: usize, fill: &(dyn Fn(u32, &mut [f32]) + Sync)) -> Result<Vec<f32>, TrainError> {
        if !self.evaluation.contains_key(&size) {
            let (mut graph, batch) = self.variables.evaluation_graph(size);
            self.compile(&mut graph);
            self.evaluation.insert(size, (graph, batch));
        }
        let (mut graph, batch) = self.evaluation.remove(&size).expect("it was just compiled");
        let positions: Vec<u32> = (0..size as u32).collect();
        self.load(&positions, &batch, &|_, position, image, _| fill(position, image));
        self.execute(&mut graph, &[&batch.logits])?;
        let logits = batch.logits.read().to_vec();
        self.evaluation.insert(size, (graph, batch));
        Ok(logits)
    }

    /// Metrics of the samples given, undistorted; none if there are none. `go_on` is asked between batches.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn evaluate(
        &mut self,
        loader: &Loader,
        indices: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Evaluation>, TrainError> {
        let mut scores = Scores::default();
        let mut predictions = Vec::with_capacity(indices.len());
        for part in indices.chunks(self.train.evaluation_batch_size) {
            if !go_on() {
                return Ok(None);
            }
            let logits = self.logits(part.len(), &|position, image| {
                loader.evaluation_sample(part[position as usize], image);
            })?;
            for (row, &index) in logits.chunks_exact(logits.len() / part.len()).zip(part) {
                scores.add(row, loader.prepared().label(index) as usize);
                predictions.push(first_largest(row) as u16);
            }
        }
        Ok((!indices.is_empty()).then(|| scores.evaluation(predictions)))
    }

    /// Metrics of the samples given, class by class; none if `go_on`, which is asked between batches, says no.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn assess(
        &mut self,
        loader: &Loader,
        indices: &[u32],
        views: Views,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Assessment>, TrainError> {
        let classes = loader.classes();
        let mut assessment = Assessment::new(classes);
        let each = match views {
            Views::Center => 1,
            Views::Ten => 10,
        };
        for part in indices.chunks((self.train.evaluation_batch_size / each).max(1)) {
            if !go_on() {
                return Ok(None);
            }
            let logits = self.logits(part.len() * each, &|position, image| {
                let (index, view) = (part[position as usize / each], position as usize % each);
                match views {
                    Views::Center => loader.evaluation_sample(index, image),
                    Views::Ten => loader.ten_crop_sample(index, view, image),
                }
            })?;
            for (rows, &index) in logits.chunks_exact(each * classes).zip(part) {
                let label = loader.prepared().label(index) as usize;
                match views {
                    Views::Center => assessment.add(rows, label),
                    Views::Ten => assessment.add(&log_mean(rows, classes), label),
                }
            }
        }
        Ok(Some(assessment))
    }
}

/// Logarithms of the mean probabilities of several rows of logits.
fn log_mean(rows: &[f32], classes: usize) -> Vec<f32> {
    let mut mean = vec![0.0; classes];
    let share = classes as f64 / rows.len() as f64;
    for row in rows.chunks_exact(classes) {
        mean.iter_mut().zip(softmax(row)).for_each(|(mean, probability)| *mean += share * probability);
    }
    mean.into_iter().map(|probability| probability.ln() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_averaged_as_probabilities() {
        // Softmaxes (1/4, 3/4) and (3/4, 1/4) average to one half each, whatever the scale of the logits.
        let third = 3.0_f32.ln();
        let mean = log_mean(&[0.0, third, 50.0 + third, 50.0], 2);
        mean.iter().for_each(|value| assert!((value - 0.5_f32.ln()).abs() < 1e-6, "{mean:?}"));
    }
}
