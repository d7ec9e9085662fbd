//! A whole step on the device as one luminal operator.

use std::{cell::RefCell, collections::HashMap, fmt, rc::Rc, sync::Arc, time::Duration};

use graph::State;
use luminal::{
    op::{InputTensor, Operator},
    prelude::{ShapeTracker, Tensor},
};

use super::{
    CudaError, Device,
    library::{Allocation, Function, Given, Module, Recording, Stream},
    source::{Argument, Plan},
};
use crate::memory::{Place, layout};

/// Memory of a program on the device, known before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Values that live within a step, in bytes.
    pub arena_bytes: usize,
    /// States (parameters, moments, batch), in bytes.
    pub state_bytes: usize,
}

impl MemoryPlan {
    pub(crate) fn of(plan: &Plan) -> Self {
        let states = plan.states.iter().flatten().map(|used| used.state.elements());
        Self {
            arena_bytes: layout(&plan.places).1 * size_of::<f32>(),
            state_bytes: states.sum::<usize>() * size_of::<f32>(),
        }
    }

    /// All of it, in bytes.
    pub fn total_bytes(&self) -> usize {
        self.arena_bytes + self.state_bytes
    }
}

/// A state's copy on the device.
struct Resident {
    state: State,
    memory: Allocation,
    /// Version of the state that the copy was made from, or that was made from the copy.
    version: Option<u64>,
    /// Whether a program has changed the copy since.
    ahead: bool,
}

/// One worker's share of a device: a stream, an arena, and the states that its programs use. Programs of a session run one at a time.
pub struct Session {
    device: Arc<Device>,
    stream: Stream,
    arena: Option<Allocation>,
    /// Counts the arenas: recorded steps hold addresses.
    generation: u64,
    residents: HashMap<u64, Resident>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?}, {} states)", self.device, self.residents.len())
    }
}

impl Session {
    /// A session on a device, for the thread that makes it.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(device: &Arc<Device>) -> Result<Rc<RefCell<Self>>, CudaError> {
        device.bind()?;
        let stream = device.note(device.driver.stream())?;
        Ok(Rc::new(RefCell::new(Self {
            device: Arc::clone(device),
            stream,
            arena: None,
            generation: 0,
            residents: HashMap::new(),
        })))
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Brings the host's copies of these states up to date. States that no program has changed stay as they are.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn pull<'a>(&mut self, states: impl IntoIterator<Item = &'a State>) -> Result<(), CudaError> {
        let Self { device, stream, residents, .. } = self;
        device.bind()?;
        for state in states {
            let Some(resident) = residents.get_mut(&state.id()).filter(|resident| resident.ahead) else { continue };
            device.note(device.driver.download(&resident.memory, &mut state.write(), stream))?;
            resident.version = Some(state.version());
            resident.ahead = false;
        }
        Ok(())
    }

    /// Waits until all that was started is done.
    ///
    /// # Errors
    /// When it did not end well.
    pub fn wait(&mut self) -> Result<(), CudaError> {
        self.device.bind()?;
        self.device.note(self.device.driver.synchronize(&self.stream))
    }

    /// Room for an arena of so many bytes.
    fn reserve(&mut self, bytes: usize) -> Result<(), CudaError> {
        if self.arena.as_ref().is_some_and(|arena| arena.bytes >= bytes) {
            return Ok(());
        }
        // The old arena goes first, so that both are never held at once; nothing may still run in it.
        self.wait()?;
        if let Some(arena) = self.arena.take() {
            self.device.driver.free(&arena);
        }
        self.generation += 1;
        self.arena = Some(self.device.allocate(bytes)?);
        Ok(())
    }

    /// A state's copy, which is made where there is none.
    fn resident(&mut self, state: &State) -> Result<&mut Resident, CudaError> {
        Ok(match self.residents.entry(state.id()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let memory = self.device.allocate(state.elements() * size_of::<f32>())?;
                entry.insert(Resident { state: state.clone(), memory, version: None, ahead: false })
            }
        })
    }

    /// Address of a state's copy that is about to be written whole by other work of this session's stream, as a program would: what the
    /// host has written so far is forgotten.
    pub(crate) fn overwritten(&mut self, state: &State) -> Result<u64, CudaError> {
        let resident = self.resident(state)?;
        resident.version = Some(state.version());
        resident.ahead = true;
        Ok(resident.memory.address(0))
    }

    /// Address of a state's copy, if there is one.
    pub(crate) fn address(&self, state: &State) -> Option<u64> {
        self.residents.get(&state.id()).map(|resident| resident.memory.address(0))
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Brings a state's copy up to date where the step reads it; whether a copy is on its way. What the host has written last wins.
    fn bring(&mut self, state: &State, read: bool) -> Result<bool, CudaError> {
        let device = Arc::clone(&self.device);
        let resident = self.resident(state)?;
        let old = read && resident.version != Some(state.version());
        if old {
            let resident = &self.residents[&state.id()];
            device.note(device.driver.upload(&resident.memory, &resident.state.read(), &self.stream))?;
            let resident = self.resident(state)?;
            resident.version = Some(state.version());
            resident.ahead = false;
        }
        Ok(old)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // On a lost device these fail, and the driver takes all back with the process.
        let _ = self.device.bind();
        let driver = &self.device.driver;
        let _ = driver.synchronize(&self.stream);
        self.residents.values().for_each(|resident| driver.free(&resident.memory));
        if let Some(arena) = &self.arena {
            driver.free(arena);
        }
        driver.destroy_stream(&self.stream);
    }
}

/// Time that a kind of kernel takes in a step.
#[derive(Clone, Copy, Debug)]
pub struct KernelTime {
    /// What it computes.
    pub kernel: &'static str,
    /// One launch, on the device.
    pub time: Duration,
    /// Floating-point operations of its products; two for each multiply-add.
    pub flop: f64,
    /// What it reads and writes, each value once, in bytes.
    pub moved_bytes: usize,
}

/// Launches in a fixed order over planned memory: what a lowered graph consists of.
pub struct Program {
    session: Rc<RefCell<Session>>,
    device: Arc<Device>,
    plan: Plan,
    offsets: Vec<usize>,
    memory: MemoryPlan,
    loaded: Result<Loaded, CudaError>,
    ready: RefCell<Ready>,
}

struct Loaded {
    module: Module,
    /// By position of the kernel's name.
    functions: Vec<Function>,
}

/// How far a program has come.
enum Ready {
    /// It has not run yet: kernels are loaded at their first launch, which cannot be recorded.
    Fresh,
    /// It has run in this arena.
    Warm,
    /// It was recorded in the arena of this generation.
    Recorded(Recording, u64),
}

/// Values behind the last one that the threads of a kernel may count to.
const SPARE: usize = 1 << 14;

impl Program {
    pub(crate) fn new(plan: Plan, session: &Rc<RefCell<Session>>) -> Self {
        let device = Arc::clone(&session.borrow().device);
        let loaded = Self::load(&plan, &device);
        Self {
            session: Rc::clone(session),
            offsets: layout(&plan.places).0,
            memory: MemoryPlan::of(&plan),
            device,
            plan,
            loaded,
            ready: RefCell::new(Ready::Fresh),
        }
    }

    fn load(plan: &Plan, device: &Device) -> Result<Loaded, CudaError> {
        device.serve(plan.precision)?;
        // Threads that fill the last block count further.
        if i32::try_from(plan.largest + SPARE).is_err() {
            return Err(CudaError::TooLarge { elements: plan.largest });
        }
        let module = device.load(&plan.source())?;
        let functions = plan.names.iter().map(|name| device.note(device.driver.function(&module, name)));
        match functions.collect() {
            Ok(functions) => Ok(Loaded { module, functions }),
            Err(error) => {
                device.driver.unload_module(&module);
                Err(error)
            }
        }
    }

    /// Memory that it uses on the device.
    pub fn memory_plan(&self) -> MemoryPlan {
        self.memory
    }

    /// Starts one step and returns before it ends. States that the host has written since are copied first; those that the step changes are
    /// up to date on the device alone, until [`Session::pull`].
    ///
    /// # Errors
    /// When the kernels do not compile, memory is short, or the device is lost; errors of an earlier step may show here too.
    pub fn run(&self) -> Result<(), CudaError> {
        let loaded = self.loaded.as_ref().map_err(Clone::clone)?;
        let session = &mut *self.session.borrow_mut();
        self.prepare(session)?;
        let (device, stream) = (&self.device, &session.stream);
        let ready = &mut *self.ready.borrow_mut();
        let given = || self.given(session);
        match ready {
            Ready::Recorded(recording, generation) if *generation == session.generation => {
                device.note(device.driver.replay(recording, stream))?;
            }
            Ready::Fresh => {
                self.launch(loaded, &given(), stream)?;
                *ready = Ready::Warm;
            }
            Ready::Warm | Ready::Recorded(..) => {
                let given = given();
                let recording = match device.note(device.driver.record(stream, || self.launch(loaded, &given, stream)))
                {
                    Ok(recording) => recording,
                    Err(error) if error.is_of_recording() => {
                        // The next step tries again.
                        self.launch(loaded, &given, stream)?;
                        self.end(session);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
                device.note(device.driver.replay(&recording, stream))?;
                if let Ready::Recorded(old, _) =
                    std::mem::replace(ready, Ready::Recorded(recording, session.generation))
                {
                    device.driver.destroy_recording(&old);
                }
            }
        }
        self.end(session);
        Ok(())
    }

    /// Notes what the step changes.
    fn end(&self, session: &mut Session) {
        for used in self.plan.states.iter().flatten().filter(|used| used.written) {
            session.residents.get_mut(&used.state.id()).expect("it was brought").ahead = true;
        }
    }

    /// Runs one step and times each of its launches on the device.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn profile(&self) -> Result<Vec<KernelTime>, CudaError> {
        let loaded = self.loaded.as_ref().map_err(Clone::clone)?;
        let session = &mut *self.session.borrow_mut();
        self.prepare(session)?;
        let (driver, stream) = (&self.device.driver, &session.stream);
        let given = self.given(session);
        let count = self.plan.launches.len() + 1;
        let events = (0..count).map(|_| self.device.note(driver.event())).collect::<Result<Vec<_>, _>>()?;
        self.device.note(driver.mark(&events[0], stream))?;
        for ((launch, given), event) in self.plan.launches.iter().zip(&given).zip(&events[1..]) {
            let function = loaded.functions[launch.kernel];
            self.device.note(driver.launch(function, launch.grid, launch.threads, given, stream))?;
            self.device.note(driver.mark(event, stream))?;
        }
        self.device.note(driver.synchronize(stream))?;
        let time = |(i, launch): (usize, &super::source::Launch)| {
            let ms = self.device.note(driver.elapsed_ms(&events[i], &events[i + 1]))?;
            Ok(KernelTime {
                kernel: launch.what,
                time: Duration::from_secs_f32(ms.max(0.0) * 1e-3),
                flop: launch.flop,
                moved_bytes: launch.read_bytes + launch.written_bytes,
            })
        };
        let times = self.plan.launches.iter().enumerate().map(time).collect();
        events.iter().for_each(|event| driver.destroy_event(event));
        self.end(session);
        times
    }

    /// Memory for a step, and in it what the host has written.
    fn prepare(&self, session: &mut Session) -> Result<(), CudaError> {
        self.device.bind()?;
        session.reserve(self.memory.arena_bytes)?;
        let mut copies = false;
        for used in self.plan.states.iter().flatten() {
            copies |= session.bring(&used.state, used.read)?;
        }
        // The host may write again at once; not every system has staged the values by now.
        if copies { session.wait() } else { Ok(()) }
    }

    /// What each launch is given, as it now lies in memory.
    fn given(&self, session: &Session) -> Vec<Vec<Given>> {
        let arena = session.arena.as_ref().expect("the arena was reserved");
        let address = |slot: usize, offset: usize| match &self.plan.places[slot] {
            Place::Arena { .. } => arena.address(self.offsets[slot] + offset),
            Place::State(state) => session.residents[&state.id()].memory.address(offset),
        };
        let argument = |argument: &Argument| match *argument {
            Argument::View(view) => Given::Address(address(view.slot.0, view.offset)),
            Argument::Int(value) => Given::Int(value),
            Argument::Float(value) => Given::Float(value),
        };
        self.plan.launches.iter().map(|launch| launch.arguments.iter().map(argument).collect()).collect()
    }

    fn launch(&self, loaded: &Loaded, given: &[Vec<Given>], stream: &Stream) -> Result<(), CudaError> {
        for (launch, given) in self.plan.launches.iter().zip(given) {
            let function = loaded.functions[launch.kernel];
            self.device.note(self.device.driver.launch(function, launch.grid, launch.threads, given, stream))?;
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What is still running needs its kernels; on a lost device all of this fails, and nothing is left to be done.
        let _ = self.session.try_borrow_mut().map(|mut session| session.wait());
        if let Ready::Recorded(recording, _) = &*self.ready.borrow() {
            self.device.driver.destroy_recording(recording);
        }
        if let Ok(loaded) = &self.loaded {
            self.device.driver.unload_module(&loaded.module);
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.plan.launches.iter().map(|launch| launch.what);
        f.debug_struct("Program").field("kernels", &kernels.collect::<Vec<_>>()).field("memory", &self.memory).finish()
    }
}

/// A program is equal only to itself.
impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Operator for Program {
    /// Runs a step to its end and brings every state that it changes back to the host. Those who can take an error call [`Program::run`].
    ///
    /// # Panics
    /// When the step fails: an executor of luminal cannot be told otherwise.
    fn process(&mut self, _: Vec<(InputTensor, ShapeTracker)>) -> Vec<Tensor> {
        let changed = self.plan.states.iter().flatten().filter(|used| used.written).map(|used| &used.state);
        let end = self.run().and_then(|()| self.session.borrow_mut().pull(changed));
        end.unwrap_or_else(|error| panic!("{error}"));
        vec![]
    }
}
