//! The driver and NVRTC, loaded while the program runs: the only file that calls them.
//!
//! Nothing of CUDA is needed to build or to start. Statuses stay numbers: newer libraries have codes that no enum of today has. Signatures
//! are those of `cuda.h` and `nvrtc.h`, the same in CUDA 12 and 13.

use std::{
    ffi::{CStr, CString, c_char, c_float, c_int, c_uint, c_ulonglong, c_void},
    mem::ManuallyDrop,
    ptr,
};

use libloading::Library;

use super::error::{CudaError, Failure};

type Handle = *mut c_void;
type Pointer = c_ulonglong;

/// A table of functions, each found by its name.
macro_rules! functions {
    ($table:ident { $($field:ident = $symbol:literal ($($argument:ty),*);)* }) => {
        struct $table { $($field: unsafe extern "C" fn($($argument),*) -> c_int,)* }
        impl $table {
            fn load(library: &Library) -> Result<Self, String> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the type is the function's signature in NVIDIA's header; the table is kept beside the library, which
                        // stays loaded as long.
                        #[expect(unsafe_code, reason = "functions of a library loaded at run time")]
                        let symbol = unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> c_int>($symbol.as_bytes()) };
                        *symbol.map_err(|_| format!("it has no function {}", $symbol))?
                    },)*
                })
            }
        }
    };
}

functions!(DriverTable {
    init = "cuInit" (c_uint);
    version = "cuDriverGetVersion" (*mut c_int);
    error_name = "cuGetErrorName" (c_int, *mut *const c_char);
    error_string = "cuGetErrorString" (c_int, *mut *const c_char);
    device_count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    device_memory = "cuDeviceTotalMem_v2" (*mut usize, c_int);
    retain = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    set_current = "cuCtxSetCurrent" (Handle);
    memory_info = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut Pointer, usize);
    free = "cuMemFree_v2" (Pointer);
    upload = "cuMemcpyHtoDAsync_v2" (Pointer, *const c_void, usize, Handle);
    download = "cuMemcpyDtoHAsync_v2" (*mut c_void, Pointer, usize, Handle);
    host_allocate = "cuMemHostAlloc" (*mut Handle, usize, c_uint);
    host_free = "cuMemFreeHost" (Handle);
    stream_create = "cuStreamCreate" (*mut Handle, c_uint);
    stream_destroy = "cuStreamDestroy_v2" (Handle);
    stream_synchronize = "cuStreamSynchronize" (Handle);
    stream_wait = "cuStreamWaitEvent" (Handle, Handle, c_uint);
    module_load = "cuModuleLoadData" (*mut Handle, *const c_void);
    module_unload = "cuModuleUnload" (Handle);
    module_function = "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    launch = "cuLaunchKernel" (Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void);
    capture_begin = "cuStreamBeginCapture_v2" (Handle, c_int);
    capture_end = "cuStreamEndCapture" (Handle, *mut Handle);
    graph_instantiate = "cuGraphInstantiateWithFlags" (*mut Handle, Handle, c_ulonglong);
    graph_destroy = "cuGraphDestroy" (Handle);
    graph_launch = "cuGraphLaunch" (Handle, Handle);
    graph_exec_destroy = "cuGraphExecDestroy" (Handle);
    event_create = "cuEventCreate" (*mut Handle, c_uint);
    event_destroy = "cuEventDestroy_v2" (Handle);
    event_record = "cuEventRecord" (Handle, Handle);
    event_synchronize = "cuEventSynchronize" (Handle);
    event_elapsed = "cuEventElapsedTime" (*mut c_float, Handle, Handle);
});

functions!(CompilerTable {
    version = "nvrtcVersion" (*mut c_int, *mut c_int);
    create = "nvrtcCreateProgram" (*mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char);
    compile = "nvrtcCompileProgram" (Handle, c_int, *const *const c_char);
    destroy = "nvrtcDestroyProgram" (*mut Handle);
    log_size = "nvrtcGetProgramLogSize" (Handle, *mut usize);
    log = "nvrtcGetProgramLog" (Handle, *mut c_char);
    cubin_size = "nvrtcGetCUBINSize" (Handle, *mut usize);
    cubin = "nvrtcGetCUBIN" (Handle, *mut c_char);
    ptx_size = "nvrtcGetPTXSize" (Handle, *mut usize);
    ptx = "nvrtcGetPTX" (Handle, *mut c_char);
    architecture_count = "nvrtcGetNumSupportedArchs" (*mut c_int);
    architectures = "nvrtcGetSupportedArchs" (*mut c_int);
});

/// Opens the first of `names` that the system finds; else what it said of each.
fn open(names: &[String]) -> Result<(String, Library), String> {
    let mut tried = Vec::new();
    for name in names {
        // SAFETY: loading runs the library's initialisers. The names are NVIDIA's, or a person has given a path; nothing else is loaded.
        #[expect(unsafe_code, reason = "a library loaded at run time")]
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok((name.clone(), library)),
            Err(error) => {
                let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                tried.push(if reason.contains(name.as_str()) { reason } else { format!("{name}: {reason}") });
            }
        }
    }
    Err(tried.join("; "))
}

/// Memory on the device; freed when it goes.
pub(crate) struct Allocation {
    pointer: Pointer,
    pub(crate) bytes: usize,
}

/// Memory of the host that the device copies from by itself; given back by its owner.
pub(crate) struct Pinned {
    pointer: *mut u32,
    words: usize,
}

impl Pinned {
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Its words, to be written while no copy of them is on its way.
    pub(crate) fn room(&mut self) -> &mut [u32] {
        // SAFETY: the driver gave so many words, aligned to pages; they were zeroed when they came, and only this value knows of them.
        #[expect(unsafe_code, reason = "memory of the driver")]
        unsafe {
            std::slice::from_raw_parts_mut(self.pointer, self.words)
        }
    }
}

/// A queue of work on the device.
pub(crate) struct Stream(Handle);

/// Loaded kernels.
pub(crate) struct Module(Handle);

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Function(Handle);

/// A recorded step.
pub(crate) struct Recording(Handle);

/// A point in a stream.
pub(crate) struct Event(Handle);

/// What a kernel is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    /// An address on the device.
    Address(u64),
    /// A number.
    Int(i32),
    /// A number.
    Float(f32),
}

impl Allocation {
    /// Address of the value at this position.
    pub(crate) fn address(&self, offset_values: usize) -> u64 {
        self.pointer + (offset_values * size_of::<f32>()) as u64
    }
}

/// The driver.
pub(crate) struct Driver {
    pub(crate) library: String,
    table: DriverTable,
    // Never unloaded: a driver that has begun need not survive it.
    _library: ManuallyDrop<Library>,
}

// SAFETY: the driver's functions may be called from any thread ("thread safe" in its manual), and the table never changes.
#[expect(unsafe_code, reason = "a table of functions")]
unsafe impl Sync for Driver {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a table of functions")]
unsafe impl Send for Driver {}

/// A device's primary context, which the whole process shares.
#[derive(Clone, Copy)]
pub(crate) struct Context(Handle);

// SAFETY: a context is a handle that any thread may make its current one.
#[expect(unsafe_code, reason = "a handle that is not bound to a thread")]
unsafe impl Sync for Context {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a handle that is not bound to a thread")]
unsafe impl Send for Context {}

/// Calls a function of the table: `call!(self, "cuInit", init(0))`.
macro_rules! call {
    ($driver:expr, $name:literal, $function:ident($($argument:expr),*)) => {{
        // SAFETY: arguments are as the function's manual asks: out-pointers lead to live locals or buffers of the size given, handles
        // come from this driver and are alive, since their owners are.
        #[expect(unsafe_code, reason = "a function of the driver")]
        let status = unsafe { ($driver.table.$function)($($argument),*) };
        $driver.check($name, status)
    }};
}

impl Driver {
    /// Loads the driver and lets it begin.
    pub(crate) fn load(names: &[String]) -> Result<Self, CudaError> {
        let (name, library) = open(names).map_err(|tried| CudaError::NoDriver { tried })?;
        let table =
            DriverTable::load(&library).map_err(|reason| CudaError::Library { library: name.clone(), reason })?;
        let driver = Self { library: name, table, _library: ManuallyDrop::new(library) };
        match call!(driver, "cuInit", init(0)) {
            Err(failure) if failure.status == super::error::NO_DEVICE => Err(CudaError::NoDevice),
            Err(failure) => Err(CudaError::Library { library: driver.library, reason: failure.to_string() }),
            Ok(()) => Ok(driver),
        }
    }

    fn check(&self, function: &'static str, status: c_int) -> Result<(), Failure> {
        if status == 0 { Ok(()) } else { Err(Failure { function, status, meaning: self.meaning(status) }) }
    }

    /// What the driver says of a status; it need not know it.
    fn meaning(&self, status: c_int) -> String {
        let text = |function: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text: *const c_char = ptr::null();
            // SAFETY: on success the driver gives a string of its own that stays; a null pointer is not followed.
            #[expect(unsafe_code, reason = "a function of the driver")]
            unsafe {
                (function(status, &raw mut text) == 0 && !text.is_null())
                    .then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        match (text(self.table.error_name), text(self.table.error_string)) {
            (Some(name), Some(string)) => format!("{name}: {string}"),
            (Some(text), None) | (None, Some(text)) => text,
            (None, None) => "a status that this driver has no words for".to_owned(),
        }
    }

    /// CUDA version that it serves, as (major, minor).
    pub(crate) fn version(&self) -> Result<(i32, i32), Failure> {
        let mut version = 0;
        call!(self, "cuDriverGetVersion", version(&raw mut version))?;
        Ok((version / 1000, version % 1000 / 10))
    }

    pub(crate) fn device_count(&self) -> Result<i32, Failure> {
        let mut count = 0;
        call!(self, "cuDeviceGetCount", device_count(&raw mut count))?;
        Ok(count)
    }

    pub(crate) fn device(&self, ordinal: i32) -> Result<i32, Failure> {
        let mut device = 0;
        call!(self, "cuDeviceGet", device(&raw mut device, ordinal))?;
        Ok(device)
    }

    pub(crate) fn device_name(&self, device: i32) -> Result<String, Failure> {
        let mut name = [0_u8; 256];
        call!(self, "cuDeviceGetName", device_name(name.as_mut_ptr().cast(), name.len() as c_int - 1, device))?;
        let name =
            CStr::from_bytes_until_nul(&name).map_or_else(|_| String::new(), |n| n.to_string_lossy().into_owned());
        Ok(name)
    }

    /// An attribute by its number in `cuda.h`.
    pub(crate) fn device_attribute(&self, attribute: i32, device: i32) -> Result<i32, Failure> {
        let mut value = 0;
        call!(self, "cuDeviceGetAttribute", device_attribute(&raw mut value, attribute, device))?;
        Ok(value)
    }

    /// All memory of a device, in bytes.
    pub(crate) fn device_memory_bytes(&self, device: i32) -> Result<usize, Failure> {
        let mut bytes = 0;
        call!(self, "cuDeviceTotalMem_v2", device_memory(&raw mut bytes, device))?;
        Ok(bytes)
    }

    /// The device's primary context. It is kept until the process ends.
    pub(crate) fn retain(&self, device: i32) -> Result<Context, Failure> {
        let mut context = ptr::null_mut();
        call!(self, "cuDevicePrimaryCtxRetain", retain(&raw mut context, device))?;
        Ok(Context(context))
    }

    /// Makes the context this thread's current one.
    pub(crate) fn bind(&self, context: Context) -> Result<(), Failure> {
        call!(self, "cuCtxSetCurrent", set_current(context.0))
    }

    /// Free and all memory of the current context's device, in bytes.
    pub(crate) fn memory_info(&self) -> Result<(usize, usize), Failure> {
        let (mut free, mut total) = (0, 0);
        call!(self, "cuMemGetInfo_v2", memory_info(&raw mut free, &raw mut total))?;
        Ok((free, total))
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<Allocation, Failure> {
        let mut pointer = 0;
        call!(self, "cuMemAlloc_v2", allocate(&raw mut pointer, bytes.max(1)))?;
        Ok(Allocation { pointer, bytes })
    }

    /// Gives memory back. What cannot be freed any more is gone with the device.
    pub(crate) fn free(&self, allocation: &Allocation) {
        let _ = call!(self, "cuMemFree_v2", free(allocation.pointer));
    }

    /// Queues a copy to the device; `values` must stay until the stream was waited for.
    pub(crate) fn upload(&self, to: &Allocation, values: &[f32], stream: &Stream) -> Result<(), Failure> {
        assert!(size_of_val(values) <= to.bytes, "a copy stays within its allocation");
        call!(self, "cuMemcpyHtoDAsync_v2", upload(to.pointer, values.as_ptr().cast(), size_of_val(values), stream.0))
    }

    /// Copies from the device and waits for it.
    pub(crate) fn download(&self, from: &Allocation, values: &mut [f32], stream: &Stream) -> Result<(), Failure> {
        assert!(size_of_val(values) <= from.bytes, "a copy stays within its allocation");
        let bytes = size_of_val(values);
        call!(self, "cuMemcpyDtoHAsync_v2", download(values.as_mut_ptr().cast(), from.pointer, bytes, stream.0))?;
        self.synchronize(stream)
    }

    /// Queues a copy of bytes to the device, `at` bytes from where its memory begins; they must stay until the stream was waited for.
    pub(crate) fn upload_bytes(
        &self,
        to: &Allocation,
        at: usize,
        bytes: &[u8],
        stream: &Stream,
    ) -> Result<(), Failure> {
        assert!(at + bytes.len() <= to.bytes, "a copy stays within its allocation");
        let to = to.pointer + at as u64;
        call!(self, "cuMemcpyHtoDAsync_v2", upload(to, bytes.as_ptr().cast(), bytes.len(), stream.0))
    }

    /// Queues a copy of the first words to the device, of which the host waits for none: they must not be written until it is done.
    pub(crate) fn upload_pinned(
        &self,
        to: &Allocation,
        from: &Pinned,
        words: usize,
        stream: &Stream,
    ) -> Result<(), Failure> {
        let bytes = words * size_of::<u32>();
        assert!(words <= from.words && bytes <= to.bytes, "a copy stays within its allocation");
        call!(self, "cuMemcpyHtoDAsync_v2", upload(to.pointer, from.pointer.cast(), bytes, stream.0))
    }

    /// Copies words from the device and waits for it.
    pub(crate) fn download_words(&self, from: &Allocation, words: &mut [u32], stream: &Stream) -> Result<(), Failure> {
        assert!(size_of_val(words) <= from.bytes, "a copy stays within its allocation");
        let bytes = size_of_val(words);
        call!(self, "cuMemcpyDtoHAsync_v2", download(words.as_mut_ptr().cast(), from.pointer, bytes, stream.0))?;
        self.synchronize(stream)
    }

    /// Memory of the host for so many words, zeroed.
    pub(crate) fn pinned(&self, words: usize) -> Result<Pinned, Failure> {
        let words = words.max(1);
        let mut pointer = ptr::null_mut();
        call!(self, "cuMemHostAlloc", host_allocate(&raw mut pointer, words * size_of::<u32>(), 0))?;
        let pinned = Pinned { pointer: pointer.cast(), words };
        // SAFETY: the driver gave so many bytes, which only this value knows of.
        #[expect(unsafe_code, reason = "memory of the driver")]
        unsafe {
            ptr::write_bytes(pinned.pointer, 0, words);
        }
        Ok(pinned)
    }

    pub(crate) fn free_pinned(&self, pinned: &Pinned) {
        let _ = call!(self, "cuMemFreeHost", host_free(pinned.pointer.cast()));
    }

    /// A stream that does not wait for the legacy default one.
    pub(crate) fn stream(&self) -> Result<Stream, Failure> {
        const NON_BLOCKING: c_uint = 1;
        let mut stream = ptr::null_mut();
        call!(self, "cuStreamCreate", stream_create(&raw mut stream, NON_BLOCKING))?;
        Ok(Stream(stream))
    }

    pub(crate) fn destroy_stream(&self, stream: &Stream) {
        let _ = call!(self, "cuStreamDestroy_v2", stream_destroy(stream.0));
    }

    /// Waits for all that is queued.
    pub(crate) fn synchronize(&self, stream: &Stream) -> Result<(), Failure> {
        call!(self, "cuStreamSynchronize", stream_synchronize(stream.0))
    }

    /// `image` is a cubin, or PTX that ends in a NUL.
    pub(crate) fn load_module(&self, image: &[u8]) -> Result<Module, Failure> {
        let mut module = ptr::null_mut();
        call!(self, "cuModuleLoadData", module_load(&raw mut module, image.as_ptr().cast()))?;
        Ok(Module(module))
    }

    pub(crate) fn unload_module(&self, module: &Module) {
        let _ = call!(self, "cuModuleUnload", module_unload(module.0));
    }

    pub(crate) fn function(&self, module: &Module, name: &str) -> Result<Function, Failure> {
        let name = CString::new(name).expect("kernels' names have no NUL");
        let mut function = ptr::null_mut();
        call!(self, "cuModuleGetFunction", module_function(&raw mut function, module.0, name.as_ptr()))?;
        Ok(Function(function))
    }

    /// Queues a kernel. What it is given must be what it takes, and every address must be as long as the kernel reads and writes: the
    /// lowering writes both from one description.
    pub(crate) fn launch(
        &self,
        function: Function,
        grid: [u32; 3],
        threads: u32,
        given: &[Given],
        stream: &Stream,
    ) -> Result<(), Failure> {
        let mut values = given.to_vec();
        let mut pointers: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| match value {
                Given::Address(address) => ptr::from_mut(address).cast(),
                Given::Int(int) => ptr::from_mut(int).cast(),
                Given::Float(float) => ptr::from_mut(float).cast(),
            })
            .collect();
        let [x, y, z] = grid;
        let parameters = pointers.as_mut_ptr();
        call!(
            self,
            "cuLaunchKernel",
            launch(function.0, x, y, z, threads, 1, 1, 0, stream.0, parameters, ptr::null_mut())
        )
    }

    /// Records what `body` queues on the stream instead of running it.
    pub(crate) fn record<E: From<Failure>>(
        &self,
        stream: &Stream,
        body: impl FnOnce() -> Result<(), E>,
    ) -> Result<Recording, E> {
        /// Calls of other threads do not disturb the recording.
        const THREAD_LOCAL: c_int = 1;
        call!(self, "cuStreamBeginCapture_v2", capture_begin(stream.0, THREAD_LOCAL))?;
        let recorded = body();
        let mut graph = ptr::null_mut();
        let ended = call!(self, "cuStreamEndCapture", capture_end(stream.0, &raw mut graph));
        recorded?;
        ended?;
        let mut ready = ptr::null_mut();
        let instantiated = call!(self, "cuGraphInstantiateWithFlags", graph_instantiate(&raw mut ready, graph, 0));
        let _ = call!(self, "cuGraphDestroy", graph_destroy(graph));
        instantiated?;
        Ok(Recording(ready))
    }

    /// Queues a recorded step.
    pub(crate) fn replay(&self, recording: &Recording, stream: &Stream) -> Result<(), Failure> {
        call!(self, "cuGraphLaunch", graph_launch(recording.0, stream.0))
    }

    pub(crate) fn destroy_recording(&self, recording: &Recording) {
        let _ = call!(self, "cuGraphExecDestroy", graph_exec_destroy(recording.0));
    }

    pub(crate) fn event(&self) -> Result<Event, Failure> {
        let mut event = ptr::null_mut();
        call!(self, "cuEventCreate", event_create(&raw mut event, 0))?;
        Ok(Event(event))
    }

    /// An event that is only waited for, not timed.
    pub(crate) fn marker(&self) -> Result<Event, Failure> {
        const DISABLE_TIMING: c_uint = 2;
        let mut event = ptr::null_mut();
        call!(self, "cuEventCreate", event_create(&raw mut event, DISABLE_TIMING))?;
        Ok(Event(event))
    }

    /// The host waits until what was queued before the event was last marked is done; not at all if it never was.
    pub(crate) fn wait_for(&self, event: &Event) -> Result<(), Failure> {
        call!(self, "cuEventSynchronize", event_synchronize(event.0))
    }

    /// What is queued on the stream from now on waits for the same.
    pub(crate) fn order(&self, stream: &Stream, event: &Event) -> Result<(), Failure> {
        call!(self, "cuStreamWaitEvent", stream_wait(stream.0, event.0, 0))
    }

    pub(crate) fn destroy_event(&self, event: &Event) {
        let _ = call!(self, "cuEventDestroy_v2", event_destroy(event.0));
    }

    pub(crate) fn mark(&self, event: &Event, stream: &Stream) -> Result<(), Failure> {
        call!(self, "cuEventRecord", event_record(event.0, stream.0))
    }

    /// Milliseconds between two events that have passed.
    pub(crate) fn elapsed_ms(&self, from: &Event, to: &Event) -> Result<f32, Failure> {
        let mut ms = 0.0;
        call!(self, "cuEventElapsedTime", event_elapsed(&raw mut ms, from.0, to.0))?;
        Ok(ms)
    }
}

/// NVRTC.
pub(crate) struct Nvrtc {
    pub(crate) library: String,
    /// (major, minor).
    pub(crate) version: (i32, i32),
    /// Architectures that it compiles for, such as 90, in order.
    pub(crate) architectures: Vec<i32>,
    table: CompilerTable,
    _library: Library,
}

// SAFETY: NVRTC's functions may be called from several threads, and the table never changes.
#[expect(unsafe_code, reason = "a table of functions")]
unsafe impl Sync for Nvrtc {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a table of functions")]
unsafe impl Send for Nvrtc {}

/// Status of NVRTC for "builtin operation failure".
const BUILTINS_MISSING: c_int = 7;

impl Nvrtc {
    /// Loads the first NVRTC that is there and is no newer than what a driver serves, by its major version: code of a newer one need not
    /// load. `refuse` tells why one that would do is of no use for a device: newer ones leave out old devices, and an older one may lie beside it.
    pub(crate) fn load(
        names: &[String],
        driver_major: i32,
        refuse: impl Fn(&Self) -> Option<CudaError>,
    ) -> Result<Self, CudaError> {
        let mut unfit = None;
        let mut tried = Vec::new();
        for name in names {
            match Self::load_one(name) {
                Ok(nvrtc) if nvrtc.version.0 <= driver_major => match refuse(&nvrtc) {
                    None => return Ok(nvrtc),
                    Some(reason) => unfit = unfit.or(Some(reason)),
                },
                Ok(nvrtc) => {
                    let (major, minor) = nvrtc.version;
                    let reason = format!(
                        "NVRTC {major}.{minor} is newer than the driver, which serves CUDA {driver_major}; install NVRTC \
                         {driver_major} (`pip install nvidia-cuda-nvrtc-cu{driver_major}`) or a newer driver"
                    );
                    unfit = unfit.or(Some(CudaError::Library { library: nvrtc.library, reason }));
                }
                Err(CudaError::NoCompiler { tried: reason }) => tried.push(reason),
                Err(error) => return Err(error),
            }
        }
        Err(unfit.unwrap_or(CudaError::NoCompiler { tried: tried.join("; ") }))
    }

    fn load_one(name: &str) -> Result<Self, CudaError> {
        // NVRTC looks for its builtins beside the file by whose name it was loaded, which a link would mislead.
        let file = name.contains('/').then(|| std::fs::canonicalize(name).ok()).flatten();
        let name = file.map_or_else(|| name.to_owned(), |file| file.display().to_string());
        let (name, library) = open(&[name]).map_err(|tried| CudaError::NoCompiler { tried })?;
        let refuse = |reason: String| CudaError::Library { library: name.clone(), reason };
        let table = CompilerTable::load(&library).map_err(refuse)?;
        let mut nvrtc =
            Self { library: name.clone(), version: (0, 0), architectures: Vec::new(), table, _library: library };
        let (mut major, mut minor, mut count) = (0, 0, 0);
        call!(nvrtc, "nvrtcVersion", version(&raw mut major, &raw mut minor)).map_err(|f| refuse(f.to_string()))?;
        call!(nvrtc, "nvrtcGetNumSupportedArchs", architecture_count(&raw mut count))
            .map_err(|f| refuse(f.to_string()))?;
        let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
        call!(nvrtc, "nvrtcGetSupportedArchs", architectures(architectures.as_mut_ptr()))
            .map_err(|f| refuse(f.to_string()))?;
        architectures.sort_unstable();
        nvrtc.version = (major, minor);
        nvrtc.architectures = architectures;
        Ok(nvrtc)
    }

    fn check(&self, function: &'static str, status: c_int) -> Result<(), Failure> {
        let meaning = || "see nvrtc.h".to_owned();
        if status == 0 { Ok(()) } else { Err(Failure { function, status, meaning: meaning() }) }
    }

    /// How kernels are compiled for an architecture.
    pub(crate) fn options(architecture: &str) -> [String; 2] {
        [format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()]
    }

    /// Compiles a source. Gives what the driver loads (a cubin for `sm_…`, PTX for `compute_…`), and what NVRTC had to say.
    pub(crate) fn compile(&self, source: &str, architecture: &str) -> Result<(Vec<u8>, String), CudaError> {
        let source = CString::new(source).expect("kernels have no NUL");
        let options = Self::options(architecture).map(|o| CString::new(o).expect("no NUL"));
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = ptr::null_mut();
        call!(
            self,
            "nvrtcCreateProgram",
            create(&raw mut program, source.as_ptr(), c"step.cu".as_ptr(), 0, ptr::null(), ptr::null())
        )?;
        let compiled = call!(self, "nvrtcCompileProgram", compile(program, options.len() as c_int, options.as_ptr()));
        let result = self.log(program).and_then(|log| match compiled {
            Ok(()) if architecture.starts_with("sm_") => Ok((self.cubin(program)?, log)),
            Ok(()) => Ok((self.ptx(program)?, log)),
            Err(failure) => {
                let log = if log.is_empty() { failure.to_string() } else { log };
                if failure.status == BUILTINS_MISSING {
                    let reason = format!("its file libnvrtc-builtins must lie beside it ({log})");
                    return Err(CudaError::Library { library: self.library.clone(), reason });
                }
                Err(CudaError::Kernel { architecture: architecture.to_owned(), log })
            }
        });
        let _ = call!(self, "nvrtcDestroyProgram", destroy(&raw mut program));
        result
    }

    fn log(&self, program: Handle) -> Result<String, CudaError> {
        let mut size = 0;
        call!(self, "nvrtcGetProgramLogSize", log_size(program, &raw mut size))?;
        let mut log = vec![0_u8; size];
        if size > 0 {
            call!(self, "nvrtcGetProgramLog", log(program, log.as_mut_ptr().cast()))?;
        }
        Ok(String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned())
    }

    fn cubin(&self, program: Handle) -> Result<Vec<u8>, Failure> {
        let mut size = 0;
        call!(self, "nvrtcGetCUBINSize", cubin_size(program, &raw mut size))?;
        let mut image = vec![0_u8; size];
        call!(self, "nvrtcGetCUBIN", cubin(program, image.as_mut_ptr().cast()))?;
        Ok(image)
    }

    fn ptx(&self, program: Handle) -> Result<Vec<u8>, Failure> {
        let mut size = 0;
        call!(self, "nvrtcGetPTXSize", ptx_size(program, &raw mut size))?;
        let mut image = vec![0_u8; size];
        call!(self, "nvrtcGetPTX", ptx(program, image.as_mut_ptr().cast()))?;
        Ok(image)
    }
}
