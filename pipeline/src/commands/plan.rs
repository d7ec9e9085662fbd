//! `pipeline plan`: what a sweep would do, without doing it.

use std::{collections::HashMap, rc::Rc};

use ::plan::{Experiment, Settings, Source, Trial, preview};
use anyhow::Context;
use report::Cell;
use store::{NewestRun, Store};

use crate::{
    adaptive,
    cli::{self, Global, Machine, Rows},
    data,
    exit::Exit,
    forecast::{self, Basis, Memory, Pace, memory_limit},
    output::{self, bytes, integer, rows, text},
    provenance, runner,
    searching::{self, Searching},
};

/// What is known of a data set before or after it is prepared.
pub struct Shape {
    /// [C, H, W] that the network sees.
    pub input: [usize; 3],
    /// Classes of the images.
    pub classes: usize,
    training_images: Option<usize>,
    fingerprint: Option<String>,
}

/// The shape of the prepared data, or what its source is known to hold.
pub fn shape(settings: &Settings, global: &Global) -> anyhow::Result<Option<Shape>> {
    let dataset = &settings.dataset;
    if let Some(prepared) = dataset::find(dataset, &data::cache(global)?)? {
        let (c, h, w) = dataset::Loader::new(&prepared, &settings.augment)?.input_size();
        return Ok(Some(Shape {
            input: [c, h, w],
            classes: prepared.classes(),
            training_images: Some(prepared.splits(dataset).train.len()),
            fingerprint: Some(prepared.manifest().fingerprint.clone()),
        }));
    }
    let side = settings.input_size().or((dataset.source == Source::Idx).then_some(28));
    let channels = dataset.color.map(::plan::Color::channels);
    let classes = (!matches!(dataset.source, Source::Images | Source::Imagenet)).then_some(10);
    let drawn = |images: usize| images - (images as f64 * dataset.validation_fraction).round() as usize;
    let training_images = (dataset.source == Source::Glyphs).then(|| dataset.train_images.map(drawn)).flatten();
    Ok(side.zip(channels).zip(classes).map(|((side, channels), classes)| Shape {
        input: [channels, side, side],
        classes,
        training_images,
        fingerprint: None,
    }))
}

/// Learning rates of the epochs, runs of equal ones together: `0.0005×2 0.0002×3`.
fn rates(rates: &[f64]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut rest = rates;
    while let Some(&rate) = rest.first() {
        let count = rest.iter().take_while(|&&other| other == rate).count();
        let rounded: f64 = format!("{rate:.3e}").parse().unwrap_or(rate);
        out.push(if count > 1 { format!("{rounded}×{count}") } else { rounded.to_string() });
        rest = &rest[count..];
    }
    if out.len() > 8 {
        let last = out.len() - 1;
        return format!("{} … {} … {}", out[..3].join(" "), out[last / 2], out[last]);
    }
    out.join(" ")
}

/// What is to be run of a trial.
struct Pending {
    /// Its number.
    trial: usize,
    /// Trials of one network share it: there may be many.
    network: Rc<graph::Network>,
    fingerprint: Option<String>,
    steps: f64,
}

/// Says how long trials will take, shared out as a sweep does.
fn tell_estimate(
    pending: &[Pending],
    trials: &[Trial],
    store: Option<&Store>,
    machine: Machine,
    is_rough: bool,
) -> anyhow::Result<()> {
    if pending.is_empty() {
        eprintln!("estimate: nothing to run, or the data set is not prepared yet");
        return Ok(());
    }
    let is_small =
        |pending: &Pending| runner::is_small(&pending.network, trials[pending.trial].settings.train.batch_size);
    let (jobs, threads) = runner::shared(machine, pending.iter().all(is_small), pending.len());
    let mut pace = Pace::read(store)?;
    let (mut seconds, mut sources) = (0.0, Vec::new());
    for Pending { trial, network, fingerprint, steps } in pending {
        let (step_s, source) = pace.step_s(network, &trials[*trial], fingerprint.as_deref(), threads)?;
        seconds += steps * step_s;
        sources.push(source);
    }
    let from = match (sources.contains(&Basis::Recorded), sources.contains(&Basis::Probe)) {
        (true, false) => "from recorded runs of such networks on these data",
        (false, _) => "from a few steps",
        (true, true) => "from recorded runs where there are some, else from a few steps",
    };
    let note = if is_rough { "; a pruner makes it less, a search adds to it" } else { "" };
    let side = if jobs > 1 { format!(" with {jobs} side by side") } else { String::new() };
    eprintln!("estimate: {}{side}, {from}, without the tests{note}", forecast::duration(seconds / jobs as f64));
    Ok(())
}

/// Whether whoever had a run has ended, so that the next sweep takes it up.
fn is_dead(run: &NewestRun) -> bool {
    run.lease_until_ms.is_some_and(|lease| lease <= runner::now_ms())
        || run.worker.as_deref().is_some_and(provenance::is_gone)
}

/// The trials that searches have decided so far.
fn decided(
    plan: &Experiment,
    trials: &[Trial],
    store: Option<&Store>,
    experiment: &cli::Experiment,
    global: &Global,
) -> anyhow::Result<Vec<Trial>> {
    let Some(store) = store.filter(|_| plan.is_searching()) else { return Ok(Vec::new()) };
    let mut hashed = Vec::new();
    for trial in trials {
        let Some(prepared) = dataset::find(&trial.settings.dataset, &data::cache(global)?)? else {
            return Ok(Vec::new());
        };
        hashed.push((trial, trial.configuration_identity(&prepared.manifest().fingerprint)));
    }
    let mut decided = Vec::new();
    let most = plan.sampler.as_ref().map_or(0, |sampler| sampler.configurations);
    for search in searching::searches(plan, &hashed) {
        for suggestion in store.suggestions(&plan.name, &search.identity)? {
            if (suggestion.number as usize) < most {
                let values = Searching::values(&suggestion)?;
                let trials = plan.suggested(&search.search, &values);
                decided.extend(trials.with_context(|| format!("{}", experiment.file.display()))?);
            }
        }
    }
    for trial in &mut decided {
        ::train::note_initial_weights(trial)?;
    }
    Ok(decided)
}

/// Prints the trials, their size, learning rates and memory, and what has been run.
pub fn run(
    experiment: &cli::Experiment,
    estimate: bool,
    machine: Machine,
    to: &Rows,
    global: &Global,
) -> anyhow::Result<Exit> {
    let plan = Experiment::load(&experiment.file, &experiment.overrides)?;
    let store = if global.db.exists() { Some(Store::open_read_only(&global.db)?) } else { None };
    let known: HashMap<String, NewestRun> = match &store {
        Some(store) => store.newest_runs()?.into_iter().map(|run| (run.identity.clone(), run)).collect(),
        None => HashMap::new(),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (mut memory_of, limit) = (Memory::default(), memory_limit());
    let mut pending = Vec::new();
    let (mut unprepared, mut waiting, mut reused) = (false, 0, 0);
    let mut table = Vec::new();
    let mut trials = plan.trials();
    for trial in &mut trials {
        ::train::note_initial_weights(trial).with_context(|| format!("{}", experiment.file.display()))?;
    }
    let decided = decided(&plan, &trials, store.as_ref(), experiment, global)?;
    let undecided = plan.searches.len() * plan.sampler.as_ref().map_or(0, |sampler| sampler.configurations)
        - if plan.is_searching() { (trials.len() + decided.len()) / plan.seeds.len() } else { 0 };
    trials.extend(decided);
    for (number, trial) in trials.iter().enumerate() {
        let shape = shape(&trial.settings, global).map_err(|error| {
            data::missing(&trial.settings.dataset, &experiment.file)
                .unwrap_or_else(|| error.context(format!("{}", experiment.file.display())))
        })?;
        let train = &trial.settings.train;
        let network = match &shape {
            Some(shape) => Some(
                graph::Network::new(&trial.settings.model, shape.input, shape.classes)
                    .with_context(|| format!("{}: trial {}", experiment.file.display(), trial.label()))?,
            ),
            None => None,
        };
        if let Some(network) = &network {
            ::train::check_frozen_layers(train, network)
                .with_context(|| format!("{}: trial {}", experiment.file.display(), trial.label()))?;
        }
        // Until the data is prepared, its classes are a guess.
        let prepared = shape.as_ref().is_some_and(|shape| shape.fingerprint.is_some());
        if let Some(network) = network.as_ref().filter(|_| prepared) {
            ::train::check_initial_weights(trial, network)
                .with_context(|| format!("{}: trial {}", experiment.file.display(), trial.label()))?;
        }
        let images = shape.as_ref().and_then(|shape| shape.training_images);
        let memory =
            network.as_ref().map(|network| memory_of.of(network, train, images.unwrap_or(usize::MAX), threads));
        // Without knowing the data, a batch may be smaller than it says.
        if let Some(memory) = memory.filter(|_| images.is_some()) {
            let jobs = machine.jobs.map_or(1, usize::from);
            forecast::fitting(memory, jobs, machine.jobs.is_some(), &trial.label(), limit)
                .map_err(|message| anyhow::anyhow!("{}: {message}", experiment.file.display()))?;
        }
        let fingerprint = shape.as_ref().and_then(|shape| shape.fingerprint.clone());
        let identity = shape.as_ref().and_then(|shape| shape.fingerprint.as_ref()).map(|f| trial.identity(f));
        unprepared |= identity.is_none();
        let state = identity.and_then(|identity| known.get(&identity));
        let status = state.map_or("to run", |state| match state.status {
            store::RunStatus::Done if state.experiment.as_ref().is_some_and(|name| *name != plan.name) => "reused",
            store::RunStatus::Done => "done",
            store::RunStatus::Failed => "failed",
            store::RunStatus::Interrupted => "to go on",
            store::RunStatus::Pruned if plan.policy.pruner.is_some() => "left early",
            store::RunStatus::Pruned => "to go on",
            store::RunStatus::Running if is_dead(state) => "to go on",
            store::RunStatus::Running => "running",
            store::RunStatus::Queued => "to run",
        });
        waiting += usize::from(matches!(status, "to run" | "to go on"));
        reused += usize::from(status == "reused");
        let images = shape.as_ref().and_then(|shape| shape.training_images);
        let steps = images.map_or(1, |images| images.div_ceil(train.batch_size));
        if let (true, Some(network), Some(_), "to run" | "to go on") = (estimate, &network, images, status) {
            let epochs = train.epochs - state.map_or(0, |state| state.epochs).min(train.epochs);
            let steps = f64::from(epochs) * steps as f64;
            let known = pending.last().map(|last: &Pending| &last.network).filter(|last| ***last == *network);
            let network = known.cloned().unwrap_or_else(|| Rc::new(network.clone()));
            pending.push(Pending { trial: number, network, fingerprint: fingerprint.clone(), steps });
        }
        table.push(vec![
            integer(number),
            text(trial.label()),
            network.as_ref().map_or(Cell::Null, |network| integer(network.parameters())),
            integer(train.epochs),
            images.map_or(Cell::Null, |_| integer(steps)),
            text(rates(&preview(train, u32::try_from(steps)?))),
            memory.map_or(Cell::Null, |memory| text(bytes(memory))),
            text(status),
        ]);
    }
    rows(
        &["trial", "label", "parameters", "epochs", "steps_per_epoch", "learning_rates", "memory", "status"],
        &table,
        to,
    )?;
    if !global.quiet {
        let others = if reused > 0 { format!(", {reused} reused from other experiments") } else { String::new() };
        eprintln!("{}: {}, {waiting} to run{others}", plan.name, output::counted(trials.len(), "trial"));
        if estimate {
            let is_rough = plan.policy.pruner.is_some() || undecided > 0;
            tell_estimate(&pending, &trials, store.as_ref(), machine, is_rough)?;
        }
        if undecided > 0 {
            let kind = plan.sampler.as_ref().map_or("", |sampler| sampler.kind.name());
            let objectives: Vec<&str> = plan.policy.objectives().iter().map(|objective| objective.name()).collect();
            let (objective, seeds) = (objectives.join(" and "), plan.seeds.len());
            eprintln!(
                "{undecided} more configurations of {seeds} seed(s) are decided while the sweep runs: {kind}, by {objective} after the last epoch"
            );
        }
        if let Some(pruner) = &plan.policy.pruner {
            eprintln!("{}", adaptive::in_words(pruner, plan.policy.objective));
        }
        if unprepared {
            output::tell(&format!(
                "the data set is not prepared yet, so what has been run is not known: pipeline prepare {}",
                experiment.file.display()
            ));
        }
    }
    Ok(Exit::Fine)
}
