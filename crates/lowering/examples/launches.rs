//! Writes what a training step would run on a GPU: `cargo run -p lowering --example launches -- FOLDER [BATCH] [PRECISION] [NETWORK]`, the network
//! `alexnet` (3×227×227, the default) or `lenet5`.
//!
//! `FOLDER/step.cu` is the CUDA source, `FOLDER/launches.csv` has a line for each launch. `roofline.py` beside this file reads both.

use std::{fmt::Write, path::PathBuf};

use graph::{Autograd, Network, step::Variables};
use lowering::{Precision, cuda};
use plan::{Architecture, Model, Train};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("usage: launches FOLDER [BATCH] [PRECISION]"));
    let batch_size = arguments.next().map_or(128, |batch| batch.parse().expect("BATCH is a number"));
    let asked = arguments.next().unwrap_or_else(|| "bf16".to_owned());
    let precision = Precision::ALL.into_iter().find(|precision| precision.to_string() == asked);
    let precision = precision.expect("PRECISION is f32, tf32 or bf16");

    let (architecture, input, classes) = match arguments.next().as_deref() {
        None | Some("alexnet") => (Architecture::AlexNet, [3, 227, 227], 1000),
        Some("lenet5") => (Architecture::LeNet5, [1, 28, 28], 10),
        Some(other) => panic!("NETWORK is alexnet or lenet5, not {other}"),
    };
    let network = Network::new(&Model { architecture, ..Model::default() }, input, classes).expect("a network");
    let train = Train { batch_size, ..Train::default() };
    let (mut graph, _) = Variables::for_training(&network, &train).training_graph(batch_size, &train);
    graph.compile(Autograd, ());

    let mut lines = "what,kernel,blocks_x,blocks_y,blocks_z,threads,read_bytes,written_bytes,flop\n".to_owned();
    for launch in cuda::launches(&graph, precision) {
        let [x, y, z] = launch.blocks;
        let (threads, read, written) = (launch.threads, launch.read_bytes, launch.written_bytes);
        let _ =
            writeln!(lines, "{},{},{x},{y},{z},{threads},{read},{written},{}", launch.what, launch.kernel, launch.flop);
    }
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("launches.csv"), lines).expect("launches.csv can be written");
    std::fs::write(folder.join("step.cu"), cuda::source(&graph, precision)).expect("step.cu can be written");
    let memory = cuda::memory_plan(&graph, precision);
    println!("arena {} MB, states {} MB", memory.arena_bytes / 1_000_000, memory.state_bytes / 1_000_000);
}
