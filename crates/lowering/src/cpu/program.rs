//! A whole step as one luminal operator.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::{Rc, Weak},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use graph::{Buffer, State};
use luminal::{
    op::{InputTensor, Operator},
    prelude::{ShapeTracker, Tensor},
};

use super::{
    Kept, Plan,
    channels::Step,
    memory::{Memory, Place, layout},
    team::Team,
};

/// Multiply-adds of a kernel, in floating-point operations (two each). Zero where it computes no sums of products.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Of the sums that define it.
    pub defined_flop: f64,
    /// Of those that it computes: minimal filtering needs fewer. Transforms of operands are not counted.
    pub done_flop: f64,
}

impl Work {
    /// Of a kernel that computes its sums as they are defined.
    pub(crate) fn plain(multiply_adds: usize) -> Self {
        let flop = 2.0 * multiply_adds as f64;
        Self { defined_flop: flop, done_flop: flop }
    }
}

/// A part of a kernel.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// Of the kernel's time, in [0, 1].
    pub(crate) share: f64,
    /// Of one step.
    pub(crate) work: Work,
}

/// Time that each part of a kernel takes on all threads, once somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct PartTimes(OnceLock<Vec<AtomicU64>>);

impl PartTimes {
    /// Starts to measure so many parts.
    pub(crate) fn start(&self, parts: usize) {
        let times = self.0.get_or_init(|| (0..parts).map(|_| AtomicU64::new(0)).collect());
        times.iter().for_each(|time| time.store(0, Relaxed));
    }

    /// Runs one part.
    pub(crate) fn time(&self, part: usize, body: impl FnOnce()) {
        let Some(times) = self.0.get() else { return body() };
        let start = Instant::now();
        body();
        times[part].fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    }

    /// Each part's share of the time since [`Self::start`], in [0, 1]; none if it was not called.
    pub(crate) fn shares(&self) -> Vec<f64> {
        let times: Vec<f64> = self.0.get().into_iter().flatten().map(|time| time.load(Relaxed) as f64).collect();
        let total = times.iter().sum::<f64>().max(1.0);
        times.iter().map(|time| time / total).collect()
    }
}

/// One fused operation, split into tasks by the shapes alone.
pub(crate) trait Kernel: Sync {
    /// What it computes, for profiles.
    fn name(&self) -> &'static str;
    /// Number of independent tasks.
    fn tasks(&self) -> usize;
    /// f32 values of private memory that a thread needs while it runs a task.
    fn scratch(&self) -> usize {
        0
    }
    /// Starts to time its parts, if it has any.
    fn start_profile(&self) {}
    /// Multiply-adds of one step.
    fn work(&self) -> Work {
        Work::default()
    }
    /// Its parts and their shares of its time since [`Self::start_profile`].
    fn profile(&self) -> Vec<Part> {
        vec![Part { name: self.name(), share: 1.0, work: self.work() }]
    }
    /// Runs one task. Writes no range that another task of this kernel touches.
    fn run(&self, task: usize, memory: &Memory, scratch: &mut [f32]);
}

/// Threads and memory that programs of one worker share; they run one at a time.
#[derive(Debug)]
pub struct Workspace {
    team: Team,
    arena: Buffer,
    scratch: Vec<Buffer>,
    /// By the state's number.
    forms: HashMap<u64, Weak<Form>>,
}

impl Workspace {
    /// A workspace for programs that run on `threads` threads.
    pub fn new(threads: usize) -> Rc<RefCell<Self>> {
        let team = Team::new(threads);
        let scratch = (0..team.threads()).map(|_| Buffer::default()).collect();
        Rc::new(RefCell::new(Self { team, arena: Buffer::default(), scratch, forms: HashMap::new() }))
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Calls `body(thread, task)` for every task on the threads of this workspace, as programs do; for work between steps.
    pub fn parallel(&mut self, tasks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        self.team.run(tasks, body);
    }

    fn reserve(&mut self, plan: MemoryPlan) {
        self.arena.reserve(plan.arena_bytes / size_of::<f32>());
        for scratch in &mut self.scratch {
            scratch.reserve(plan.scratch_bytes / size_of::<f32>() / plan.threads);
        }
    }
}

/// A state's form that programs of a workspace keep together, and what it was made from.
#[derive(Debug)]
struct Form {
    values: State,
    /// The state's version when a run that left both equal ended.
    version: Cell<Option<u64>>,
}

/// A state that a program keeps in a form of its own too.
struct KeptState {
    state: State,
    form: Rc<Form>,
    keeper: Box<dyn Kernel>,
}

impl KeptState {
    /// With the form that another program of the workspace has, if there is one.
    fn new(kept: Kept, places: &mut [Place], workspace: &mut Workspace) -> Self {
        let [state, form] = kept.slots.map(|slot| match &places[slot.0] {
            Place::State(state) => state.clone(),
            Place::Arena { .. } => unreachable!("both outlive a run"),
        });
        workspace.forms.retain(|_, form| form.strong_count() > 0);
        let found = workspace.forms.get(&state.id()).and_then(Weak::upgrade);
        let form = found.unwrap_or_else(|| Rc::new(Form { values: form, version: Cell::new(None) }));
        workspace.forms.insert(state.id(), Rc::downgrade(&form));
        places[kept.slots[1].0] = Place::State(form.values.clone());
        Self { state, form, keeper: kept.keeper }
    }
}

/// Memory of a program, known before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Values that live within a step, in bytes.
    pub arena_bytes: usize,
    /// Private memory of all threads, in bytes.
    pub scratch_bytes: usize,
    /// States (parameters, moments, batch), in bytes.
    pub state_bytes: usize,
    /// Weights that are kept in 16 bits too, in bytes.
    pub kept_bytes: usize,
    /// Threads it was planned for.
    pub threads: usize,
}

impl MemoryPlan {
    /// All of it, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.arena_bytes + self.scratch_bytes + self.state_bytes + self.kept_bytes
    }
}

/// Time that a kernel took in the steps that were profiled.
#[derive(Clone, Copy, Debug)]
pub struct StepTime {
    /// What it computes.
    pub kernel: &'static str,
    /// Sum over the profiled steps.
    pub time: Duration,
    /// Multiply-adds of one step.
    pub work: Work,
}

/// Kernels in a fixed order over planned memory: what a lowered graph consists of.
pub struct Program {
    steps: Vec<Step>,
    places: Vec<Place>,
    offsets: Vec<usize>,
    states: Vec<State>,
    kept: Vec<KeptState>,
    plan: MemoryPlan,
    workspace: Rc<RefCell<Workspace>>,
    profile: RefCell<Option<Vec<Duration>>>,
}

impl Plan {
    pub(crate) fn memory_plan(&self, threads: usize) -> MemoryPlan {
        let scratch = self.steps.iter().map(|step| step.kernel().scratch()).max().unwrap_or(0).next_multiple_of(16);
        let elements = |place: &Place| match place {
            Place::State(state) => state.elements(),
            Place::Arena { .. } => 0,
        };
        let states: usize = self.places.iter().map(elements).sum();
        let kept: usize = self.kept.iter().map(|kept| elements(&self.places[kept.slots[1].0])).sum();
        MemoryPlan {
            arena_bytes: layout(&self.places).1 * size_of::<f32>(),
            scratch_bytes: scratch * threads * size_of::<f32>(),
            state_bytes: (states - kept) * size_of::<f32>(),
            kept_bytes: kept * size_of::<f32>(),
            threads,
        }
    }

    pub(crate) fn into_program(mut self, workspace: &Rc<RefCell<Workspace>>) -> Program {
        let threads = workspace.borrow().team.threads();
        let plan = self.memory_plan(threads);
        workspace.borrow_mut().reserve(plan);
        let kept = std::mem::take(&mut self.kept).into_iter();
        let kept = kept.map(|kept| KeptState::new(kept, &mut self.places, &mut workspace.borrow_mut())).collect();
        let states = self.places.iter().filter_map(|place| match place {
            Place::State(state) => Some(state.clone()),
            Place::Arena { .. } => None,
        });
        Program {
            states: states.collect(),
            offsets: layout(&self.places).0,
            steps: self.steps,
            places: self.places,
            kept,
            plan,
            workspace: Rc::clone(workspace),
            profile: RefCell::new(None),
        }
    }
}

impl Program {
    /// Memory that it uses.
    pub fn memory_plan(&self) -> MemoryPlan {
        self.plan
    }

    /// Starts to time each kernel; [`Self::profile`] gives the sums.
    pub fn start_profile(&self) {
        *self.profile.borrow_mut() = Some(vec![Duration::ZERO; self.steps.len()]);
        self.steps.iter().for_each(|step| step.kernel().start_profile());
    }

    /// Time of each kernel, or of its parts, since [`Self::start_profile`], in order; empty if it was not called.
    pub fn profile(&self) -> Vec<StepTime> {
        let times = self.profile.borrow().clone().unwrap_or_default();
        let mut parts = Vec::new();
        for (step, time) in self.steps.iter().zip(times) {
            let part = |Part { name, share, work }| StepTime { kernel: name, time: time.mul_f64(share), work };
            parts.extend(step.kernel().profile().into_iter().map(part));
        }
        parts
    }

    /// Runs one step, as executing the graph does.
    pub fn run(&self) {
        let Workspace { team, arena, scratch, .. } = &mut *self.workspace.borrow_mut();
        let mut guards: Vec<_> = self.states.iter().map(State::write).collect();
        let mut states: Vec<&mut Buffer> = guards.iter_mut().map(|guard| &mut **guard).collect();
        assert!(arena.len() * size_of::<f32>() >= self.plan.arena_bytes, "the workspace was reserved for this program");
        // SAFETY: the arena is at least as long as the layout says (asserted), and it and the states are borrowed
        // exclusively until the end of this function, after the last use of `memory`.
        #[expect(unsafe_code, reason = "kernels address planned memory by offset")]
        let memory = unsafe { Memory::new(&self.places, &self.offsets, arena.as_mut_ptr(), &mut states) };
        let scratch: Vec<Scratch> = scratch.iter_mut().map(|s| Scratch(s.as_mut_ptr(), s.len())).collect();
        let mut run = |kernel: &dyn Kernel| {
            team.run(kernel.tasks(), &|thread, task| {
                // SAFETY: each thread of the team has its own buffer and runs one task at a time.
                #[expect(unsafe_code, reason = "private memory of the thread that runs the task")]
                let private = unsafe { std::slice::from_raw_parts_mut(scratch[thread].0, scratch[thread].1) };
                kernel.run(task, &memory, private);
            });
        };
        for KeptState { state, form, keeper } in &self.kept {
            // This run has taken the state to write to it once since.
            if form.version.get().is_none_or(|version| version + 1 != state.version()) {
                run(&**keeper);
            }
        }
        let mut profile = self.profile.borrow_mut();
        for (number, step) in self.steps.iter().enumerate() {
            let kernel = step.kernel();
            let start = profile.is_some().then(Instant::now);
            run(kernel);
            if let (Some(times), Some(start)) = (profile.as_mut(), start) {
                times[number] += start.elapsed();
            }
        }
        for KeptState { state, form, .. } in &self.kept {
            form.version.set(Some(state.version()));
        }
    }
}

struct Scratch(*mut f32, usize);

// SAFETY: the buffer behind it is used by one thread of the team at a time (see `Program::run`).
#[expect(unsafe_code, reason = "one buffer per thread, handed out by thread number")]
unsafe impl Sync for Scratch {}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.steps.iter().map(|step| step.kernel().name());
        f.debug_struct("Program").field("kernels", &kernels.collect::<Vec<_>>()).field("memory", &self.plan).finish()
    }
}

/// A program is equal only to itself.
impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Operator for Program {
    fn process(&mut self, _: Vec<(InputTensor, ShapeTracker)>) -> Vec<Tensor> {
        self.run();
        vec![]
    }
}
