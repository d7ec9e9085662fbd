//! What a user is told when something is wrong: with a driver that has faults.

use std::sync::Arc;

use graph::{Autograd, Network, step::Variables};
use lowering::{
    Precision,
    cuda::{CudaCompiler, CudaError, Device, Libraries, Session, program},
};
use luminal::prelude::Graph;
use plan::{Model, Optimizer, Train};

use crate::emulator;

/// What opening a device with these faults says; none where there is no compiler.
fn refused(name: &str, faults: &str) -> Option<CudaError> {
    let libraries = emulator::with_faults(name, faults)?;
    Some(Device::open(&libraries).expect_err("it has faults"))
}

fn step() -> (Variables, Box<Graph>) {
    let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
    let variables = Variables::new(&network, Optimizer::Sgd);
    let (graph, _) = variables.training_graph(2, &Train::default());
    (variables, graph)
}

/// A compiled step on a device with these faults.
fn compiled(name: &str, faults: &str) -> Option<(Arc<Device>, Variables, Box<Graph>)> {
    compiled_at(Precision::F32, name, faults)
}

fn compiled_at(precision: Precision, name: &str, faults: &str) -> Option<(Arc<Device>, Variables, Box<Graph>)> {
    let device = Device::open(&emulator::with_faults(name, faults)?).expect("a device");
    let session = Session::new(&device).expect("a session");
    let (variables, mut graph) = step();
    graph.compile((Autograd, CudaCompiler::new(&session).with_precision(precision)), ());
    Some((device, variables, graph))
}

#[test]
fn without_a_driver_the_names_that_were_tried_are_told() {
    let libraries =
        Libraries { driver: vec!["libno_such_driver.so.1".to_owned()], nvrtc: vec!["libno_such_nvrtc.so".to_owned()] };
    let error = Device::open(&libraries).expect_err("there is no such library");
    assert!(matches!(error, CudaError::NoDriver { .. }));
    assert!(error.to_string().contains("libno_such_driver.so.1"), "{error}");
    let survey = Device::survey(&libraries);
    assert_eq!(survey.len(), 1);
    assert!(!survey[0].usable && survey[0].found.contains("no NVIDIA driver was found"), "{survey:?}");
}

#[test]
fn a_library_that_is_no_driver_is_refused_with_what_it_lacks() {
    let Some(library) = emulator::empty_library() else { return };
    let path = library.display().to_string();
    let error = Device::open(&Libraries { driver: vec![path.clone()], nvrtc: Vec::new() }).expect_err("no driver");
    assert_eq!(error.to_string(), format!("{path} cannot be used: it has no function cuInit"));
}

#[test]
fn faults_of_driver_and_device_are_told() {
    let Some(old) = refused("old driver", "version=11080\n") else { return };
    assert_eq!(old.to_string(), "the NVIDIA driver serves CUDA 11.8, needed is 12.0 or newer");
    let none = refused("no devices", "devices=0\n").expect("the emulator");
    assert_eq!(none, CudaError::NoDevice);
    assert_eq!(refused("init says no device", "init=100\n").expect("the emulator"), CudaError::NoDevice);
    let unknown = refused("unknown status", "init=80085\n").expect("the emulator").to_string();
    assert!(unknown.contains("cuInit returned 80085 (a status that this driver has no words for)"), "{unknown}");
    let newer = refused("newer nvrtc", "version=12040\n").expect("the emulator").to_string();
    assert!(
        newer.ends_with(
            "NVRTC 13.0 is newer than the driver, which serves CUDA 12; install NVRTC 12 (`pip install \
        nvidia-cuda-nvrtc-cu12`) or a newer driver"
        ),
        "{newer}"
    );
    let early = refused("early device", "capability=70\n").expect("the emulator").to_string();
    assert_eq!(
        early,
        "Emulated GPU has compute capability 7.0, NVRTC 13.0 compiles for 7.5 and newer; an older NVRTC may do (`pip install \
         nvidia-cuda-nvrtc-cu12`)"
    );
}

#[test]
fn an_older_nvrtc_is_taken_where_the_newest_has_left_a_device_out() {
    let Some(newest) = emulator::with_faults("volta", "capability=70\n") else { return };
    let older = emulator::with_faults("older nvrtc", "nvrtc=12080\noldest=70\n").expect("the emulator");
    let both = Libraries { nvrtc: [&newest.nvrtc[..], &older.nvrtc].concat(), ..newest.clone() };
    let device = Device::open(&both).expect("the second one knows it");
    assert!(device.description().ends_with("(compute capability 7.0, driver CUDA 13.0, NVRTC 12.8)"), "{device:?}");
    let usable = |libraries| Device::survey(libraries).iter().map(|finding| finding.usable).collect::<Vec<_>>();
    assert_eq!((usable(&both), usable(&newest)), (vec![true, true, true], vec![true, false, true]));
}

#[test]
fn an_nvrtc_without_its_builtins_is_told_as_that() {
    let Some((device, _, graph)) = compiled("no builtins", "compile=7\n") else { return };
    let error = program(&graph).run().expect_err("nothing compiles");
    assert!(matches!(error, CudaError::Library { .. }), "{error:?}");
    assert!(error.to_string().contains("its file libnvrtc-builtins must lie beside it (nvrtc: error"), "{error}");
    assert!(!device.is_lost());
    let survey = Device::survey(&emulator::with_faults("no builtins", "compile=7\n").expect("the emulator"));
    assert!(!survey[1].usable && survey[1].found.contains("libnvrtc-builtins"), "{survey:?}");
}

#[test]
fn steps_run_where_the_driver_does_not_record_them() {
    let biases = |name, faults| {
        let device = Device::open(&emulator::with_faults(name, faults)?).expect("a device");
        let session = Session::new(&device).expect("a session");
        let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
        let variables = Variables::new(&network, Optimizer::Sgd);
        let (mut graph, batch) = variables.training_graph(2, &Train::default());
        graph.compile((Autograd, CudaCompiler::new(&session)), ());
        variables.set_hyper(&Train::default(), 0.1, 1);
        batch.targets.write()[3] = 1.0;
        (0..4).for_each(|_| program(&graph).run().expect("a step"));
        let last = &variables.parameters.last().expect("fc5.bias").values;
        session.borrow_mut().pull([last]).expect("it comes back");
        let values = last.read().to_vec();
        Some(values)
    };
    let Some(recorded) = biases("recorded", "") else { return };
    assert!(recorded[3] > 0.0, "it learns: {recorded:?}");
    assert_eq!(biases("not recorded", "capture=901\n"), Some(recorded));
}

#[test]
fn memory_that_the_driver_lacks_for_itself_is_told_as_that() {
    let Some((device, _, graph)) = compiled("no room for kernels", "module=2\n") else { return };
    let error = program(&graph).run().expect_err("kernels are not loaded");
    assert!(matches!(error, CudaError::OutOfMemory { wanted_bytes: None, .. }), "{error:?}");
    assert!(error.to_string().starts_with("out of GPU memory: 8"), "{error}");
    assert!(!device.is_lost());
}

#[test]
fn without_nvrtc_it_is_said_where_it_comes_from() {
    let Some(mut libraries) = emulator::with_faults("without nvrtc", "") else { return };
    libraries.nvrtc = vec!["libno_such_nvrtc.so.13".to_owned()];
    let error = Device::open(&libraries).expect_err("no NVRTC").to_string();
    assert!(error.contains("libno_such_nvrtc.so.13") && error.contains("pip install nvidia-cuda-nvrtc"), "{error}");
    let survey = Device::survey(&libraries);
    let usable: Vec<_> = survey.iter().map(|finding| (finding.what, finding.usable)).collect();
    assert_eq!(usable, [("driver", true), ("NVRTC", false), ("GPU", true)]);
}

#[test]
fn a_survey_names_everything_that_is_there() {
    let Some(libraries) = emulator::with_faults("sound", "memory_bytes=6000000000\n") else { return };
    let survey = Device::survey(&libraries);
    assert!(survey.iter().all(|finding| finding.usable), "{survey:?}");
    assert!(survey[0].found.ends_with("libsound.so, CUDA 13.0"), "{survey:?}");
    assert_eq!(survey[2].found, "Emulated GPU, 6.0 GB, compute capability 8.0, precisions f32, tf32, bf16");
    let device = Device::open(&libraries).expect("a device");
    assert_eq!(device.description(), "cuda: Emulated GPU (compute capability 8.0, driver CUDA 13.0, NVRTC 13.0)");
}

#[test]
fn a_kernel_that_does_not_compile_is_shown_with_its_log() {
    let Some((device, _, graph)) = compiled("no compile", "compile=1\n") else { return };
    let error = program(&graph).run().expect_err("nothing compiles").to_string();
    assert!(error.starts_with("a kernel does not compile for sm_80"), "{error}");
    assert!(error.ends_with("step.cu(7): error: expected a \";\""), "{error}");
    assert!(!device.is_lost());
}

#[test]
fn a_device_without_the_instructions_refuses_reduced_precision_and_says_what_it_can_do() {
    for precision in [Precision::Tf32, Precision::Bf16] {
        let Some((device, _, graph)) = compiled_at(precision, "turing", "capability=75\n") else { return };
        let expected = format!(
            "Emulated GPU has compute capability 7.5, and products in {precision} need 8.0 or newer; f32 is what it can do"
        );
        assert_eq!(program(&graph).run().expect_err("it has no such instructions").to_string(), expected);
        assert_eq!(device.serve(precision).expect_err("nor does it say so").to_string(), expected);
        assert_eq!(device.serve(Precision::F32), Ok(()));
    }
    let survey = Device::survey(&emulator::with_faults("turing", "capability=75\n").expect("the emulator"));
    assert!(survey[2].found.ends_with("compute capability 7.5, precisions f32"), "{survey:?}");
}

#[test]
fn short_memory_is_told_in_megabytes_and_leaves_the_device_usable() {
    let Some((device, variables, graph)) = compiled("short of memory", "memory_bytes=500000\n") else { return };
    let error = program(&graph).run().expect_err("it does not fit");
    assert!(matches!(error, CudaError::OutOfMemory { total_bytes: 500_000, .. }), "{error:?}");
    assert!(error.to_string().contains("a smaller train.batch_size"), "{error}");
    assert!(!device.is_lost());
    assert!(variables.parameters[0].values.read().iter().all(|&v| v == 0.0));
}

#[test]
fn a_device_that_is_lost_on_the_way_is_told_and_stays_lost() {
    let Some((device, variables, graph)) = compiled("lost on the way", "lose_after=150\n") else { return };
    variables.set_hyper(&Train::default(), 0.1, 1);
    let program = program(&graph);
    let error = (0..100).find_map(|_| program.run().err()).expect("it is lost after some steps");
    assert!(matches!(error, CudaError::Lost(_)), "{error:?}");
    assert!(error.to_string().contains("700 (CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
    assert!(device.is_lost());
    assert!(program.run().is_err(), "and it does not come back");
}

#[test]
fn a_status_that_nobody_knows_is_an_error_like_any_other() {
    let Some((device, _, graph)) = compiled("strange status", "synchronize=31337\n") else { return };
    let error = program(&graph).run().expect_err("reserving an arena waits").to_string();
    assert!(error.contains("cuStreamSynchronize returned 31337"), "{error}");
    assert!(!device.is_lost());
}
