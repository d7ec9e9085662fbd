//! Every kernel through NVIDIA's compiler, for each generation of GPUs that it knows, where NVRTC is there: no GPU is needed.

use graph::{Autograd, Network, step::Variables};
use lowering::{
    Precision,
    cuda::{Libraries, architectures, compile_only, feed_source, source},
};
use luminal::prelude::Graph;
use plan::{Architecture, Model, Normalization, Optimizer, Train};

use crate::support::expressions::{self, Images};

/// What `PIPELINE_NVRTC` names; with `pip`, the library where pip puts it. None if nothing is named: it takes minutes of processor time.
fn libraries() -> Option<Libraries> {
    let named = std::env::var("PIPELINE_NVRTC").ok().filter(|path| !path.is_empty())?;
    let mut libraries = Libraries::default();
    if named == "pip" {
        let asked = std::process::Command::new("python3")
            .args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
            .output()
            .expect("python3 tells where pip puts packages");
        let folder = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        let known = ["cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"];
        libraries.nvrtc = known.map(|library| format!("{folder}/nvidia/{library}")).to_vec();
    }
    Some(libraries)
}

fn alexnet(normalization: Normalization, activation: plan::Activation, width: f64) -> Model {
    Model {
        architecture: Architecture::AlexNet,
        normalization: Some(normalization),
        activation: Some(activation),
        towers: Some(2),
        width: Some(width),
        ..Model::default()
    }
}

/// Programs that together hold every kernel: the large AlexNet, LeNet-5, and a narrow AlexNet with all that they do not have.
fn sources(precision: Precision) -> Vec<String> {
    let mut sources = Vec::new();
    let mut add = |mut graph: Box<Graph>| {
        graph.compile(Autograd, ());
        sources.push(source(&graph, precision));
    };
    let large = Train { batch_size: 128, ..Train::default() };
    let averaged = Train { average_decay: Some(0.99), nesterov: true, ..Train::default() };
    let adam = Train { optimizer: Optimizer::Adam, gradient_clip: Some(1.0), ..Train::default() };
    for (model, input, train, training) in [
        (Model::default(), [1, 28, 28], averaged, true),
        (alexnet(Normalization::Batch, plan::Activation::Relu, 1.0), [3, 227, 227], large.clone(), true),
        (alexnet(Normalization::Batch, plan::Activation::Relu, 1.0), [3, 227, 227], large, false),
        (alexnet(Normalization::LocalResponse, plan::Activation::Sigmoid, 0.05), [3, 67, 67], adam.clone(), true),
        (alexnet(Normalization::LocalResponse, plan::Activation::Relu, 0.5), [3, 67, 67], adam, true),
    ] {
        let network = Network::new(&model, input, 1000).expect("a network");
        let variables = Variables::for_training(&network, &train);
        add(if training {
            variables.training_graph(train.batch_size, &train).0
        } else {
            variables.evaluation_graph(100).0
        });
    }
    let x = Images { n: 3, c: 4, h: 9, w: 8 };
    add(expressions::shared(1, x).build().graph);
    add(expressions::shared(2, Images { c: 8, ..x }).build().graph);
    add(expressions::random(3, x, 12).build().graph);
    sources.push(feed_source(1000, Some(([1_281_167, 3, 256, 256], [227, 227]))));
    sources.push(feed_source(10, Some(([70_000, 1, 28, 28], [28, 28]))));
    sources.push(feed_source(10, None));
    sources
}

#[test]
fn every_kernel_compiles_for_all_generations_without_a_warning() {
    let sources = sources(Precision::F32);
    // Every device function is used by one of them.
    let all = sources.join("\n");
    for function in [
        "fill(",
        "map(",
        "multiply<",
        "combine(",
        "LinearForward<",
        "LinearInputGrad<",
        "LinearWeightGrad<",
        "ConvolutionForward<",
        "ConvolutionInputGrad<",
        "ConvolutionWeightGrad<",
        "max_pool<",
        "max_pool_with_positions<",
        "max_pool_grad<",
        "average_pool<",
        "average_pool_grad<",
        "channel_parts<",
        "channel_sum<",
        "moment_parts<",
        "moments<",
        "batch_normalize<",
        "batch_parameter_parts<",
        "batch_input_grad<",
        "update_running(",
        "local_response<",
        "denominators<",
        "local_response_grad<",
        "cross_entropy_rows<",
        "mean_loss<",
        "cross_entropy_grad<",
        "sgd<",
        "adam<",
        "squares(",
        "clip_factor(",
        "activate<RELU>",
        "activate<TANH>",
        "activate<SIGMOID>",
        "drop(",
        "hand_out(",
        "rank_rows<1000>(",
        "cut_samples<Cut<3, 256, 256, 227, 227, 1>>(",
        "cut_samples<Cut<1, 28, 28, 28, 28, 2>>(",
    ] {
        assert_used(&all, function);
    }
    compile(&sources, &[75, 80, 90, 120]);
}

/// The rest of such a program is as in 32-bit floats, and compiled with it.
#[test]
fn kernels_of_tensor_cores_compile_for_all_that_have_them_without_a_warning() {
    for precision in [Precision::Tf32, Precision::Bf16] {
        let sources = sources(precision);
        let all = sources.join("\n");
        for function in [
            "pack<",
            "pack_rows<",
            "map_image<",
            "zero_margin<",
            "pixel_parts<",
            "pixel_moment_parts<",
            "pixel_parameter_parts<",
            &format!("PixelsOut<{}, ", precision_kind(precision)),
            "multiply_packed<",
            "combine(",
            "PackedLinearForward<",
            "PackedLinearInputGrad<",
            "PackedLinearWeightGrad<",
            "PackedConvolutionForward<",
            "PackedConvolutionInputGrad<",
            "PackedConvolutionWeightGrad<",
            &format!("TensorTiles<{}, 128, 128, 2>", precision_kind(precision)),
            &format!("TensorTiles<{}, 16, 128, 1>", precision_kind(precision)),
        ] {
            assert_used(&all, function);
        }
        assert!(!all.contains(" multiply<"), "all products are taken in {precision}");
        compile(&sources, &[80, 90, 100, 120]);
    }
}

fn precision_kind(precision: Precision) -> &'static str {
    if precision == Precision::Bf16 { "Bf16" } else { "Tf32" }
}

fn assert_used(all: &str, function: &str) {
    let used = |line: &&str| line.starts_with("extern \"C\"") || line.starts_with("struct Epilogue");
    assert!(all.lines().filter(used).any(|line| line.contains(function)), "no program uses {function}");
}

/// Through NVRTC, if there is one.
fn compile(sources: &[String], generations: &[i32]) {
    let Some(libraries) = libraries() else {
        println!(
            "SKIPPED: kernels through NVRTC: PIPELINE_NVRTC names no library (`pip` takes the one of `pip install nvidia-cuda-nvrtc`)"
        );
        return;
    };
    let known = architectures(&libraries).unwrap_or_else(|error| panic!("{error}"));
    // The two that came with CUDA 12.8 are newer than the oldest NVRTC.
    for generation in generations.iter().filter(|generation| **generation <= 90 || known.contains(generation)) {
        let architecture = &format!("sm_{generation}");
        let logs = compile_only(&libraries, sources, architecture).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(logs.len(), sources.len());
        for (log, source) in logs.iter().zip(sources) {
            assert!(log.is_empty(), "{architecture}: {log}\nof\n{}", &source[source.len().saturating_sub(3000)..]);
        }
        println!("{architecture}: {} programs without a warning", logs.len());
    }
}

#[test]
fn updates_have_a_form_for_every_setting() {
    for optimizer in [Optimizer::Sgd, Optimizer::Adam, Optimizer::Adamw] {
        for (nesterov, average, clip) in [(false, None, None), (true, Some(0.9), Some(1.0))] {
            let train = Train { optimizer, nesterov, average_decay: average, gradient_clip: clip, ..Train::default() };
            let network = Network::new(&Model::default(), [1, 28, 28], 10).expect("LeNet-5");
            let (mut graph, _) = Variables::for_training(&network, &train).training_graph(2, &train);
            graph.compile(Autograd, ());
            let (function, first) = match optimizer {
                Optimizer::Sgd => ("sgd", nesterov),
                Optimizer::Adam => ("adam", false),
                Optimizer::Adamw => ("adam", true),
            };
            let source = source(&graph, Precision::F32);
            for decays in [true, false] {
                let expected = format!("{function}<{first}, {decays}, {}, {}>(", average.is_some(), clip.is_some());
                assert!(source.contains(&expected), "{expected}");
            }
        }
    }
}
