//! Runs trials out of the results database: the wall between training and storing stands here.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use dataset::Prepared;
use plan::{Experiment, Trial};
use store::{NewExperiment, NewTrial, RunId, RunStatus, Store, StoreError, TrialState};
use sweep::{Tally, halving::Noise};
use train::{Device, Stop};

use crate::{
    cli::{Global, Machine},
    data,
    forecast::{self, Memory, memory_limit},
    progress, provenance,
    queue::{TrialQueue, Wanted},
    searching::{self, Searching},
};

/// Asked for by the first Ctrl-C; the second ends the process.
static STOP: Stop = Stop::new();

/// Whether the process is ending in the middle of its work.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Never comes back while the process ends in the middle of its work: libraries have shut down by then, and what fails with them is no
/// result of a trial.
pub fn wait_if_ending() {
    while ENDING.load(SeqCst) {
        std::thread::park();
    }
}

/// Stops at the next step on Ctrl-C (or SIGTERM), at once on the second.
pub fn stop_on_interrupt() -> anyhow::Result<&'static Stop> {
    ctrlc::set_handler(|| {
        if STOP.requested() {
            ENDING.store(true, SeqCst);
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
    /// What its schedule has yet to gain.
    pub noise: Noise,
}

/// An experiment whose data is prepared and whose networks fit it.
pub struct Ready {
    /// The experiment.
    pub experiment: Experiment,
    /// As it was named.
    pub file: PathBuf,
    /// Changes to it from the command line.
    pub overrides: Vec<String>,
    /// The trials of its plan, in order.
    pub trials: Vec<Arc<Planned>>,
    /// Its searches, which add trials while the sweep runs.
    pub searches: Vec<Searching>,
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
        Device::for_training(&trial.settings.train)
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
        trials.push(Arc::new(Planned::new(trial, prepared, file)?));
    }
    let configurations: Vec<(&Trial, String)> =
        trials.iter().map(|planned| (&planned.trial, planned.configuration())).collect();
    let searches = searching::searches(&experiment, &configurations);
    Ok(Ready { experiment, file: file.to_owned(), overrides: overrides.to_vec(), trials, searches })
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
    /// Whether the network fits the images is found out here.
    pub fn new(trial: Trial, prepared: Prepared, file: &Path) -> anyhow::Result<Self> {
        let in_trial = || format!("{}: trial {}", file.display(), trial.label());
        let loader =
            dataset::Loader::new(&prepared, &trial.settings.augment).map_err(|error| data::in_file(error, file))?;
        let (c, h, w) = loader.input_size();
        let network =
            graph::Network::new(&trial.settings.model, [c, h, w], prepared.classes()).with_context(in_trial)?;
        train::check_frozen_layers(&trial.settings.train, &network).with_context(in_trial)?;
        train::check_initial_weights(&trial, &network).with_context(in_trial)?;
        let identity = trial.identity(&prepared.manifest().fingerprint);
        let train = &trial.settings.train;
        // The few steps that the validation part makes it less are of no weight here.
        let steps = (prepared.manifest().train_images.div_ceil(train.batch_size)).max(1) as u32;
        let noise = Noise {
            group: train.optimizer as usize,
            to_lose: plan::noise_to_lose(train, steps),
            weight_decay: train.weight_decay,
        };
        Ok(Self { trial, prepared, network, identity, noise })
    }

    /// Hash of the trial and its data, without the seed.
    pub fn configuration(&self) -> String {
        self.trial.configuration_identity(&self.prepared.manifest().fingerprint)
    }

    /// Name of the architecture in the database.
    fn architecture(&self) -> &'static str {
        match self.trial.settings.model.architecture {
            plan::Architecture::LeNet5 => "lenet5",
            plan::Architecture::AlexNet => "alexnet",
        }
    }

    /// As the database keeps it.
    pub fn record(&self) -> NewTrial {
        let fingerprint = &self.prepared.manifest().fingerprint;
        let assignments = self.trial.assignments.iter().map(|(key, value)| (key.clone(), value.to_string()));
        NewTrial {
            identity: self.identity.clone(),
            configuration: self.configuration(),
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

/// Jobs and threads of each, for so many trials like these: as asked, or one job per core while trials are small.
pub fn share(machine: Machine, trials: &[Arc<Planned>], count: usize) -> (usize, usize) {
    let small = trials.iter().all(|planned| is_small(&planned.network, planned.trial.settings.train.batch_size));
    shared(machine, small, count.min(side_by_side(machine, trials)))
}

/// Whether two threads in one step of such a trial would mostly wait for each other.
pub fn is_small(network: &graph::Network, batch_size: usize) -> bool {
    /// Multiply-accumulates of a forward pass over a batch.
    const SMALL: u64 = 2_000_000_000;
    network.macs() * (batch_size as u64) < SMALL
}

/// Jobs, `most` at most, and threads of each: as asked, or one job per core where all trials are small.
pub fn shared(machine: Machine, small: bool, most: usize) -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = match (machine.jobs, machine.threads) {
        (Some(jobs), _) => jobs.into(),
        (None, Some(threads)) => (cores / usize::from(threads)).max(1),
        (None, None) if small => cores,
        (None, None) => 1,
    };
    let jobs = jobs.min(most).max(1);
    (jobs, machine.threads.map_or((cores / jobs).max(1), usize::from))
}

/// How many trials a GPU has room for, where nobody has said how many are to run.
fn side_by_side(machine: Machine, trials: &[Arc<Planned>]) -> usize {
    let room = |planned: &Arc<Planned>| {
        let train = &planned.trial.settings.train;
        let device = Device::for_training(train).ok()?;
        // A tenth is left to the driver and to others.
        let usable_bytes = device.memory_bytes()? / 10 * 9;
        let image_bytes = planned.prepared.pixels().len();
        let loader = dataset::Loader::new(&planned.prepared, &planned.trial.settings.augment).ok()?;
        let held = loader.has_recipes() && device.holds(image_bytes, &planned.network, train, 1, 1);
        let each_bytes = device.planned_bytes(&planned.network, train, 1, held).max(1);
        Some(usable_bytes.saturating_sub(if held { image_bytes } else { 0 }) / each_bytes)
    };
    match machine.jobs {
        Some(_) => usize::MAX,
        None => trials.iter().filter_map(room).min().unwrap_or(usize::MAX),
    }
}

/// How a sweep ended.
pub struct Swept {
    /// What it was stopped by, if not from the terminal.
    pub halt: Option<Halt>,
    /// How this process' trials ended.
    pub tally: Tally,
    /// Trials that were done when it began.
    pub before: usize,
    /// Where all trials of the experiment stand now.
    pub states: Vec<TrialState>,
    /// Epochs that are trained and those that are planned, with a pruner.
    pub epochs: Option<(u64, u64)>,
}

/// Why a sweep stops before its end, if not from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// A trial failed, and `sweep.on_failure` is `stop`.
    Failure,
    /// The time of `sweep.minutes` is over.
    Time,
}

/// Which trials that are over are run once more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redo {
    /// Those that are done.
    pub done: bool,
    /// Those that failed.
    pub failed: bool,
    /// Those that were left early go on to their end, and no others are left.
    pub pruned: bool,
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
    let (most, _) = share(machine, &ready.trials, usize::MAX);
    let mut fitting = most;
    let (mut memory, limit) = (Memory::default(), memory_limit());
    for planned in &ready.trials {
        let need =
            memory.of(&planned.network, &planned.trial.settings.train, planned.prepared.manifest().train_images, 1);
        fitting = forecast::fitting(need, fitting, machine.jobs.is_some(), &planned.trial.label(), limit)
            .map_err(|message| anyhow::anyhow!("{}: {message}", ready.file.display()))?;
    }
    let store = Store::open(&global.db)?;
    let experiment = NewExperiment {
        name: ready.experiment.name.clone(),
        question: ready.experiment.question.clone(),
        file: ready.file.display().to_string(),
        config_toml: std::fs::read_to_string(&ready.file)
            .with_context(|| format!("cannot read {}", ready.file.display()))?,
        command: provenance::command(),
    };
    let records: Vec<NewTrial> = ready.trials.iter().map(|planned| planned.record()).collect();
    let most = ready.experiment.sampler.as_ref().map_or(0, |sampler| sampler.configurations);
    let searches: Vec<(String, u32)> =
        ready.searches.iter().map(|search| (search.identity.clone(), most as u32)).collect();
    let earlier = match store.experiment(&experiment.name)? {
        Some(id) => store.trial_states(id)?,
        None => Vec::new(),
    };
    let id = store.record_search(&experiment, &records, &searches)?;
    if !global.quiet {
        let now: HashSet<String> = store.trial_states(id)?.into_iter().map(|state| state.identity).collect();
        let left = earlier.iter().filter(|state| state.run.is_some() && !now.contains(&state.identity)).count();
        if left > 0 {
            let (were, are) = if left == 1 { ("run", "is") } else { ("runs", "are") };
            eprintln!(
                "{left} {were} of the earlier plan of {} {are} no part of it any more, nor of its report; name=OTHER keeps both",
                experiment.name
            );
        }
    }
    let objectives = ready.experiment.policy.objectives();
    store.record_objectives(id, &objectives.iter().map(|objective| objective.name()).collect::<Vec<_>>())?;
    store.record_space(id, &spaces(&ready.experiment))?;
    for state in store.trial_states(id)?.iter().filter(|state| state.status == RunStatus::Running) {
        if let (Some(run), Some(worker)) = (state.run, &state.worker)
            && provenance::is_gone(worker)
        {
            store.release(run, worker)?;
        }
    }
    let mut wanted = match chosen {
        Some(positions) => Wanted::new(positions.iter().map(|&position| Arc::clone(&ready.trials[position]))),
        None => Wanted::new(ready.trials.iter().cloned()),
    };
    if chosen.is_none() {
        for search in &ready.searches {
            wanted.tried.push(search.planned()?);
        }
        wanted.learn(ready, &store)?;
    }
    let is_wanted = |state: &TrialState| wanted.find(&state.identity).is_some();
    let again: Vec<String> = store
        .trial_states(id)?
        .into_iter()
        .filter(|state| is_wanted(state))
        .filter(|state| {
            (redo.done && state.status == RunStatus::Done) || (redo.failed && state.status == RunStatus::Failed)
        })
        .map(|state| state.identity)
        .collect();
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    if !redo.done {
        // What the machine is to blame for goes on from its checkpoint, as the same run.
        store.go_on(&again)?;
    }
    let going_on: HashSet<String> = store
        .trial_states(id)?
        .into_iter()
        .filter(|state| !redo.done && state.status == RunStatus::Interrupted)
        .map(|state| state.identity)
        .collect();
    let anew: Vec<&str> = again.into_iter().filter(|identity| !going_on.contains(*identity)).collect();
    store.again(id, &anew)?;

    let states: Vec<TrialState> = store.trial_states(id)?.into_iter().filter(|state| is_wanted(state)).collect();
    // One trial by itself, or one that is to go on, is not compared with others.
    let pruner = ready.experiment.policy.pruner.as_ref().filter(|_| !redo.pruned && chosen.is_none());
    let over = |state: &TrialState| {
        matches!(state.status, RunStatus::Done | RunStatus::Failed)
            || (state.status == RunStatus::Pruned && pruner.is_some())
    };
    let done = states.iter().filter(|state| over(state)).count();
    let epochs_of = |state: &TrialState| {
        wanted.find(&state.identity).map_or(0, |planned| u64::from(planned.trial.settings.train.epochs))
    };
    let undecided: usize = wanted.tried.iter().map(|tried| most.saturating_sub(tried.len())).sum();
    let undecided = undecided * ready.experiment.seeds.len();
    let of_each = ready.trials.first().map_or(0, |planned| u64::from(planned.trial.settings.train.epochs));
    let epochs: u64 =
        undecided as u64 * of_each + states.iter().filter(|state| !over(state)).map(epochs_of).sum::<u64>();
    let (jobs, threads) = share(machine, &ready.trials, (wanted.count() + undecided).min(fitting));
    let queue = TrialQueue {
        store: &store,
        experiment: id,
        db: &global.db,
        ready,
        wanted: Mutex::new(wanted),
        config: provenance::words(
            std::iter::once(ready.file.display().to_string()).chain(ready.overrides.iter().cloned()),
        ),
        threads,
        process: provenance::process(now_ms()),
        active: Mutex::new(vec![None; jobs]),
        progress: progress::Sweep::new(global.quiet, jobs, states.len() + undecided, done, epochs),
        over: AtomicUsize::new(done),
        trials: states.len() + undecided,
        waited: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        stop,
        policy: &ready.experiment.policy,
        pruner,
        retried: Mutex::default(),
        halt: Mutex::new(None),
        deadline: ready.experiment.policy.minutes.map(|minutes| Instant::now() + minutes_of(minutes)),
    };
    if let Some(reason) = ready.trials.iter().find_map(|planned| Device::refusal(&planned.trial.settings.train)) {
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
    let wanted = queue.wanted.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_wanted = |state: &TrialState| wanted.find(&state.identity).is_some();
    let states: Vec<TrialState> = store.trial_states(id)?.into_iter().filter(is_wanted).collect();
    let epochs_of = |state: &TrialState| {
        wanted.find(&state.identity).map_or(0, |planned| u64::from(planned.trial.settings.train.epochs))
    };
    let trained = states.iter().map(|state| u64::from(state.epochs)).sum();
    let epochs = pruner.map(|_| (trained, states.iter().map(epochs_of).sum()));
    let halt = *queue.halt.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Swept { halt, tally: tally?, before, states, epochs })
}

/// A time limit; one of more than a century is none.
pub fn minutes_of(minutes: f64) -> Duration {
    Duration::from_secs_f64((minutes * 60.0).min(3.2e9))
}

/// Now, in milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// The keys of `[sweep.space]`, those of variants too, as the store has them. What differs between variants is left out.
fn spaces(experiment: &Experiment) -> Vec<(String, &'static str, String)> {
    let sweeps = experiment.variants.iter().map(|variant| &variant.sweep).chain([&experiment.sweep]);
    let all: Vec<&plan::Parameter> = sweeps.flat_map(|sweep| &sweep.space).collect();
    let mut spaces = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let first = !all[..at].iter().any(|other| other.key == one.key);
        if first && all.iter().all(|other| other.key != one.key || other.distribution == one.distribution) {
            let ends = serde_json::Value::from(one.distribution.ends()).to_string();
            spaces.push((one.key.clone(), one.distribution.name(), ends));
        }
    }
    spaces
}
