//! The CUDA lowering without a GPU: kernels compiled for the host and run by a grid emulator (`tests/emulator`), judged by PyTorch's
//! golden vectors and by the reference; a driver with faults; NVRTC itself, where there is one. `PIPELINE_GPU_TESTS=1` runs the same
//! comparisons on a GPU, and fails where there is none.

mod emulator;
mod faults;
mod feed;
mod kept;
mod nvrtc;
mod parity;
mod precision;
mod strict;
#[allow(dead_code, reason = "the reference's tests use the rest")]
#[path = "../../../graph/tests/support/mod.rs"]
mod support;
mod training;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use graph::{Autograd, State};
use lowering::{
    Precision,
    cuda::{CudaCompiler, Device, Libraries, Session, program},
};
use luminal::prelude::Graph;
use support::machine::Machine;

/// A device through its session, for the suites that judge every machine.
struct Gpu {
    session: Rc<RefCell<Session>>,
    precision: Precision,
}

impl Gpu {
    fn new(device: &Arc<Device>) -> Self {
        Self::at(Precision::F32, device)
    }

    fn at(precision: Precision, device: &Arc<Device>) -> Self {
        Self { session: Session::new(device).expect("a session"), precision }
    }
}

impl Machine for Gpu {
    fn compile(&self, graph: &mut Graph) {
        graph.compile((Autograd, CudaCompiler::new(&self.session).with_precision(self.precision)), ());
    }
    fn run(&mut self, graph: &mut Graph) {
        program(graph).run().unwrap_or_else(|error| panic!("{error}"));
    }
    fn set(&mut self, state: &State, values: &[f32]) {
        state.write().copy_from_slice(values);
    }
    fn get(&mut self, state: &State) -> Vec<f64> {
        self.session.borrow_mut().pull([state]).unwrap_or_else(|error| panic!("{error}"));
        state.read().iter().map(|&v| f64::from(v)).collect()
    }
}

/// Whether the comparisons are to run on hardware.
fn on_hardware() -> bool {
    std::env::var("PIPELINE_GPU_TESTS").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// The emulated device, or the real one where `PIPELINE_GPU_TESTS` asks for it: then its absence is a failure. None, said aloud, where
/// there is no C++ compiler.
fn device(what: &str) -> Option<Arc<Device>> {
    if on_hardware() {
        return Some(
            Device::open(&Libraries::default())
                .unwrap_or_else(|error| panic!("PIPELINE_GPU_TESTS is set, but {error}")),
        );
    }
    emulator::libraries(what).map(|libraries| Device::open(&libraries).expect("the emulator's device"))
}
