//! Steps on a GPU: how an engine's batches get there, and what comes back.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use dataset::{Prepared, Recipe};
use graph::{
    State,
    step::{Batch, Variables},
};
use lowering::cuda::{self, CudaError, Feed, Images, Session};
use luminal::prelude::Graph;
use plan::Train;

use crate::{Device, StepScores, TrainError};

/// Recipes of a training sample at most: its own and its partner's.
const MOST_RECIPES: usize = 2;

/// Images of the data set that was shown last, on the device, with its fingerprint: the next trial of a sweep shows the same.
static SHOWN: Mutex<Option<(String, Arc<Images>)>> = Mutex::new(None);

/// A data set's images on a device, copied there if they are not there yet. None on the processor, and where there is no room.
pub(crate) fn images(device: &Device, prepared: &Prepared) -> Result<Option<Arc<Images>>, TrainError> {
    let Device::Cuda(device) = device else { return Ok(None) };
    let manifest = prepared.manifest();
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, images)) =
        shown.as_ref().filter(|(known, images)| *known == manifest.fingerprint && images.is_on(device))
    {
        return Ok(Some(Arc::clone(images)));
    }
    // The old ones go first, so that both are never held at once.
    *shown = None;
    let shape = [prepared.len(), manifest.channels, manifest.height, manifest.width];
    match Images::upload(device, shape, prepared.pixels()) {
        Ok(images) => {
            *shown = Some((manifest.fingerprint.clone(), Arc::clone(&images)));
            Ok(Some(images))
        }
        Err(CudaError::OutOfMemory { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lets go of the images that were shown last, for trials that need their room.
pub(crate) fn forget_images() {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Memory on the device for batches on their way, of the images themselves or of how they are cut out of those on the device, in bytes.
pub(crate) fn feed_bytes(variables: &Variables, train: &Train, by_recipe: bool) -> usize {
    let image = variables.network.input.iter().product();
    let states = variables.hyper.elements() + variables.key.elements();
    let classes = variables.network.classes;
    let (of_training, of_evaluation) =
        if by_recipe { (MOST_RECIPES * Recipe::WORDS, Recipe::WORDS) } else { (image, image) };
    let training = states + train.batch_size * (classes + 1 + of_training);
    // The states have a place there whether the step reads them or not.
    states * size_of::<f32>()
        + Feed::device_bytes(training.max(train.evaluation_batch_size * of_evaluation), train.batch_size)
}

/// One worker's share of a GPU.
pub(crate) struct Gpu {
    pub(crate) session: Rc<RefCell<Session>>,
    feed: Feed,
}

/// Writes samples: (their words, each [C, H, W] as floats or recipes; their targets [N, K]).
pub(crate) type Write<'a> = dyn FnMut(&mut [u32], &mut [f32]) + 'a;

impl Gpu {
    pub(crate) fn new(
        device: &Arc<cuda::Device>,
        variables: &Variables,
        images: Option<Arc<Images>>,
    ) -> Result<Self, TrainError> {
        let session = Session::new(device)?;
        let [_, h, w] = variables.network.input;
        let feed = Feed::new(&session, variables.network.classes, images.map(|images| (images, [h, w])))?;
        Ok(Self { session, feed })
    }

    /// Whether batches are recipes for images on the device.
    pub(crate) fn by_recipe(&self) -> bool {
        self.feed.has_images()
    }

    /// Starts a training step on samples of `labels`, of so many recipes each, if they come by recipe.
    pub(crate) fn train(
        &mut self,
        graph: &Graph,
        batch: &Batch,
        variables: &Variables,
        labels: &[u32],
        recipes: usize,
        write: &mut Write,
    ) -> Result<(), TrainError> {
        let (count, by_recipe) = (labels.len(), self.by_recipe());
        let samples = if by_recipe { count * recipes * Recipe::WORDS } else { batch.images.elements() };
        let given = [&variables.hyper, &variables.key];
        let mut states: Vec<&State> = given.to_vec();
        states.push(&batch.targets);
        // Images come behind the states that are handed out, and are handed out too; recipes stay where they are.
        if !by_recipe {
            states.push(&batch.images);
        }
        let before: usize = given.iter().map(|state| state.elements()).sum::<usize>() + batch.targets.elements();
        let words = before + samples + count;
        let room = self.feed.room(words)?;
        let (first, rest) = room.split_at_mut(before);
        let (samples, last) = rest.split_at_mut(samples);
        last.copy_from_slice(labels);
        let mut first = bytemuck::cast_slice_mut::<u32, f32>(first);
        for state in given {
            let (own, others) = first.split_at_mut(state.elements());
            own.copy_from_slice(&state.read());
            first = others;
        }
        write(samples, first);
        self.feed.send(words, &states)?;
        if by_recipe {
            self.feed.cut(before, recipes, &batch.images)?;
        }
        cuda::program(graph).run()?;
        self.feed.note(words - count, &batch.loss, &batch.logits)?;
        Ok(self.feed.done()?)
    }

    /// Writes the next batch of an evaluation, for [`Self::evaluate`].
    pub(crate) fn write(&mut self, batch: &Batch, by_recipe: bool, write: &mut Write) -> Result<(), TrainError> {
        // Evaluation knows no targets.
        let mut none = vec![0.0; batch.images.shape()[0]];
        write(self.feed.room(Self::evaluated_words(batch, by_recipe))?, &mut none);
        Ok(())
    }

    fn evaluated_words(batch: &Batch, by_recipe: bool) -> usize {
        if by_recipe { batch.images.shape()[0] * Recipe::WORDS } else { batch.images.elements() }
    }

    /// Starts the step on the batch that was written.
    pub(crate) fn evaluate(&mut self, graph: &Graph, batch: &Batch, by_recipe: bool) -> Result<(), TrainError> {
        let handed = [&batch.images];
        self.feed.send(Self::evaluated_words(batch, by_recipe), if by_recipe { &[] } else { &handed })?;
        if by_recipe {
            self.feed.cut(0, 1, &batch.images)?;
        }
        cuda::program(graph).run()?;
        Ok(self.feed.done()?)
    }

    /// Values that the steps so far left in a state.
    pub(crate) fn pull(&self, state: &State) -> Result<Vec<f32>, TrainError> {
        self.session.borrow_mut().pull([state])?;
        Ok(state.read().to_vec())
    }

    /// Whether results must be read before a batch of so many samples is trained on.
    pub(crate) fn must_be_read(&self, count: usize) -> bool {
        self.feed.must_be_read(count)
    }

    /// Waits for all steps, and gives what they came to since this was asked last.
    pub(crate) fn results(&mut self) -> Result<Vec<StepScores>, TrainError> {
        let among = |ahead: &[Option<u32>], k: u32| ahead.iter().flatten().filter(|&&ahead| ahead < k).count() as u64;
        let scores = |step: cuda::StepResult| StepScores {
            loss: step.loss,
            top1: among(&step.ahead, 1),
            top5: among(&step.ahead, 5),
            images: step.ahead.len() as u64,
        };
        Ok(self.feed.results()?.into_iter().map(scores).collect())
    }
}
