//! Kernels that are kept on disk: taken where they are whole, compiled anew where they are not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use graph::{Autograd, Network, State, step::Variables};
use lowering::cuda::{CudaCompiler, CudaError, Device, Libraries, Session, program};
use plan::{Model, Optimizer};

use crate::emulator;

/// A device as a process of its own would open it, with these faults, that keeps its kernels in this folder. None where there is no C++
/// compiler.
fn opened(faults: &str, folder: &Path) -> Option<Arc<Device>> {
    static MADE: Mutex<BTreeMap<String, Option<Libraries>>> = Mutex::new(BTreeMap::new());
    let name = format!("kept {}", faults.replace(['\n', '='], " "));
    let make = || emulator::with_faults(name.trim(), faults);
    let libraries = MADE.lock().unwrap().entry(name.clone()).or_insert_with(make).clone()?;
    let device = Device::open(&libraries).expect("a device");
    device.keep_kernels(folder);
    Some(device)
}

/// One forward step of LeNet-5, all of whose weights are zeros: logits that are not poison.
fn step(device: &Arc<Device>) -> Result<(), CudaError> {
    let session = Session::new(device)?;
    let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
    let (mut graph, batch) = Variables::new(&network, Optimizer::Sgd).evaluation_graph(1);
    graph.compile((Autograd, CudaCompiler::new(&session)), ());
    program(&graph).run()?;
    session.borrow_mut().pull([&batch.logits] as [&State; 1])?;
    assert!(batch.logits.read().iter().all(|&logit| logit == 0.0));
    Ok(())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries
}

/// On this device nothing compiles: what runs was kept.
const NOTHING_COMPILES: &str = "compile=1\n";

#[test]
fn another_process_compiles_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    // The folder need not be there.
    let folder = folder.path().join("kernels");
    let Some(first) = opened("", &folder) else { return };
    step(&first).unwrap();
    assert_eq!(entries(&folder).len(), 1);
    let second = opened(NOTHING_COMPILES, &folder).unwrap();
    step(&second).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let without = opened(NOTHING_COMPILES, elsewhere.path()).unwrap();
    assert!(matches!(step(&without), Err(CudaError::Kernel { .. })), "another folder does not have it");
    assert!(entries(elsewhere.path()).is_empty(), "and what does not compile is not kept");
}

#[test]
fn what_was_made_for_another_device_or_by_another_compiler_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let Some(first) = opened("", folder.path()) else { return };
    step(&first).unwrap();
    for other in ["capability=90\n", "nvrtc=12080\n"] {
        let refused = opened(&format!("{NOTHING_COMPILES}{other}"), folder.path()).unwrap();
        assert!(matches!(step(&refused), Err(CudaError::Kernel { .. })), "{other}");
        let before = entries(folder.path()).len();
        step(&opened(other, folder.path()).unwrap()).unwrap();
        assert_eq!(entries(folder.path()).len(), before + 1, "{other}");
    }
}

#[test]
fn a_damaged_entry_is_compiled_anew_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let Some(first) = opened("", folder.path()) else { return };
    step(&first).unwrap();
    let entry = entries(folder.path()).remove(0);
    let whole = std::fs::read(&entry).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut other_hash = whole.clone();
    other_hash[0] ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for damaged in [&[][..], &whole[..20], &whole[..32], &whole[..whole.len() - 1], &flipped, &other_hash, &longer] {
        std::fs::write(&entry, damaged).unwrap();
        let refused = opened(NOTHING_COMPILES, folder.path()).unwrap();
        assert!(matches!(step(&refused), Err(CudaError::Kernel { .. })), "it is not taken");
        step(&opened("", folder.path()).unwrap()).unwrap();
        assert_eq!(std::fs::read(&entry).unwrap(), whole, "it is replaced");
    }
    // Whole, but of something that the driver does not take.
    let foreign = b"not an image\0";
    std::fs::write(&entry, [blake3::hash(foreign).as_bytes(), &foreign[..]].concat()).unwrap();
    let device = opened("", folder.path()).unwrap();
    step(&device).unwrap();
    assert_eq!(std::fs::read(&entry).unwrap(), whole, "it is replaced too");
    assert!(!device.is_lost());
    assert_eq!(entries(folder.path()), [entry], "nothing half-written stays");
}

#[test]
fn processes_that_compile_at_once_leave_one_whole_entry() {
    let folder = tempfile::tempdir().unwrap();
    if opened("", folder.path()).is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| step(&opened("", folder.path()).unwrap()).unwrap());
        }
    });
    assert_eq!(entries(folder.path()).len(), 1);
    step(&opened(NOTHING_COMPILES, folder.path()).unwrap()).unwrap();
}

#[test]
fn where_nothing_can_be_kept_steps_run_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    std::fs::write(&file, "in the way").unwrap();
    let Some(device) = opened("", &file) else { return };
    step(&device).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"in the way");
}
