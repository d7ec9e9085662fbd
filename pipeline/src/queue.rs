//! The queue of a sweep: which trial a worker takes up, how far it may go, and what is written down of it.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use plan::{OnFailure, Policy, Pruner, SamplerKind};
use store::{
    Claim, EpochRow, EvaluationRow, ExperimentId, FailureRow, NewTrial, Outcome, Provenance, RunId, RunStatus, Split,
    Standing, Store,
};
use sweep::{Ended, Queue};
use train::{Device, Event, Options, Sink, SinkError, Stop, TrainError};

use crate::{
    adaptive::{self, Goal},
    progress, provenance,
    runner::{Halt, Planned, Ready, minutes_of, now_ms, run_folder, wait_if_ending},
    searching::{Searching, Tried},
};

/// A worker that gives no sign of life for this long is taken for dead, and its trial for free.
const LEASE: Duration = Duration::from_secs(10);
/// Time between two signs of life.
const RENEWAL: Duration = Duration::from_secs(2);

/// The trials of one experiment, as the database has them.
pub struct TrialQueue<'a> {
    pub store: &'a Store,
    pub experiment: ExperimentId,
    pub db: &'a Path,
    pub ready: &'a Ready,
    pub wanted: Mutex<Wanted>,
    pub config: String,
    pub threads: usize,
    pub process: String,
    /// The run of each worker.
    pub active: Mutex<Vec<Option<RunId>>>,
    pub progress: progress::Sweep,
    pub over: AtomicUsize,
    pub trials: usize,
    /// Whether it was said that there is nothing to do but wait.
    pub waited: AtomicBool,
    /// Whether it was said that the GPU is gone.
    pub lost: AtomicBool,
    pub stop: &'static Stop,
    pub policy: &'a Policy,
    pub pruner: Option<&'a Pruner>,
    /// How often each run was taken up again after a failure of the machine.
    pub retried: Mutex<HashMap<RunId, u32>>,
    /// Why this sweep stops by itself.
    pub halt: Mutex<Option<Halt>>,
    /// When it does, for lack of time.
    pub deadline: Option<Instant>,
}

/// The trials that a sweep is about, as far as this process knows them.
pub struct Wanted {
    /// Those of the plan and those that searches have decided, by their identities.
    planned: HashMap<String, Arc<Planned>>,
    /// For each search the configurations that it has tried.
    pub tried: Vec<Vec<Tried>>,
}

impl Wanted {
    /// Trials of the plan; no search has tried anything.
    pub fn new(planned: impl IntoIterator<Item = Arc<Planned>>) -> Self {
        let planned = planned.into_iter().map(|planned| (planned.identity.clone(), planned)).collect();
        Self { planned, tried: Vec::new() }
    }

    /// The trial of this identity.
    pub fn find(&self, identity: &str) -> Option<&Arc<Planned>> {
        self.planned.get(identity)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.planned.len()
    }

    /// Adds what searches have decided since, be it in this process or in another.
    pub fn learn(&mut self, ready: &Ready, store: &Store) -> anyhow::Result<()> {
        let most = ready.experiment.sampler.as_ref().map_or(0, |sampler| sampler.configurations);
        for (search, tried) in ready.searches.iter().zip(&mut self.tried) {
            for suggestion in store.suggestions(&ready.experiment.name, &search.identity)? {
                let number = suggestion.number as usize;
                if number != tried.len() || number >= most {
                    continue;
                }
                let values = Searching::values(&suggestion)?;
                let planned = suggested(ready, search, &values)?;
                let Some(first) = planned.first() else { continue };
                tried.push(Tried { point: search.point(&values)?, configuration: first.configuration() });
                self.planned.extend(planned.into_iter().map(|planned| (planned.identity.clone(), Arc::new(planned))));
            }
        }
        Ok(())
    }
}

/// The trials of a point of a search.
fn suggested(ready: &Ready, search: &Searching, values: &[serde_json::Value]) -> anyhow::Result<Vec<Planned>> {
    let file = &ready.file;
    let trials = ready.experiment.suggested(&search.search, values);
    let trials = trials.with_context(|| format!("{}: a point of the search", file.display()))?;
    let planned = trials.into_iter().map(|mut trial| {
        train::note_initial_weights(&mut trial)?;
        // A search does not vary the data.
        let alike = ready.trials.iter().find(|planned| planned.trial.settings.dataset == trial.settings.dataset);
        let prepared = alike.context("a search varies the data")?.prepared.clone();
        Planned::new(trial, prepared, file)
    });
    planned.collect()
}

/// What searches have to say when there is nothing to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// There is something new to be claimed.
    New,
    /// What is under way comes first: its generation is not complete.
    Later,
    /// No more.
    Nothing,
}

/// A trial that this process has claimed.
pub struct Job {
    claim: Claim,
    planned: Arc<Planned>,
    device: Device,
    /// Epochs after which it is asked whether it may go on; all of them without a pruner.
    until: u32,
}

impl TrialQueue<'_> {
    /// Workers are told apart across processes, past ones included.
    fn worker(&self, worker: usize) -> String {
        format!("{}-{worker}", self.process)
    }

    /// Renews the leases of this process' trials until it has ended.
    pub fn keep_leases(&self, ended: &AtomicBool) {
        while !ended.load(SeqCst) {
            std::thread::park_timeout(RENEWAL);
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.halt(Halt::Time);
            }
            let active = self.active.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (worker, run) in active.into_iter().enumerate() {
                if let Some(run) = run {
                    // A lease that is lost shows when the worker next writes, where it can be handled.
                    let _ = self.store.renew(run, &self.worker(worker), LEASE);
                }
            }
        }
    }

    /// Stops all workers of this process after the step at hand.
    fn halt(&self, reason: Halt) {
        let mut halt = self.halt.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.stop.requested() {
            *halt = Some(reason);
            self.stop.request();
        }
    }

    /// Where all trials stand and how far each may go. Those whose time to be left has come are marked so.
    fn field(&self, pruner: &Pruner) -> anyhow::Result<Vec<(Standing, Goal)>> {
        let mut standings = self.store.standings(self.experiment)?;
        let now_ms = now_ms();
        let is_dead = |standing: &Standing| standing.lease_until_ms.is_some_and(|lease| lease <= now_ms);
        if standings.iter().any(|standing| standing.status == RunStatus::Running && is_dead(standing)) {
            // A run that was killed where it would have been compared must not go on unasked.
            self.store.release_dead(self.experiment)?;
            standings = self.store.standings(self.experiment)?;
        }
        self.learn(standings.iter().map(|standing| standing.identity.as_str()))?;
        let wanted = self.wanted();
        standings.retain(|standing| wanted.find(&standing.identity).is_some());
        let noise = |standing: &Standing| wanted.find(&standing.identity).map(|planned| &planned.noise);
        let goals = adaptive::goals(pruner, self.policy.objective, &standings, noise);
        drop(wanted);
        Ok(standings.into_iter().zip(goals).collect())
    }

    /// Whether others of its network are still on their way to where a trial is compared, so that what was decided of it may change.
    fn may_change(&self, field: &[(Standing, Goal)], compared: &Standing) -> bool {
        let together = self.pruner.is_some_and(|pruner| adaptive::is_together(pruner, !self.ready.searches.is_empty()));
        let come = compared.validations.len();
        let is_behind = |other: &Standing, goal: &Goal| {
            other.network == compared.network
                && other.validations.len() < come
                && matches!(goal, Goal::Until(until) if *until as usize <= come)
                && !matches!(other.status, RunStatus::Done | RunStatus::Failed | RunStatus::Pruned)
        };
        together && field.iter().any(|(other, goal)| is_behind(other, goal))
    }

    fn prune(&self, field: &[(Standing, Goal)]) -> anyhow::Result<()> {
        for (standing, goal) in field {
            let (Goal::Left(pruning), Some(run)) = (goal, standing.run) else { continue };
            let is_there = standing.validations.len() == pruning.epoch as usize && !self.may_change(field, standing);
            if standing.status == RunStatus::Interrupted
                && is_there
                && self.store.prune(self.experiment, run, pruning)?
            {
                let label = self.wanted().find(&standing.identity).map_or_else(String::new, |p| p.trial.label());
                self.progress.line(&format!("left: {label} {}", why(pruning)));
            }
        }
        Ok(())
    }

    /// The trials that could be taken up, the one whose turn it is first, each with the epoch it may go to.
    fn open<'f>(&self, pruner: &Pruner, field: &'f [(Standing, Goal)]) -> Vec<(u32, &'f Standing)> {
        let mut open: Vec<_> = field
            .iter()
            .enumerate()
            .filter_map(|(position, (standing, goal))| {
                let until = adaptive::is_open(pruner, standing, goal).filter(|_| !self.may_change(field, standing))?;
                let searching = !self.ready.searches.is_empty();
                Some((adaptive::turn(pruner, searching, until, position), until, standing))
            })
            .collect();
        open.sort_by_key(|(turn, ..)| *turn);
        open.into_iter().map(|(_, until, standing)| (until, standing)).collect()
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what other processes have decided where there are trials in the plan that this one does not know.
    fn learn<'n>(&self, mut identities: impl Iterator<Item = &'n str>) -> anyhow::Result<()> {
        let mut wanted = self.wanted();
        if !wanted.tried.is_empty() && identities.any(|identity| wanted.find(identity).is_none()) {
            wanted.learn(self.ready, self.store)?;
        }
        Ok(())
    }

    /// Decides the next configuration of the first search that wants one, and adds its trials to the plan.
    fn decide(&self) -> anyhow::Result<Decision> {
        let Some(sampler) = &self.ready.experiment.sampler else { return Ok(Decision::Nothing) };
        // Workers of this process decide one after the other, each knowing of the one before.
        let mut wanted = self.wanted();
        if wanted.tried.is_empty() {
            return Ok(Decision::Nothing);
        }
        wanted.learn(self.ready, self.store)?;
        let standings = self.store.standings(self.experiment)?;
        let mut decision = Decision::Nothing;
        for (place, search) in self.ready.searches.iter().enumerate() {
            let tried = &wanted.tried[place];
            if tried.len() >= sampler.configurations {
                continue;
            }
            let next = search.next(tried, &standings, &self.policy.objectives(), sampler);
            let Some((values, known, pending)) = next else {
                let running = standings.iter().any(|standing| standing.status == RunStatus::Running);
                if running && sampler.kind == SamplerKind::CmaEs {
                    decision = Decision::Later;
                }
                continue;
            };
            let suggestion = store::Suggestion {
                search: search.identity.clone(),
                number: tried.len() as u32,
                point: serde_json::Value::from(values.clone()).to_string(),
                known,
                pending,
            };
            let records: Vec<NewTrial> = suggested(self.ready, search, &values)?.iter().map(Planned::record).collect();
            // Where another process was faster, its decision is as good.
            self.store.suggest(self.experiment, &suggestion, &records)?;
            wanted.learn(self.ready, self.store)?;
            return Ok(Decision::New);
        }
        Ok(decision)
    }

    fn take(
        &self,
        worker: usize,
        (planned, device): (Arc<Planned>, Device),
        until: u32,
    ) -> anyhow::Result<Option<Job>> {
        let fingerprint = &planned.prepared.manifest().fingerprint;
        let provenance: Provenance = provenance::of_run(&self.config, &device, self.threads, fingerprint);
        let name = self.worker(worker);
        let claim = self.store.claim(self.experiment, &planned.identity, &name, LEASE, &provenance)?;
        if let Some(claim) = &claim {
            self.set_active(worker, Some(claim.run));
        }
        Ok(claim.map(|claim| Job { claim, planned, device, until }))
    }

    /// The first trial of the plan that nobody has.
    fn claim_planned(&self, worker: usize) -> anyhow::Result<sweep::Claim<Job>> {
        let (mut elsewhere, mut known) = (false, false);
        let states = self.store.trial_states(self.experiment)?;
        self.learn(states.iter().map(|state| state.identity.as_str()))?;
        for state in states {
            if matches!(state.status, RunStatus::Done | RunStatus::Failed) {
                continue;
            }
            let Some(planned) = self.wanted().find(&state.identity).cloned() else { continue };
            // Without a GPU nothing began. One that is lost on the way leaves the trials that insist on it for another time.
            let Ok(device) = Device::for_training(&planned.trial.settings.train) else { continue };
            if let Some(job) = self.take(worker, (Arc::clone(&planned), device), planned.trial.settings.train.epochs)? {
                return Ok(sweep::Claim::Job(job));
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

    /// A trial that the pruner lets go on.
    fn claim_pruned(&self, worker: usize, pruner: &Pruner) -> anyhow::Result<sweep::Claim<Job>> {
        let field = self.field(pruner)?;
        self.prune(&field)?;
        for (until, standing) in self.open(pruner, &field) {
            let Some(planned) = self.wanted().find(&standing.identity).cloned() else { continue };
            let Ok(device) = Device::for_training(&planned.trial.settings.train) else { continue };
            if let Some(job) = self.take(worker, (planned, device), until)? {
                return Ok(sweep::Claim::Job(job));
            }
        }
        // What those come to that are under way may make room for others.
        let under_way = field.iter().any(|(standing, _)| standing.status == RunStatus::Running);
        Ok(if under_way { sweep::Claim::Wait } else { sweep::Claim::Empty })
    }

    /// Epochs that a trial which has come to its goal may go on to without a break: it is still its turn.
    fn further(&self, pruner: &Pruner, job: &Job, completed: u32) -> anyhow::Result<Option<u32>> {
        let mut field = self.field(pruner)?;
        let Some((own, _)) = field.iter_mut().find(|(standing, _)| standing.identity == job.planned.identity) else {
            return Ok(None);
        };
        own.status = RunStatus::Interrupted;
        let open = self.open(pruner, &field);
        let first = open.first().filter(|(_, standing)| standing.identity == job.planned.identity);
        Ok(first.map(|(until, _)| *until).filter(|until| *until > completed))
    }

    /// Time that earlier claims on a run have taken, as far as its epochs tell.
    fn spent(&self, run: RunId) -> anyhow::Result<Duration> {
        let sql = "SELECT coalesce(sum(epoch_seconds), 0.0) FROM epochs WHERE run_id = ?1";
        let table = self.store.query(sql, &[run.0.into()])?;
        Ok(match table.rows.first().and_then(|row| row.first()) {
            Some(store::Value::Real(seconds)) => Duration::from_secs_f64(seconds.clamp(0.0, 3.2e9)),
            _ => Duration::ZERO,
        })
    }

    fn set_active(&self, worker: usize, run: Option<RunId>) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)[worker] = run;
    }

    fn finish(&self, worker: usize, job: &Job, outcome: &Outcome) -> anyhow::Result<()> {
        wait_if_ending();
        self.store.finish(job.claim.run, &self.worker(worker), outcome)?;
        self.set_active(worker, None);
        if let Outcome::Failed { kind, message } = outcome
            && self.retries(job, kind)?
        {
            let label = job.planned.trial.label();
            self.progress.line(&format!("once more: {label} (run {}), after {message}", job.claim.run.0));
            return Ok(());
        }
        if !matches!(outcome, Outcome::Interrupted { .. }) {
            let over = self.over.fetch_add(1, SeqCst) + 1;
            self.progress.finished(worker, over, self.trials);
        }
        if let Outcome::Failed { message, .. } = outcome {
            let label = job.planned.trial.label();
            self.progress.line(&format!("failed: {label} (run {}): {message}", job.claim.run.0));
            if self.policy.on_failure == OnFailure::Stop {
                self.halt(Halt::Failure);
            }
        }
        Ok(())
    }

    /// Lets a trial go on after a failure of the machine, as often as `sweep.retries` says.
    fn retries(&self, job: &Job, kind: &str) -> anyhow::Result<bool> {
        if !matches!(kind, "panic" | "io" | "device") {
            return Ok(false);
        }
        let mut retried = self.retried.lock().unwrap_or_else(PoisonError::into_inner);
        let times = retried.entry(job.claim.run).or_default();
        if *times >= self.policy.retries {
            return Ok(false);
        }
        *times += 1;
        Ok(self.store.go_on(&[&job.planned.identity])? > 0)
    }

    /// What there is to go back to.
    fn failure(&self, job: &Job) -> FailureRow {
        let checkpoint = run_folder(self.db, job.claim.run).join(train::CHECKPOINT);
        let checkpoint = checkpoint.exists().then(|| checkpoint.display().to_string());
        FailureRow { checkpoint, ..FailureRow::default() }
    }

    fn record_failure(&self, worker: usize, job: &Job, failure: &FailureRow) -> anyhow::Result<()> {
        wait_if_ending();
        Ok(self.store.record_failure(job.claim.run, &self.worker(worker), failure)?)
    }
}

/// Why a trial was left, for people.
pub fn why(pruning: &store::Pruning) -> String {
    let store::Pruning { epoch, objective, value, threshold, competitors, .. } = pruning;
    let threshold = match (threshold, competitors) {
        (None, _) => String::new(),
        (Some(threshold), 1) => format!(", {threshold:.4} would have been an improvement"),
        (Some(threshold), _) => format!(", {threshold:.4} would have been needed among {competitors}"),
    };
    format!("after epoch {epoch}: {objective} {value:.4}{threshold}")
}

/// Removes what a database that was thrown away has left in a new run's folder: going on from there would skip epochs that are
/// recorded nowhere.
fn without_checkpoint(folder: &Path) -> Result<(), TrainError> {
    let path = folder.join(train::CHECKPOINT);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::File { action: "remove", path, source })
        }
        _ => Ok(()),
    }
}

impl Queue for TrialQueue<'_> {
    type Job = Job;
    type Error = anyhow::Error;

    fn claim(&self, worker: usize) -> anyhow::Result<sweep::Claim<Job>> {
        loop {
            let claim = match self.pruner {
                Some(pruner) => self.claim_pruned(worker, pruner)?,
                None => self.claim_planned(worker)?,
            };
            if matches!(claim, sweep::Claim::Job(_)) {
                return Ok(claim);
            }
            match self.decide()? {
                Decision::New => {}
                Decision::Later => return Ok(sweep::Claim::Wait),
                Decision::Nothing => return Ok(claim),
            }
        }
    }

    fn run(&self, worker: usize, job: &Job) -> anyhow::Result<Ended> {
        let label = job.planned.trial.label();
        self.progress.started(worker, &label);
        let until = job.until;
        let mut listener = Listener { queue: self, worker, job, label, training: None, completed: 0, until };
        let deadline = match self.policy.trial_minutes {
            Some(minutes) => Some(Instant::now() + minutes_of(minutes).saturating_sub(self.spent(job.claim.run)?)),
            None => None,
        };
        let folder = run_folder(self.db, job.claim.run);
        let emptied = if job.claim.claims == 1 { without_checkpoint(&folder) } else { Ok(()) };
        let jobs = self.active.lock().unwrap_or_else(PoisonError::into_inner).len();
        let (device, folder) = (job.device.clone(), Some(folder));
        let options = Options { threads: self.threads, device, folder, deadline, jobs };
        let result = emptied
            .and_then(|()| train::run(&job.planned.trial, &job.planned.prepared, &options, &mut listener, self.stop));
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
                let too_long = deadline.is_some_and(|deadline| Instant::now() >= deadline) && !self.stop.requested();
                match self.policy.trial_minutes.filter(|_| too_long) {
                    Some(minutes) => {
                        let message = format!(
                            "took longer than sweep.trial_minutes = {minutes}; with a higher limit --retry-failed goes on from its checkpoint"
                        );
                        let failure = FailureRow {
                            kind: "time".to_owned(),
                            message: message.clone(),
                            epoch: Some(completed_epochs + 1),
                            checkpoint_epoch: Some(completed_epochs),
                            ..self.failure(job)
                        };
                        self.record_failure(worker, job, &failure)?;
                        (Outcome::Failed { kind: failure.kind, message }, Ended::Failed)
                    }
                    None => (Outcome::Interrupted { checkpoint_epoch: Some(completed_epochs) }, Ended::Interrupted),
                }
            }
            Ok(train::Outcome::Paused { completed_epochs }) => {
                (Outcome::Interrupted { checkpoint_epoch: Some(completed_epochs) }, Ended::Paused)
            }
            Err(TrainError::Sink(error)) => anyhow::bail!("run {}: {error}", job.claim.run.0),
            Err(error) => {
                let kind = match error {
                    TrainError::Diverged { .. } => "not-finite",
                    TrainError::File { .. } => "io",
                    TrainError::Device(_) | TrainError::Precision(_) => "device",
                    _ => "refused",
                };
                let mut failure = FailureRow {
                    kind: kind.to_owned(),
                    message: error.to_string(),
                    epoch: Some(completed + 1),
                    checkpoint_epoch: Some(completed).filter(|epoch| *epoch > 0),
                    ..self.failure(job)
                };
                if let TrainError::Diverged { epoch, step, post_mortem, .. } = &error {
                    failure.epoch = Some(*epoch);
                    failure.step = Some(*step);
                    failure.learning_rate = Some(post_mortem.learning_rate);
                    failure.loss = post_mortem.last_loss;
                    failure.norms = Some(norms(post_mortem));
                }
                self.record_failure(worker, job, &failure)?;
                (Outcome::Failed { kind: failure.kind, message: failure.message }, Ended::Failed)
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

    fn panicked(&self, worker: usize, job: &Job, message: &str) -> anyhow::Result<()> {
        let failure = FailureRow { kind: "panic".to_owned(), message: message.to_owned(), ..self.failure(job) };
        self.record_failure(worker, job, &failure)?;
        self.finish(worker, job, &Outcome::Failed { kind: "panic".to_owned(), message: message.to_owned() })
    }
}

/// Norms of a run that diverged, as JSON; what is not a number is null.
fn norms(post_mortem: &train::PostMortem) -> String {
    let norms = post_mortem.norms.iter().map(|norms| {
        let train::Norms { name, before, after, moment } = norms;
        (name.clone(), serde_json::json!({ "before": before, "after": after, "moment": moment }))
    });
    serde_json::Value::Object(norms.collect()).to_string()
}

/// Writes a run down as it happens.
struct Listener<'a> {
    queue: &'a TrialQueue<'a>,
    worker: usize,
    job: &'a Job,
    label: String,
    training: Option<Instant>,
    completed: u32,
    until: u32,
}

impl Sink for Listener<'_> {
    fn goes_on(&mut self, completed_epochs: u32) -> Result<bool, SinkError> {
        let Some(pruner) = self.queue.pruner.filter(|_| completed_epochs >= self.until) else { return Ok(true) };
        let further = self.queue.further(pruner, self.job, completed_epochs)?;
        self.until = further.unwrap_or(completed_epochs);
        Ok(further.is_some())
    }

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
                store.record_epoch_with_steps(
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
                    &record.losses,
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
