//! The emulated driver refuses what a real one refuses: else it would prove nothing of the calls that it is given.

use std::{
    ffi::{c_int, c_uint, c_ulonglong, c_void},
    ptr,
};

use libloading::Library;

use crate::emulator;

type Handle = *mut c_void;

const OUT_OF_RESOURCES: c_int = 701;

/// Calls a function of the library with these arguments: `call!(library, "cuInit", 0 as c_uint)`.
macro_rules! call {
    ($library:expr, $name:literal $(, $argument:expr => $kind:ty)*) => {{
        // SAFETY: the types are those of `cuda.h`, and pointers lead to locals that live longer than the call.
        #[expect(unsafe_code, reason = "functions of a library loaded at run time")]
        unsafe {
            let function = $library.get::<unsafe extern "C" fn($($kind),*) -> c_int>($name.as_bytes()).expect($name);
            function($($argument),*)
        }
    }};
}

#[test]
fn the_emulated_driver_refuses_what_a_real_one_does() {
    let Some(libraries) = emulator::with_faults("strict", "") else { return };
    // SAFETY: the library is ours, and its initialisers do nothing.
    #[expect(unsafe_code, reason = "a library loaded at run time")]
    let driver = unsafe { Library::new(&libraries.driver[0]) }.expect("the emulated driver");
    let d = &driver;
    let (mut context, mut stream, mut graph, mut event) =
        (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let (mut device, mut address) = (0, 0);

    assert_eq!(call!(d, "cuDeviceGet", &raw mut device => *mut c_int, 0 => c_int), 3, "nothing before cuInit");
    assert_eq!(call!(d, "cuInit", 0 => c_uint), 0);
    assert_eq!(call!(d, "cuDeviceGet", &raw mut device => *mut c_int, 1 => c_int), 101, "there is one device");
    assert_eq!(call!(d, "cuDevicePrimaryCtxRetain", &raw mut context => *mut Handle, 0 => c_int), 0);
    let allocate = |address: &mut c_ulonglong, bytes| call!(d, "cuMemAlloc_v2", ptr::from_mut(address) => *mut c_ulonglong, bytes => usize);
    assert_eq!(allocate(&mut address, 64), 201, "a context is current for a thread, and none is yet");
    assert_eq!(call!(d, "cuCtxSetCurrent", context => Handle), 0);
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            let mut address = 0;
            allocate(&mut address, 64)
        });
        assert_eq!(elsewhere.join().expect("a status"), 201, "another thread has none");
    });
    assert_eq!(allocate(&mut address, 0), 1, "nothing is no allocation");
    assert_eq!(allocate(&mut address, 64), 0);

    assert_eq!(call!(d, "cuStreamSynchronize", ptr::null_mut() => Handle), 400, "no stream of ours");
    assert_eq!(call!(d, "cuStreamCreate", &raw mut stream => *mut Handle, 1 => c_uint), 0);
    assert_eq!(
        call!(d, "cuStreamEndCapture", stream => Handle, &raw mut graph => *mut Handle),
        903,
        "nothing was begun"
    );
    let copy = |to| {
        let word = 7_u32;
        call!(d, "cuMemcpyHtoDAsync_v2", to => c_ulonglong, (&raw const word).cast() => *const c_void, 4 => usize, stream => Handle)
    };
    assert_eq!(copy(address + 61), 1, "three of four bytes");
    for forbidden in ["cuMemAlloc_v2", "cuStreamSynchronize", "cuMemcpyHtoDAsync_v2"] {
        assert_eq!(call!(d, "cuStreamBeginCapture_v2", stream => Handle, 1 => c_int), 0);
        let status = match forbidden {
            "cuMemAlloc_v2" => allocate(&mut address, 64),
            "cuStreamSynchronize" => call!(d, "cuStreamSynchronize", stream => Handle),
            _ => copy(address),
        };
        assert_eq!(status, 900, "{forbidden} while a stream is recorded");
        assert_eq!(
            call!(d, "cuStreamEndCapture", stream => Handle, &raw mut graph => *mut Handle),
            901,
            "{forbidden} spoils the recording"
        );
        assert!(graph.is_null());
    }
    assert_eq!(call!(d, "cuStreamSynchronize", stream => Handle), 0, "and nothing else");

    let mut ms = 0.0_f32;
    let elapsed = |ms: &mut f32, event| call!(d, "cuEventElapsedTime", ptr::from_mut(ms) => *mut f32, event => Handle, event => Handle);
    assert_eq!(call!(d, "cuEventCreate", &raw mut event => *mut Handle, 2 => c_uint), 0);
    assert_eq!(call!(d, "cuEventRecord", event => Handle, stream => Handle), 0);
    assert_eq!(elapsed(&mut ms, event), 400, "it takes no times");
    assert_eq!(call!(d, "cuEventDestroy_v2", event => Handle), 0);
    assert_eq!(call!(d, "cuEventDestroy_v2", event => Handle), 400, "it is gone");
    assert_eq!(call!(d, "cuEventCreate", &raw mut event => *mut Handle, 0 => c_uint), 0);
    assert_eq!(elapsed(&mut ms, event), 400, "it was never recorded");
    assert_eq!(call!(d, "cuEventRecord", event => Handle, stream => Handle), 0);
    assert_eq!(elapsed(&mut ms, event), 600, "nobody has waited for it");
    assert_eq!(call!(d, "cuEventSynchronize", event => Handle), 0);
    assert_eq!(elapsed(&mut ms, event), 0);

    // A kernel of 256 threads, whose one parameter is an address.
    let source =
        c"extern \"C\" __global__ void __launch_bounds__(256) touch(float* y) { if (threadIdx.x == 0) y[0] = 1.0f; }";
    let (mut program, mut size) = (ptr::null_mut::<c_void>(), 0_usize);
    let none = ptr::null::<*const i8>();
    let created = call!(
        d, "nvrtcCreateProgram", &raw mut program => *mut Handle, source.as_ptr() => *const i8, c"a.cu".as_ptr() => *const i8,
        0 => c_int, none => *const *const i8, none => *const *const i8
    );
    assert_eq!(created, 0);
    assert_eq!(call!(d, "nvrtcCompileProgram", program => Handle, 0 => c_int, none => *const *const i8), 0);
    assert_eq!(call!(d, "nvrtcGetCUBINSize", program => Handle, &raw mut size => *mut usize), 0);
    let mut image = vec![0_u8; size];
    assert_eq!(call!(d, "nvrtcGetCUBIN", program => Handle, image.as_mut_ptr() => *mut u8), 0);
    assert_eq!(call!(d, "nvrtcDestroyProgram", &raw mut program => *mut Handle), 0);
    let (mut module, mut function) = (ptr::null_mut(), ptr::null_mut());
    assert_eq!(call!(d, "cuModuleLoadData", &raw mut module => *mut Handle, image.as_ptr() => *const u8), 0);
    let find = |function: *mut Handle, name: &std::ffi::CStr| call!(d, "cuModuleGetFunction", function => *mut Handle, module => Handle, name.as_ptr() => *const i8);
    assert_eq!(find(&raw mut function, c"tuch"), 500);
    assert_eq!(find(&raw mut function, c"touch"), 0);
    let launch = |grid: [c_uint; 3], threads: c_uint, shared: c_uint, mut address: c_ulonglong| {
        let mut parameters = [(&raw mut address).cast::<c_void>()];
        call!(
            d, "cuLaunchKernel", function => Handle, grid[0] => c_uint, grid[1] => c_uint, grid[2] => c_uint, threads => c_uint,
            1 => c_uint, 1 => c_uint, shared => c_uint, stream => Handle, parameters.as_mut_ptr() => *mut Handle,
            ptr::null_mut() => *mut Handle
        )
    };
    assert_eq!(launch([1, 1, 1], 256, 0, address), 0);
    for grid in [[1, 65_536, 1], [1, 1, 65_536], [0, 1, 1], [0x8000_0000, 1, 1]] {
        assert_eq!(launch(grid, 256, 0, address), 1, "{grid:?}");
    }
    assert_eq!(launch([1, 1, 1], 1025, 0, address), 1, "no block has so many threads");
    assert_eq!(launch([1, 1, 1], 512, 0, address), OUT_OF_RESOURCES, "the kernel was compiled for fewer");
    assert_eq!(launch([1, 1, 1], 256, 64 << 10, address), OUT_OF_RESOURCES, "nobody asked for so much shared memory");
    assert_eq!(launch([1, 1, 1], 256, 0, address + 2), 700, "half a word");
    assert_eq!(launch([1, 1, 1], 256, 0, address + 4096), 700, "nothing is there");
    assert_eq!(call!(d, "cuModuleUnload", module => Handle), 0);
    assert_eq!(launch([1, 1, 1], 256, 0, address), 400, "its module is gone");
    // What is left goes with the library, but this keeps AddressSanitizer content.
    assert_eq!(call!(d, "cuMemFree_v2", address => c_ulonglong), 0);
}
