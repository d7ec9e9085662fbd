//! Runs trials out of the results database: the wall between training and storing stands here.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use dataset::Prepared;
use plan::{Experiment, Trial};
use store::{
    Claim, EpochRow, EvaluationRow, ExperimentId, NewExperiment, NewTrial, Outcome, Provenance, RunId, RunStatus,
    Split, Store, StoreError, TrialState,
};
use sweep::{Ended, Queue, Tally};
use train::{Device, Event, Options, Sink, SinkError, Stop, TrainError};

use crate::{
    cli::{Global, Machine},
    data, progress, provenance,
};

/// A worker that gives no sign of life for this long is taken for dead, and its trial for free.
const LEASE: Duration = Duration::from_secs(10);
/// Time between two signs of life.
const RENEWAL: Duration = Duration::from_secs(2);

/// Asked for by the first Ctrl-C; the second ends the process.
static STOP: Stop = Stop::new();

/// Stops at the next step on Ctrl-C (or SIGTERM), at once on the second.
pub fn stop_on_interrupt() -> anyhow::Result<&'static Stop> {
    ctrlc::set_handler(|| {
        if STOP.requested() {
            std::process::exit(130);
        }
        STOP.request();
        eprintln!("\nstopping after the step at hand and saving; once more to stop at once");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(&STOP)
}

/// Whether this process was asked to stop.
pub fn interrupted() -> bool {
    STOP.requested()
}

/// A trial with the data and network that it needs.
pub struct Planned {
    /// What is to be trained.
    pub trial: Trial,
    /// Its images.
    pub prepared: Prepared,
    /// Its network.
    pub network: graph::Network,
    /// Hash of the trial and its data.
    pub identity: String,
}

/// An experiment whose data is prepared and whose networks fit it.
pub struct Ready {
    /// The experiment.
    pub experiment: Experiment,
    /// As it was named.
    pub file: PathBuf,
    /// Changes to it from the command line.
    pub overrides: Vec<String>,
    /// Its trials, in order.
    pub trials: Vec<Planned>,
}

/// Loads and checks an experiment and prepares its data. Everything that can be wrong with it comes out here, before the
/// database is touched.
pub fn ready(file: &Path, overrides: &[String], global: &Global) -> anyhow::Result<Ready> {
    let experiment = Experiment::load(file, overrides)?;
    check_database(&global.db)?;
    let mut known: Vec<(plan::Dataset, Prepared)> = Vec::new();
    let mut trials = Vec::new();
    for mut trial in experiment.trials() {
        train::note_initial_weights(&mut trial)
            .with_context(|| format!("{}: trial {}", file.display(), trial.label()))?;
        Device::resolve(trial.settings.train.device)
            .with_context(|| format!("{}: trial {}", file.display(), trial.label()))?;
        let settings = &trial.settings.dataset;
        let prepared = match known.iter().find(|(seen, _)| seen == settings) {
            Some((_, prepared)) => prepared.clone(),
            None => {
                let prepared = data::prepare(settings, global, file)?;
                known.push((settings.clone(), prepared.clone()));
                prepared
            }
        };
        let loader =
            dataset::Loader::new(&prepared, &trial.settings.augment).map_err(|error| data::in_file(error, file))?;
        let (c, h, w) = loader.input_size();
        let network = graph::Network::new(&trial.settings.model, [c, h, w], prepared.classes())
            .with_context(|| format!("{}: trial {}", file.display(), trial.label()))?;
        train::check_initial_weights(&trial, &network)
            .with_context(|| format!("{}: trial {}", file.display(), trial.label()))?;
        let identity = trial.identity(&prepared.manifest().fingerprint);
        trials.push(Planned { trial, prepared, network, identity });
    }
    Ok(Ready { experiment, file: file.to_owned(), overrides: overrides.to_vec(), trials })
}

/// Refuses a place where no results can be kept, before hours go into preparing data.
fn check_database(db: &Path) -> Result<(), StoreError> {
    match Store::open_read_only(db) {
        Err(StoreError::Missing { .. }) => match db.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Err(StoreError::NoFolder { path: db.to_owned(), folder: folder.to_owned() })
            }
            _ => Ok(()),
        },
        // It is brought up to date when results are written.
        Ok(_) | Err(StoreError::Older { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Planned {
    /// Name of the architecture in the database.
    fn architecture(&self) -> &'static str {
        match self.trial.settings.model.architecture {
            plan::Architecture::LeNet5 => "lenet5",
            plan::Architecture::AlexNet => "alexnet",
        }
    }

    fn record(&self) -> NewTrial {
        let fingerprint = &self.prepared.manifest().fingerprint;
        let assignments = self.trial.assignments.iter().map(|(key, value)| (key.clone(), value.to_string()));
        NewTrial {
            identity: self.identity.clone(),
            configuration: self.trial.configuration_identity(fingerprint),
            canonical: self.trial.canonical(),
            label: self.trial.label(),
            variant: self.trial.variant.clone(),
            seed: self.trial.seed,
            architecture: self.architecture().to_owned(),
            parameters: self.network.parameters() as u64,
            macs_per_image: self.network.macs(),
            data_fingerprint: fingerprint.clone(),
            assignments: assignments.collect(),
        }
    }
}

/// Folder of all runs' files: beside the database, named after it.
pub fn runs_folder(db: &Path) -> PathBuf {
    let stem = db.file_stem().unwrap_or_default().to_string_lossy();
    db.with_file_name(format!("{stem}.runs"))
}

/// Folder of a run's checkpoint and weights.
pub fn run_folder(db: &Path, run: RunId) -> PathBuf {
    runs_folder(db).join(run.0.to_string())
}

/// Jobs and threads of each: as asked, or one job per core while trials are small.
pub fn share(machine: Machine, trials: &[Planned]) -> (usize, usize) {
    /// Multiply-accumulates of a forward pass over a batch; below it, two threads in one step mostly wait for each other.
    const SMALL: u64 = 2_000_000_000;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let small = trials.iter().all(|t| t.network.macs() * (t.trial.settings.train.batch_size as u64) < SMALL);
    let jobs = match (machine.jobs, machine.threads) {
        (Some(jobs), _) => jobs.into(),
        (None, Some(threads)) => (cores / usize::from(threads)).max(1),
        (None, None) if small => cores,
        (None, None) => 1,
    };
    let jobs = jobs.min(trials.len()).min(side_by_side(machine, trials)).max(1);
    (jobs, machine.threads.map_or((cores / jobs).max(1), usize::from))
}

/// How many trials a GPU has room for, where nobody has said how many are to run.
fn side_by_side(machine: Machine, trials: &[Planned]) -> usize {
    let room = |planned: &Planned| {
        let train = &planned.trial.settings.train;
        let device = Device::resolve(train.device).ok()?;
        // A tenth is left to the driver and to others.
        let usable_bytes = device.memory_bytes()? / 10 * 9;
        Some(usable_bytes / device.planned_bytes(&planned.network, train, 1).max(1))
    };
    match machine.jobs {
        Some(_) => usize::MAX,
        None => trials.iter().filter_map(room).min().unwrap_or(usize::MAX),
    }
}

/// How a sweep ended.
pub struct Swept {
    /// How this process' trials ended.
    pub tally: Tally,
    /// Trials that were done when it began.
    pub before: usize,
    /// Where all trials of the experiment stand now.
    pub states: Vec<TrialState>,
}

/// Which finished trials are run once more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redo {
    /// Those that are done.
    pub done: bool,
    /// Those that failed.
    pub failed: bool,
}

/// Records the plan and runs what has not been run, `chosen` only if given.
pub fn sweep(
    ready: &Ready,
    global: &Global,
    machine: Machine,
    redo: Redo,
    chosen: Option<&[usize]>,
) -> anyhow::Result<Swept> {
    let stop = stop_on_interrupt()?;
    let store = Store::open(&global.db)?;
    let experiment = NewExperiment {
        name: ready.experiment.name.clone(),
        question: ready.experiment.question.clone(),
        file: ready.file.display().to_string(),
        config_toml: std::fs::read_to_string(&ready.file)
            .with_context(|| format!("cannot read {}", ready.file.display()))?,
        command: provenance::command(),
    };
    let records: Vec<NewTrial> = ready.trials.iter().map(Planned::record).collect();
    let id = store.record_experiment(&experiment, &records)?;
    let wanted: Vec<&Planned> = match chosen {
        Some(positions) => positions.iter().map(|&position| &ready.trials[position]).collect(),
        None => ready.trials.iter().collect(),
    };
    let is_wanted = |state: &TrialState| wanted.iter().any(|planned| planned.identity == state.identity);
    let again: Vec<String> = store
        .trial_states(id)?
        .into_iter()
        .filter(|state| is_wanted(state))
        .filter(|state| {
            (redo.done && state.status == RunStatus::Done) || (redo.failed && state.status == RunStatus::Failed)
        })
        .map(|state| state.identity)
        .collect();
    store.again(id, &again.iter().map(String::as_str).collect::<Vec<_>>())?;

    let states: Vec<TrialState> = store.trial_states(id)?.into_iter().filter(|state| is_wanted(state)).collect();
    let over = |state: &TrialState| matches!(state.status, RunStatus::Done | RunStatus::Failed);
    let done = states.iter().filter(|state| over(state)).count();
    let epochs_of = |state: &TrialState| {
        let planned = wanted.iter().find(|planned| planned.identity == state.identity);
        planned.map_or(0, |planned| u64::from(planned.trial.settings.train.epochs))
    };
    let epochs: u64 = states.iter().filter(|state| !over(state)).map(epochs_of).sum();
    let (jobs, threads) = share(machine, &ready.trials);
    let queue = TrialQueue {
        store: &store,
        experiment: id,
        db: &global.db,
        wanted: &wanted,
        config: provenance::words(
            std::iter::once(ready.file.display().to_string()).chain(ready.overrides.iter().cloned()),
        ),
        threads,
        process: format!("{}-{}", std::process::id(), started_ms()),
        active: Mutex::new(vec![None; jobs]),
        progress: progress::Sweep::new(global.quiet, jobs, states.len(), done, epochs),
        over: AtomicUsize::new(done),
        trials: states.len(),
        waited: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        stop,
    };
    if let Some(reason) = wanted
        .iter()
        .any(|planned| planned.trial.settings.train.device == plan::Device::Auto)
        .then(Device::refusal)
        .flatten()
    {
        queue.progress.line(&format!("the GPU is not used: {reason}"));
    }
    let ended = AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        let heartbeat = scope.spawn(|| queue.keep_leases(&ended));
        let tally = sweep::drain(&queue, jobs, &|| stop.requested());
        ended.store(true, SeqCst);
        heartbeat.thread().unpark();
        tally
    });
    queue.progress.clear();
    let before = states.iter().filter(|state| state.status == RunStatus::Done).count();
    let states = store.trial_states(id)?.into_iter().filter(|state| is_wanted(state)).collect();
    Ok(Swept { tally: tally?, before, states })
}

fn started_ms() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis())
}

/// The trials of one experiment, as the database has them.
struct TrialQueue<'a> {
    store: &'a Store,
    experiment: ExperimentId,
    db: &'a Path,
    wanted: &'a [&'a Planned],
    config: String,
    threads: usize,
    process: String,
    /// The run of each worker.
    active: Mutex<Vec<Option<RunId>>>,
    progress: progress::Sweep,
    over: AtomicUsize,
    trials: usize,
    /// Whether it was said that there is nothing to do but wait.
    waited: AtomicBool,
    /// Whether it was said that the GPU is gone.
    lost: AtomicBool,
    stop: &'static Stop,
}

/// A trial that this process has claimed.
struct Job<'a> {
    claim: Claim,
    planned: &'a Planned,
    device: Device,
}

impl TrialQueue<'_> {
    /// Workers are told apart across processes, past ones included.
    fn worker(&self, worker: usize) -> String {
        format!("{}-{worker}", self.process)
    }

    fn keep_leases(&self, ended: &AtomicBool) {
        while !ended.load(SeqCst) {
            std::thread::park_timeout(RENEWAL);
            let active = self.active.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (worker, run) in active.into_iter().enumerate() {
                if let Some(run) = run {
                    // A lease that is lost shows when the worker next writes, where it can be handled.
                    let _ = self.store.renew(run, &self.worker(worker), LEASE);
                }
            }
        }
    }

    fn set_active(&self, worker: usize, run: Option<RunId>) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)[worker] = run;
    }

    fn finish(&self, worker: usize, job: &Job, outcome: &Outcome) -> anyhow::Result<()> {
        self.store.finish(job.claim.run, &self.worker(worker), outcome)?;
        self.set_active(worker, None);
        if !matches!(outcome, Outcome::Interrupted { .. }) {
            let over = self.over.fetch_add(1, SeqCst) + 1;
            self.progress.finished(worker, over, self.trials);
        }
        if let Outcome::Failed { message, .. } = outcome {
            let label = job.planned.trial.label();
            self.progress.line(&format!("failed: {label} (run {}): {message}", job.claim.run.0));
        }
        Ok(())
    }
}

impl<'a> Queue for TrialQueue<'a> {
    type Job = Job<'a>;
    type Error = anyhow::Error;

    fn claim(&self, worker: usize) -> anyhow::Result<sweep::Claim<Job<'a>>> {
        let (mut elsewhere, mut known) = (false, false);
        for state in self.store.trial_states(self.experiment)? {
            let Some(planned) = self.wanted.iter().find(|planned| planned.identity == state.identity) else { continue };
            if matches!(state.status, RunStatus::Done | RunStatus::Failed) {
                continue;
            }
            let fingerprint = &planned.prepared.manifest().fingerprint;
            // Without a GPU nothing began. One that is lost on the way leaves the trials that insist on it for another time.
            let Ok(device) = Device::resolve(planned.trial.settings.train.device) else { continue };
            let provenance: Provenance = provenance::of_run(&self.config, &device, self.threads, fingerprint);
            if let Some(claim) =
                self.store.claim(self.experiment, &planned.identity, &self.worker(worker), LEASE, &provenance)?
            {
                self.set_active(worker, Some(claim.run));
                return Ok(sweep::Claim::Job(Job { claim, planned, device }));
            }
            // Without a holder it was free a moment ago: somebody, perhaps of this process, was faster.
            elsewhere |= state.worker.as_ref().is_none_or(|holder| !holder.starts_with(&self.process));
            known |= state.worker.is_some_and(|holder| !holder.starts_with(&self.process));
        }
        if known && !self.waited.swap(true, SeqCst) {
            let lease_s = LEASE.as_secs();
            self.progress
                .line(&format!("waiting for trials of another process; a dead one's are free within {lease_s} s"));
        }
        Ok(if elsewhere { sweep::Claim::Wait } else { sweep::Claim::Empty })
    }

    fn run(&self, worker: usize, job: &Job<'a>) -> anyhow::Result<Ended> {
        let label = job.planned.trial.label();
        self.progress.started(worker, &label);
        let mut listener = Listener { queue: self, worker, job, label, training: None, completed: 0 };
        let folder = Some(run_folder(self.db, job.claim.run));
        let options = Options { threads: self.threads, device: job.device.clone(), folder };
        let result = train::run(&job.planned.trial, &job.planned.prepared, &options, &mut listener, self.stop);
        let completed = listener.completed;
        let (outcome, ended) = match result {
            Ok(train::Outcome::Finished(summary)) => {
                let outcome = Outcome::Done {
                    tested_epoch: completed,
                    checkpoint: summary.weights.map(|path| path.display().to_string()),
                    train_seconds: summary.train_seconds,
                    peak_memory_bytes: provenance::peak_memory_bytes(),
                };
                (outcome, Ended::Done)
            }
            Ok(train::Outcome::Interrupted { completed_epochs }) => {
                (Outcome::Interrupted { checkpoint_epoch: Some(completed_epochs) }, Ended::Interrupted)
            }
            Err(TrainError::Sink(error)) => anyhow::bail!("run {}: {error}", job.claim.run.0),
            Err(error) => {
                let kind = match error {
                    TrainError::Diverged { .. } => "not-finite",
                    TrainError::File { .. } => "io",
                    TrainError::Device(_) => "device",
                    _ => "refused",
                };
                (Outcome::Failed { kind: kind.to_owned(), message: error.to_string() }, Ended::Failed)
            }
        };
        self.finish(worker, job, &outcome)?;
        if job.device.is_lost() && !self.lost.swap(true, SeqCst) {
            self.progress.line(
                "the GPU was lost to this process: trials with train.device = auto go on on the processor, those with cuda are left \
                 to the next sweep",
            );
        }
        Ok(ended)
    }

    fn panicked(&self, worker: usize, job: &Job<'a>, message: &str) -> anyhow::Result<()> {
        self.finish(worker, job, &Outcome::Failed { kind: "panic".to_owned(), message: message.to_owned() })
    }
}

/// Writes a run down as it happens.
struct Listener<'a> {
    queue: &'a TrialQueue<'a>,
    worker: usize,
    job: &'a Job<'a>,
    label: String,
    training: Option<Instant>,
    completed: u32,
}

impl Sink for Listener<'_> {
    fn event(&mut self, event: Event) -> Result<(), SinkError> {
        let (store, run, worker) = (self.queue.store, self.job.claim.run, self.queue.worker(self.worker));
        match event {
            Event::Started { completed_epochs, .. } => {
                store.rewind(run, &worker, completed_epochs)?;
                self.queue.progress.skip(completed_epochs);
                self.training = Some(Instant::now());
                self.completed = completed_epochs;
            }
            Event::Step(at) => {
                let seconds = self.training.map_or(0.0, |start| start.elapsed().as_secs_f64());
                self.queue.progress.step(self.worker, &at, at.images as f64 / seconds);
            }
            Event::Epoch(record) => {
                let validation = record.validation.as_ref();
                store.record_epoch(
                    run,
                    &worker,
                    &EpochRow {
                        epoch: record.epoch,
                        learning_rate: record.learning_rate,
                        train_loss: record.train_loss,
                        train_penalty: record.train_penalty,
                        train_top1: record.train_top1,
                        train_top5: record.train_top5,
                        validation_loss: validation.map(|v| v.loss),
                        validation_top1: validation.map(|v| v.top1),
                        validation_top5: validation.map(|v| v.top5),
                        images_per_second: record.images_per_second,
                        epoch_seconds: record.epoch_seconds,
                        steps: record.steps,
                    },
                )?;
                self.completed = record.epoch;
                let epochs = self.job.planned.trial.settings.train.epochs;
                self.queue.progress.epoch(self.worker, &self.label, epochs, record);
            }
            Event::Checkpoint { completed_epochs, path } => {
                store.record_checkpoint(run, &worker, completed_epochs, &path.display().to_string())?;
            }
            Event::Tested(record) => {
                let evaluation = &record.evaluation;
                let row = EvaluationRow {
                    split: Split::Test,
                    epoch: self.completed,
                    loss: evaluation.loss,
                    top1: evaluation.top1,
                    top5: evaluation.top5,
                    images: u32::try_from(evaluation.predictions.len())?,
                    seconds: record.seconds,
                };
                store.record_evaluation(run, &worker, &row, Some(&evaluation.predictions))?;
            }
        }
        Ok(())
    }
}
