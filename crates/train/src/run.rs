//! One trial from its first step to its test.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use dataset::{
    Draw, Loader, Prepared, epoch_order,
    rng::{Counter, Purpose},
};
use graph::{
    Network,
    step::{Role, Variables},
};
use plan::{Decay, ScheduleState, Train, Trial};

use crate::{
    Assessment, Card, Device, Engine, EpochRecord, Evaluation, Event, Names, Progress, Sink, StepProgress, TestRecord,
    TrainError, Views, checkpoint, gpu,
    initial::{load_initial_weights, note_initial_weights},
    initialize,
    post_mortem::{PostMortem, weight_norms},
    save_weights,
    steps::{NotFinite, Steps},
};

/// Least time between two step events.
const STEP_EVENTS: Duration = Duration::from_millis(100);

/// Asks runs to stop. Shared by everyone who may ask.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    /// A stop that nobody has asked for.
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Asks for a stop after the step at hand.
    pub fn request(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// How to run a trial, as opposed to what it is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads of each step and of loading; 0 takes one per core.
    pub threads: usize,
    /// Where steps run: what [`crate::Device::for_training`] makes of the settings.
    pub device: Device,
    /// Folder for the checkpoint (`checkpoint.safetensors`) and the final weights (`weights.safetensors`). None: neither.
    pub folder: Option<PathBuf>,
    /// When to stop, as if it had been asked for.
    pub deadline: Option<Instant>,
    /// Trials that share the device, this one among them; 0 is 1.
    pub jobs: usize,
}

/// A run that went to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Epoch with the lowest validation loss, from 1; none without validation.
    pub best_epoch: Option<u32>,
    /// Metrics of the test split with the final weights; none if there is no test split.
    pub test: Option<Evaluation>,
    /// Seconds of training, over all sessions, evaluation left out.
    pub train_seconds: f64,
    /// Memory planned for the run, in bytes.
    pub memory_bytes: usize,
    /// Where the final weights are.
    pub weights: Option<PathBuf>,
}

/// How a run ended, if not by an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done and tested.
    Finished(Summary),
    /// A stop was asked for; the checkpoint, if there is a folder, holds the exact state.
    Interrupted {
        /// Epochs done.
        completed_epochs: u32,
    },
    /// The sink let it go no further for now ([`Sink::goes_on`]); the checkpoint, if there is a folder, holds the exact state.
    Paused {
        /// Epochs done.
        completed_epochs: u32,
    },
}

/// λ/2·Σw² over the parameters that decay; frozen ones do not.
pub fn penalty(variables: &Variables, train: &Train) -> f64 {
    let trained = variables.parameters.iter().filter(|p| !p.is_frozen);
    let decaying = trained.filter(|p| train.decay == Decay::All || p.role == Role::Weight);
    let squares: f64 =
        decaying.map(|p| p.values.read().iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>()).sum();
    0.5 * train.weight_decay * squares
}

/// Number of threads that a setting means.
pub(crate) fn thread_count(setting: usize) -> usize {
    if setting > 0 { setting } else { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) }
}

/// Trains and tests one trial, from its checkpoint if the folder holds one.
///
/// # Errors
/// When the network does not fit the images, the loss is no longer finite, a file cannot be read or written, the GPU fails, or
/// the sink gives up.
pub fn run(
    trial: &Trial,
    prepared: &Prepared,
    options: &Options,
    sink: &mut dyn Sink,
    stop: &Stop,
) -> Result<Outcome, TrainError> {
    let mut noted = trial.clone();
    if noted.initial_weights_hash.is_none() {
        note_initial_weights(&mut noted)?;
    }
    let trial = &noted;
    let settings = &trial.settings;
    let train = &settings.train;
    let loader = Loader::new(prepared, &settings.augment)?;
    let splits = prepared.splits(&settings.dataset);
    if splits.train.is_empty() {
        return Err(TrainError::NoTrainingImages);
    }
    let (c, h, w) = loader.input_size();
    let network = Network::new(&settings.model, [c, h, w], prepared.classes())?;
    let threads = thread_count(options.threads);
    // No batch is larger than the split that it comes from.
    let mut train = train.clone();
    train.batch_size = train.batch_size.min(splits.train.len());
    let largest = splits.validation.len().max(splits.test.len()).max(1);
    train.evaluation_batch_size = train.evaluation_batch_size.min(largest);
    let train = &train;
    let image_bytes = prepared.pixels().len();
    let by_recipe =
        loader.has_recipes() && options.device.holds(image_bytes, &network, train, threads, options.jobs.max(1));
    let memory_bytes =
        options.device.planned_bytes(&network, train, threads, by_recipe) + if by_recipe { image_bytes } else { 0 };

    let variables = Variables::for_training(&network, train);
    let identity = trial.identity(&prepared.manifest().fingerprint);
    let resumed = match &options.folder {
        Some(folder) => checkpoint::load(folder, &variables, &identity)?,
        None => None,
    };
    let mut progress = match resumed {
        Some(progress) => progress,
        None => {
            initialize(&variables, &settings.model, trial.seed);
            load_initial_weights(trial, &variables)?;
            Progress { trial: identity, ..Progress::default() }
        }
    };
    let steps = splits.train.len().div_ceil(train.batch_size) as u32;
    let mut schedule = ScheduleState::new(train, steps);
    schedule.restore(progress.plateau);
    let images = if by_recipe { gpu::images(&options.device, prepared)? } else { None };
    if images.is_none() {
        gpu::forget_images();
    }
    let mut engine = Engine::new(variables, train, &options.device, images, threads)?;
    let completed_epochs = progress.completed_epochs;
    sink.event(Event::Started { network: &network, completed_epochs, steps, memory_bytes })
        .map_err(TrainError::Sink)?;

    let save = |engine: &Engine, progress: &Progress| match &options.folder {
        Some(folder) => {
            engine.pull()?;
            checkpoint::save(folder, &engine.variables, progress)
        }
        None => Ok(()),
    };
    let stopping = || stop.requested() || options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
    let mut images = 0;
    for epoch in progress.completed_epochs..train.epochs {
        let start = Instant::now();
        let mut told = start;
        let order = epoch_order(&splits.train, trial.seed, epoch);
        let draw =
            Draw { seed: trial.seed, epoch, label_smoothing: train.label_smoothing as f32, partners: &splits.train };
        let first = progress.completed_steps;
        let mut losses: Vec<f32> = Vec::with_capacity(steps as usize);
        losses.extend(progress.losses.iter().map(|&bits| f32::from_bits(bits)));
        let mut taken = Steps::new(progress.scores(), losses, first);
        let batches = order.chunks(train.batch_size).zip(0..steps).skip(first as usize);
        let mut trained = 0;
        let mut learning_rate = 0.0;
        engine.pull()?;
        let before = weight_norms(&engine.variables);
        let diverged = |engine: &Engine, end: NotFinite| {
            if let Err(error) = engine.pull() {
                return error;
            }
            let NotFinite { step, loss, learning_rate, last_loss } = end;
            let post_mortem = Box::new(PostMortem::of(&engine.variables, &before, learning_rate, last_loss, epoch));
            TrainError::Diverged { epoch: epoch + 1, step, loss, post_mortem }
        };
        for (batch, step) in batches {
            if stopping() {
                taken.settle(&engine.results()?).map_err(|end| diverged(&engine, end))?;
                progress.completed_steps = step;
                progress.set_scores(&taken.scores);
                progress.losses = taken.losses.iter().map(|loss| loss.to_bits()).collect();
                progress.train_seconds += start.elapsed().as_secs_f64();
                save(&engine, &progress)?;
                return Ok(Outcome::Interrupted { completed_epochs: epoch });
            }
            learning_rate = schedule.learning_rate(epoch, step);
            let global = u64::from(epoch) * u64::from(steps) + u64::from(step) + 1;
            engine.variables.set_hyper(train, learning_rate, global);
            let mut rng = Counter::new(trial.seed, Purpose::Dropout, epoch, step);
            engine.variables.key.write().iter_mut().for_each(|word| *word = (rng.bits() >> 8) as f32);
            engine.train(&loader, batch, &draw)?;
            taken.started(learning_rate);
            images += batch.len() as u64;
            trained += batch.len();
            let due = told.elapsed() >= STEP_EVENTS;
            // The next batch is none larger.
            if due || engine.must_be_read(batch.len()) {
                taken.settle(&engine.results()?).map_err(|end| diverged(&engine, end))?;
            }
            if due {
                told = Instant::now();
                let (epoch, epochs, step) = (epoch + 1, train.epochs, step + 1);
                let loss = taken.scores.loss / taken.scores.images as f64;
                let event = Event::Step(StepProgress { epoch, epochs, step, steps, loss, images });
                sink.event(event).map_err(TrainError::Sink)?;
            }
        }
        taken.settle(&engine.results()?).map_err(|end| diverged(&engine, end))?;
        let Steps { scores, mut losses, .. } = taken;
        let train_seconds = start.elapsed().as_secs_f64();
        let validation = engine.evaluate(&loader, &splits.validation, &|| !stopping())?;
        if stopping() && validation.is_none() && !splits.validation.is_empty() {
            // The epoch's steps are done; after a resume only its validation is left.
            progress.completed_steps = steps;
            progress.set_scores(&scores);
            progress.losses = losses.iter().map(|loss| loss.to_bits()).collect();
            progress.train_seconds += train_seconds;
            save(&engine, &progress)?;
            return Ok(Outcome::Interrupted { completed_epochs: epoch });
        }
        let mean = scores.evaluation(Vec::new());
        let observed = validation.as_ref().map_or(mean.loss, |validation| validation.loss);
        schedule.observe(observed);
        if let Some(validation) = &validation
            && progress.best.is_none_or(|(_, bits)| validation.loss < f64::from_bits(bits))
        {
            progress.best = Some((epoch + 1, validation.loss.to_bits()));
        }
        engine.pull()?;
        if losses.len() != steps as usize {
            losses.clear();
        }
        let record = EpochRecord {
            epoch: epoch + 1,
            steps,
            losses,
            learning_rate: if trained > 0 { learning_rate } else { schedule.learning_rate(epoch, steps - 1) },
            train_loss: mean.loss,
            train_penalty: penalty(&engine.variables, train),
            train_top1: mean.top1,
            train_top5: mean.top5,
            validation,
            images_per_second: trained as f64 / train_seconds,
            epoch_seconds: start.elapsed().as_secs_f64(),
        };
        sink.event(Event::Epoch(&record)).map_err(TrainError::Sink)?;
        progress = Progress {
            trial: progress.trial,
            completed_epochs: epoch + 1,
            plateau: schedule.state(),
            best: progress.best,
            train_seconds: progress.train_seconds + train_seconds,
            ..Progress::default()
        };
        save(&engine, &progress)?;
        if let Some(folder) = &options.folder {
            let path = folder.join(checkpoint::CHECKPOINT);
            let event = Event::Checkpoint { completed_epochs: epoch + 1, path: &path };
            sink.event(event).map_err(TrainError::Sink)?;
        }
        if epoch + 1 < train.epochs && !sink.goes_on(epoch + 1).map_err(TrainError::Sink)? {
            return Ok(Outcome::Paused { completed_epochs: epoch + 1 });
        }
    }

    let start = Instant::now();
    let test = engine.evaluate(&loader, &splits.test, &|| !stopping())?;
    if test.is_none() && !splits.test.is_empty() {
        return Ok(Outcome::Interrupted { completed_epochs: train.epochs });
    }
    if let Some(evaluation) = &test {
        let record = TestRecord { evaluation: evaluation.clone(), seconds: start.elapsed().as_secs_f64() };
        sink.event(Event::Tested(&record)).map_err(TrainError::Sink)?;
    }
    let weights = match &options.folder {
        Some(folder) => {
            let path = folder.join("weights.safetensors");
            engine.pull()?;
            save_weights(&path, &engine.variables, &card(trial, prepared, &network), Names::Layers)?;
            Some(path)
        }
        None => None,
    };
    Ok(Outcome::Finished(Summary {
        best_epoch: progress.best.map(|(epoch, _)| epoch),
        test,
        train_seconds: progress.train_seconds,
        memory_bytes,
        weights,
    }))
}

fn card(trial: &Trial, prepared: &Prepared, network: &Network) -> Card {
    let manifest = prepared.manifest();
    Card {
        // What only the data could tell is told by now.
        model: trial.settings.model.resolved(Some(network.input[1].min(network.input[2]))),
        input: network.input,
        image: Some([manifest.height, manifest.width]),
        classes: manifest.classes.clone(),
        mean: manifest.mean.clone(),
        std: manifest.std.clone(),
        precision: trial.settings.train.precision,
    }
}

/// Metrics of weights on images, undistorted, class by class; none if a stop was asked for.
///
/// # Errors
/// When the images do not have the size or classes that the weights were trained for, or the GPU fails.
#[expect(clippy::too_many_arguments, reason = "a network, images, and how and where it looks at them")]
pub fn assess(
    card: &Card,
    variables: Variables,
    loader: &Loader,
    indices: &[u32],
    views: Views,
    device: &Device,
    threads: usize,
    stop: &Stop,
) -> Result<Option<Assessment>, TrainError> {
    let (c, h, w) = loader.input_size();
    if [c, h, w] != card.input || loader.classes() != card.classes.len() {
        let (got, classes) = ([c, h, w], loader.classes());
        return Err(TrainError::Weights {
            path: PathBuf::from("weights"),
            reason: format!(
                "were trained for {:?} and {} classes, the data set has {got:?} and {classes}",
                card.input,
                card.classes.len()
            ),
        });
    }
    let precision = device.nearest(card.precision);
    let train = Train { evaluation_batch_size: 256.min(indices.len().max(1)), precision, ..Train::default() };
    let mut engine = Engine::new(variables, &train, device, None, thread_count(threads))?;
    engine.assess(loader, indices, views, &|| !stop.requested())
}
