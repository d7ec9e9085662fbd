//! A network's compiled steps, for any batch size.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use dataset::{Draw, Loader, Scratch};
use graph::{
    Autograd, Network, State,
    step::{Batch, Variables},
};
use lowering::{
    Precision,
    cpu::{CpuCompiler, Workspace, memory_plan},
    cuda::{CudaCompiler, Images},
};
use luminal::prelude::Graph;
use plan::Train;

use crate::{
    Assessment, Device, Evaluation, Scores, StepScores, TrainError,
    gpu::Gpu,
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

/// Writes one sample: (scratch, index, its words, target \[K\]). Words are an image [C, H, W] or a recipe for one.
type Fill<'a> = dyn Fn(&mut Scratch, u32, &mut [u32], &mut [f32]) + Sync + 'a;

/// Writes one sample of an evaluation by its position.
type Show<'a, T> = dyn Fn(u32, &mut [T]) + Sync + 'a;

/// What is evaluated: images [C, H, W], or recipes for them where there are any.
struct Shown<'a> {
    image: &'a Show<'a, f32>,
    recipe: Option<&'a Show<'a, u32>>,
}

/// Compiled steps over one set of variables. Lives on the thread that made it.
pub struct Engine {
    /// Parameters, moments, running statistics.
    pub variables: Variables,
    train: Train,
    workspace: Rc<RefCell<Workspace>>,
    /// On a GPU; else steps run in the workspace.
    gpu: Option<Gpu>,
    /// What steps on the processor came to that nobody has asked for yet.
    results: Vec<StepScores>,
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

/// The lowerings' name of a precision. (TF32 on the processor is refused by the plan.)
pub(crate) fn lowered(precision: plan::Precision) -> Precision {
    match precision {
        plan::Precision::F32 => Precision::F32,
        plan::Precision::Tf32 => Precision::Tf32,
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
    let precision = lowered(train.precision);
    let plans = [memory_plan(&step, precision, threads), memory_plan(&evaluation, precision, threads)];
    let largest = |bytes: fn(&lowering::cpu::MemoryPlan) -> usize| plans.iter().map(bytes).max().unwrap_or(0);
    let elements = |states: &[&State]| states.iter().map(|state| state.elements()).sum::<usize>();
    Memory {
        variable_bytes: variables.bytes(),
        step_bytes: largest(|plan| plan.arena_bytes)
            + largest(|plan| plan.scratch_bytes)
            + largest(|plan| plan.kept_bytes),
        batch_bytes: size_of::<f32>()
            * (elements(&[&batch.images, &batch.targets, &batch.logits])
                + elements(&[&evaluated.images, &evaluated.logits])),
    }
}

impl Engine {
    /// Takes over variables; steps are compiled when a batch size first comes up. With `images`, those of the loader that it is to be given
    /// on the device, samples are cut out of them there. On the processor it never fails.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn new(
        variables: Variables,
        train: &Train,
        device: &Device,
        images: Option<Arc<Images>>,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let workspace = Workspace::new(threads);
        let threads = workspace.borrow().threads();
        let gpu = match device {
            Device::Cpu => None,
            Device::Cuda(device) => Some(Gpu::new(device, &variables, images)?),
        };
        Ok(Self {
            variables,
            train: train.clone(),
            workspace,
            gpu,
            results: Vec::new(),
            training: BTreeMap::new(),
            evaluation: BTreeMap::new(),
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
        })
    }

    fn compile(&self, graph: &mut Graph) {
        match &self.gpu {
            Some(gpu) => {
                let compiler = CudaCompiler::new(&gpu.session).with_precision(lowered(self.train.precision));
                graph.compile((Autograd, compiler), ());
            }
            None => {
                let compiler = CpuCompiler::new(&self.workspace).with_precision(lowered(self.train.precision));
                graph.compile((Autograd, compiler), ());
            }
        }
    }

    /// Brings all that outlives a step to the host: before it is saved, or read in any other way.
    ///
    /// # Errors
    /// When the GPU is lost.
    pub fn pull(&self) -> Result<(), TrainError> {
        match &self.gpu {
            Some(gpu) => Ok(gpu.session.borrow_mut().pull(self.variables.persistent())?),
            None => Ok(()),
        }
    }

    /// Starts one training step on the samples given; hyperparameters and dropout's key are set by the caller. What it comes to is told
    /// by [`Self::results`]: on a GPU it may still be running when this returns.
    ///
    /// # Errors
    /// When the GPU fails, as in all that follow; steps on the processor do not.
    ///
    /// # Panics
    /// If results must be read first ([`Self::must_be_read`]).
    pub fn train(&mut self, loader: &Loader, indices: &[u32], draw: &Draw) -> Result<(), TrainError> {
        let size = indices.len();
        if !self.training.contains_key(&size) {
            let (mut graph, batch) = self.variables.training_graph(size, &self.train);
            self.compile(&mut graph);
            self.training.insert(size, (graph, batch));
        }
        let (graph, batch) = self.training.get_mut(&size).expect("it was just compiled");
        let pixels: &Fill = &|scratch, index, image, target| {
            loader.training_sample(index, draw, scratch, bytemuck::cast_slice_mut(image), target);
        };
        let recipes: &Fill = &|_, index, recipe, target| loader.training_recipe(index, draw, recipe, target);
        let (workspace, scratch) = (&self.workspace, &self.scratch);
        match &mut self.gpu {
            Some(gpu) => {
                let fill = if gpu.by_recipe() { recipes } else { pixels };
                let labels: Vec<u32> = indices.iter().map(|&index| loader.prepared().label(index)).collect();
                gpu.train(graph, batch, &self.variables, &labels, loader.training_recipes(), &mut |samples, targets| {
                    load(workspace, scratch, indices, samples, targets, fill);
                })
            }
            None => {
                let (mut images, mut targets) = (batch.images.write(), batch.targets.write());
                load(workspace, scratch, indices, bytemuck::cast_slice_mut(&mut images), &mut targets, pixels);
                drop((images, targets));
                graph.execute();
                let mut ranks = Scores::default();
                let logits = batch.logits.read();
                for (row, &index) in logits.chunks_exact(logits.len() / size).zip(indices) {
                    ranks.rank(row, loader.prepared().label(index) as usize);
                }
                let (loss, Scores { top1, top5, images, .. }) = (batch.loss.read()[0], ranks);
                self.results.push(StepScores { loss, top1, top5, images });
                Ok(())
            }
        }
    }

    /// Whether the results of the steps so far must be read before the next one, of `size` samples. On the processor they should be at
    /// once, on a GPU only now and then: reading waits for the steps.
    pub fn must_be_read(&self, size: usize) -> bool {
        self.gpu.as_ref().is_none_or(|gpu| gpu.must_be_read(size))
    }

    /// What the training steps since this was asked last came to, in order.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn results(&mut self) -> Result<Vec<StepScores>, TrainError> {
        match &mut self.gpu {
            Some(gpu) => gpu.results(),
            None => Ok(std::mem::take(&mut self.results)),
        }
    }

    /// Logits [N, K] of images that `fill` writes, as [C, H, W] each, by position.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn logits(&mut self, size: usize, fill: &(dyn Fn(u32, &mut [f32]) + Sync)) -> Result<Vec<f32>, TrainError> {
        let mut logits = Vec::new();
        self.show(size, size, &Shown { image: fill, recipe: None }, &|| true, &mut |rows| logits.extend(rows))?;
        Ok(logits)
    }

    /// Shows `count` samples in batches of at most `size`, and gives the logits of each batch to `take`, in order; false if `go_on`, which
    /// is asked between batches, says no. While a GPU works on a batch, the next one is written and the one before is taken.
    fn show(
        &mut self,
        count: usize,
        size: usize,
        shown: &Shown,
        go_on: &dyn Fn() -> bool,
        take: &mut dyn FnMut(&[f32]),
    ) -> Result<bool, TrainError> {
        let mut running: Option<State> = None;
        for first in (0..count).step_by(size) {
            if !go_on() {
                return Ok(false);
            }
            let size = size.min(count - first);
            if !self.evaluation.contains_key(&size) {
                let (mut graph, batch) = self.variables.evaluation_graph(size);
                self.compile(&mut graph);
                self.evaluation.insert(size, (graph, batch));
            }
            let (graph, batch) = self.evaluation.get_mut(&size).expect("it was just compiled");
            let positions: Vec<u32> = (first as u32..(first + size) as u32).collect();
            let (workspace, scratch) = (&self.workspace, &self.scratch);
            let pixels: &Fill = &|_, position, image, _| (shown.image)(position, bytemuck::cast_slice_mut(image));
            match &mut self.gpu {
                Some(gpu) => {
                    let recipe = shown.recipe.filter(|_| gpu.by_recipe());
                    gpu.write(batch, recipe.is_some(), &mut |samples, targets| match recipe {
                        Some(recipe) => {
                            let recipes: &Fill = &|_, position, words, _| recipe(position, words);
                            load(workspace, scratch, &positions, samples, targets, recipes);
                        }
                        None => load(workspace, scratch, &positions, samples, targets, pixels),
                    })?;
                    // The step writes its logits over those of the one before.
                    let before = running.replace(batch.logits.clone()).map(|logits| gpu.pull(&logits)).transpose()?;
                    gpu.evaluate(graph, batch, recipe.is_some())?;
                    if let Some(logits) = before {
                        take(&logits);
                    }
                }
                None => {
                    let (mut images, mut targets) = (batch.images.write(), batch.targets.write());
                    load(workspace, scratch, &positions, bytemuck::cast_slice_mut(&mut images), &mut targets, pixels);
                    drop((images, targets));
                    graph.execute();
                    take(&batch.logits.read());
                }
            }
        }
        if let (Some(gpu), Some(logits)) = (&mut self.gpu, running) {
            take(&gpu.pull(&logits)?);
        }
        Ok(true)
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
        let shown = Shown {
            image: &|position, image| loader.evaluation_sample(indices[position as usize], image),
            recipe: Some(&|position, words| loader.evaluation_recipe(indices[position as usize], words)),
        };
        let mut seen = indices.iter();
        let went_on = self.show(indices.len(), self.train.evaluation_batch_size, &shown, go_on, &mut |logits| {
            for (row, &index) in logits.chunks_exact(loader.classes()).zip(&mut seen) {
                scores.add(row, loader.prepared().label(index) as usize);
                predictions.push(first_largest(row) as u16);
            }
        })?;
        if !went_on {
            return Ok(None);
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
        let which = |position: u32| (indices[position as usize / each], position as usize % each);
        let shown = Shown {
            image: &|position, image| match (which(position), views) {
                ((index, _), Views::Center) => loader.evaluation_sample(index, image),
                ((index, view), Views::Ten) => loader.ten_crop_sample(index, view, image),
            },
            recipe: Some(&|position, words| match (which(position), views) {
                ((index, _), Views::Center) => loader.evaluation_recipe(index, words),
                ((index, view), Views::Ten) => loader.ten_crop_recipe(index, view, words),
            }),
        };
        let size = (self.train.evaluation_batch_size / each).max(1) * each;
        let mut seen = indices.iter();
        let went_on = self.show(indices.len() * each, size, &shown, go_on, &mut |logits| {
            for (rows, &index) in logits.chunks_exact(each * classes).zip(&mut seen) {
                let label = loader.prepared().label(index) as usize;
                match views {
                    Views::Center => assessment.add(rows, label),
                    Views::Ten => assessment.add(&log_mean(rows, classes), label),
                }
            }
        })?;
        if !went_on {
            return Ok(None);
        }
        Ok(Some(assessment))
    }
}

/// Splits a batch over the threads: `fill` writes each sample's words and target.
fn load(
    workspace: &RefCell<Workspace>,
    rooms: &[Mutex<Scratch>],
    indices: &[u32],
    samples: &mut [u32],
    targets: &mut [f32],
    fill: &Fill,
) {
    let (sample, target) = (samples.len() / indices.len(), targets.len() / indices.len());
    let mut workspace = workspace.borrow_mut();
    let share = indices.len().div_ceil(4 * workspace.threads()).max(1);
    let parts: Vec<_> = indices
        .chunks(share)
        .zip(samples.chunks_mut(share * sample))
        .zip(targets.chunks_mut(share * target))
        .map(Mutex::new)
        .collect();
    workspace.parallel(parts.len(), &|thread, task| {
        let mut scratch = rooms[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let mut part = parts[task].lock().unwrap_or_else(PoisonError::into_inner);
        let ((indices, samples), targets) = &mut *part;
        let each = samples.chunks_exact_mut(sample).zip(targets.chunks_exact_mut(target));
        for (&index, (sample, target)) in indices.iter().zip(each) {
            fill(&mut scratch, index, sample, target);
        }
    });
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
