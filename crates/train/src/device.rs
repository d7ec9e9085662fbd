//! Where a step runs: on this process' threads, or on the GPU that all its workers share.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use graph::{Autograd, Network, step::Variables};
use lowering::cuda::{self, CudaError, Libraries};
use plan::Train;

use crate::{TrainError, engine::lowered, gpu::feed_bytes, memory};

pub use lowering::{
    cpu::{Products, bf16_products},
    cuda::Finding,
};

/// Where a step runs.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// Threads of this process.
    #[default]
    Cpu,
    /// A GPU.
    Cuda(Arc<cuda::Device>),
}

/// Where compiled kernels are kept.
static KERNELS: OnceLock<PathBuf> = OnceLock::new();

/// The GPU, looked for once, when it is first asked for.
fn gpu() -> &'static Result<Arc<cuda::Device>, CudaError> {
    static GPU: OnceLock<Result<Arc<cuda::Device>, CudaError>> = OnceLock::new();
    GPU.get_or_init(|| {
        let device = cuda::Device::open(&Libraries::default())?;
        if let Some(folder) = KERNELS.get() {
            device.keep_kernels(folder);
        }
        Ok(device)
    })
}

impl Device {
    /// Names the folder in which kernels that were compiled for a GPU are kept for other processes, before a GPU is first looked for. It
    /// may be deleted at any time.
    pub fn keep_kernels(folder: &Path) {
        KERNELS.get_or_init(|| folder.to_owned());
    }

    /// What `train.device` means here and now. `auto` takes the processor where there is no GPU, where there is one that cannot be used
    /// (see [`Self::refusal`]), and after it was lost.
    ///
    /// # Errors
    /// When `cuda` is asked for and no GPU can be used.
    pub fn resolve(setting: plan::Device) -> Result<Self, TrainError> {
        let usable = || match gpu() {
            Ok(device) if device.is_lost() => Err(CudaError::Gone),
            Ok(device) => Ok(Self::Cuda(Arc::clone(device))),
            Err(error) => Err(error.clone()),
        };
        match setting {
            plan::Device::Cpu => Ok(Self::Cpu),
            plan::Device::Auto => Ok(usable().unwrap_or(Self::Cpu)),
            plan::Device::Cuda => usable().map_err(TrainError::Device),
        }
    }

    /// Where training with these settings runs: as [`Self::resolve`], and `auto` takes the processor too where the GPU does not have
    /// `train.precision`.
    ///
    /// # Errors
    /// As [`Self::resolve`], and when the GPU that is asked for does not have the precision.
    pub fn for_training(train: &Train) -> Result<Self, TrainError> {
        let device = Self::resolve(train.device)?;
        let served = match &device {
            Self::Cpu => Ok(()),
            Self::Cuda(gpu) => gpu.serve(lowered(train.precision)),
        };
        match (served, train.device) {
            (Ok(()), _) => Ok(device),
            (Err(_), plan::Device::Auto) => Ok(Self::Cpu),
            (Err(error), _) => Err(TrainError::Precision(error)),
        }
    }

    /// A precision where it has it, else 32 bits: what evaluates a network need not have what trained it.
    pub(crate) fn nearest(&self, precision: plan::Precision) -> plan::Precision {
        let served = match self {
            Self::Cpu => precision != plan::Precision::Tf32,
            Self::Cuda(gpu) => gpu.serve(lowered(precision)).is_ok(),
        };
        if served { precision } else { plan::Precision::F32 }
    }

    /// Why training with these settings takes the processor though there is a GPU and `auto` would have it: what somebody who has one
    /// should know.
    pub fn refusal(train: &Train) -> Option<String> {
        if train.device != plan::Device::Auto {
            return None;
        }
        match gpu() {
            Ok(device) if device.is_lost() => Some(CudaError::Gone.to_string()),
            Ok(device) => device.serve(lowered(train.precision)).err().map(|error| error.to_string()),
            Err(CudaError::NoDriver { .. } | CudaError::NoDevice) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// All that was looked for, step by step.
    pub fn survey() -> Vec<Finding> {
        cuda::Device::survey(&Libraries::default())
    }

    /// As provenance has it: `cpu`, or the GPU with its versions.
    pub fn description(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Cuda(device) => device.description(),
        }
    }

    /// Whether it is lost to this process.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Cuda(device) if device.is_lost())
    }

    /// Memory that it has, in bytes, where that bounds what can run side by side.
    pub fn memory_bytes(&self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::Cuda(device) => Some(device.memory_bytes),
        }
    }

    /// Whether a data set's images, of so many bytes, are kept on the device while so many trials like this one train there. A tenth of its
    /// memory is left to the driver and to others.
    pub fn holds(&self, image_bytes: usize, network: &Network, train: &Train, threads: usize, jobs: usize) -> bool {
        self.memory_bytes().is_some_and(|memory_bytes| {
            image_bytes.saturating_add(jobs * self.planned_bytes(network, train, threads, true))
                <= memory_bytes / 10 * 9
        })
    }

    /// Memory that training takes there at its peak, in bytes, planned without allocating any of it. `by_recipe` tells whether batches are
    /// cut out of images on the device, which come on top.
    pub fn planned_bytes(&self, network: &Network, train: &Train, threads: usize, by_recipe: bool) -> usize {
        match self {
            Self::Cpu => memory(network, train, threads).total_bytes(),
            Self::Cuda(_) => {
                let variables = Variables::for_training(network, train);
                let (mut step, _) = variables.training_graph(train.batch_size, train);
                step.compile(Autograd, ());
                let (evaluation, _) = variables.evaluation_graph(train.evaluation_batch_size);
                let plans = [&step, &evaluation].map(|graph| cuda::memory_plan(graph, lowered(train.precision)));
                let arena = plans.iter().map(|plan| plan.arena_bytes).max().unwrap_or(0);
                // Each program has a batch of its own; parameters are common to both and counted once.
                let states = plans.iter().map(|plan| plan.state_bytes).sum::<usize>();
                let twice: usize =
                    variables.parameters.iter().map(|p| p.evaluated().elements() * size_of::<f32>()).sum();
                arena + states - twice + feed_bytes(&variables, train, by_recipe)
            }
        }
    }
}
