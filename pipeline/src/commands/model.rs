//! `pipeline model`: a network layer by layer.

use std::path::Path;

use ::plan::{Experiment, Settings, Trial};
use anyhow::Context;
use graph::{LayerKind, Network};

use crate::{
    cli::{Global, Rows},
    exit::Exit,
    output::{integer, rows, tell, text},
};

/// [C, H, W] that LeNet-5 was made for.
const LENET5: [usize; 3] = [1, 28, 28];
/// [C, H, W] that AlexNet was made for.
const ALEXNET: [usize; 3] = [3, 227, 227];

/// The settings of the network asked for, and what is to be said of them.
fn settings(
    model: &str,
    trial: Option<usize>,
    input: Option<[usize; 3]>,
    overrides: &[String],
) -> anyhow::Result<(Settings, Option<String>)> {
    let own = match model {
        "lenet5" => Some(LENET5),
        "alexnet" => Some(ALEXNET),
        _ => None,
    };
    if let Some(own) = own {
        anyhow::ensure!(trial.is_none(), "--trial chooses one of an experiment file's, and {model} is a network");
        let [channels, height, width] = input.unwrap_or(own);
        let color = if channels == 1 { "gray" } else { "rgb" };
        let mut all = vec![
            format!("model.architecture={model}"),
            format!("dataset.image_size={}", height.min(width)),
            format!("dataset.color={color}"),
        ];
        all.extend(overrides.iter().cloned());
        let trial = Experiment::parse("", "model", &all)?.trials().into_iter().next();
        return Ok((trial.context("the experiment has no trials")?.settings, None));
    }
    anyhow::ensure!(
        Path::new(model).exists(),
        "no network or file {model:?}: expected lenet5, alexnet or an experiment file"
    );
    let mut trials = Experiment::load(Path::new(model), overrides)?.trials();
    let number = trial.unwrap_or(0);
    anyhow::ensure!(number < trials.len(), "--trial {number}: {model} has the trials 0 to {}", trials.len() - 1);
    let chosen = trials[number].label();
    let differs = |other: &Trial| {
        let (a, b) = (&other.settings, &trials[number].settings);
        a.model != b.model || a.input_size() != b.input_size()
    };
    let note = trials.iter().position(differs).map(|other| {
        format!(
            "trial {number}, {chosen}; others of this file have other networks, such as --trial {other}, {}",
            trials[other].label()
        )
    });
    Ok((trials.swap_remove(number).settings, note))
}

fn describe(kind: &LayerKind) -> String {
    match kind {
        LayerKind::Convolution { outputs, kernel, attributes: a } => {
            let mut text = format!("convolution {outputs} @ {kernel}×{kernel}");
            if a.stride > 1 {
                text += &format!(", stride {}", a.stride);
            }
            if a.padding > 0 {
                text += &format!(", padding {}", a.padding);
            }
            if a.groups > 1 {
                text += &format!(", {} groups", a.groups);
            }
            text
        }
        LayerKind::BatchNorm => "batch normalization".to_owned(),
        LayerKind::LocalResponse(_) => "local response normalization".to_owned(),
        LayerKind::Activation(kind) => format!("{kind:?}").to_lowercase(),
        LayerKind::MaxPool(p) => format!("max pool {}×{}, stride {}", p.size, p.size, p.stride),
        LayerKind::AveragePool(p) => format!("average pool {}×{}, stride {}", p.size, p.size, p.stride),
        LayerKind::Flatten => "flatten".to_owned(),
        LayerKind::Dropout(rate) => format!("dropout {rate}"),
        LayerKind::Linear { outputs } => format!("linear {outputs}"),
    }
}

/// Prints layers with output shapes, parameters and multiply-accumulates.
pub fn run(
    model: &str,
    trial: Option<usize>,
    (input, classes): (Option<[usize; 3]>, Option<usize>),
    overrides: &[String],
    to: &Rows,
    global: &Global,
) -> anyhow::Result<Exit> {
    let (settings, note) = settings(model, trial, input, overrides)?;
    let is_file = !matches!(model, "lenet5" | "alexnet");
    // What neither the file nor prepared data tell is the network's own; data that are not there tell nothing.
    let of_data = if is_file { super::plan::shape(&settings, global).ok().flatten() } else { None };
    let is_guess = is_file && of_data.is_none() && (input.is_none() || classes.is_none());
    let (mut own_input, own_classes) = match (&of_data, settings.model.architecture) {
        (Some(shape), _) => (shape.input, shape.classes),
        (None, ::plan::Architecture::LeNet5) => (LENET5, 10),
        (None, ::plan::Architecture::AlexNet) => (ALEXNET, 1000),
    };
    // What the file says itself holds, with or without the data.
    if let (true, Some(side)) = (is_guess, settings.input_size()) {
        own_input = [settings.dataset.color.map_or(own_input[0], ::plan::Color::channels), side, side];
    }
    let network = Network::new(&settings.model, input.unwrap_or(own_input), classes.unwrap_or(own_classes))?;
    let shape = |extents: &[usize]| extents.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let mut table: Vec<_> = network
        .layers
        .iter()
        .map(|l| {
            vec![
                text(l.name.clone()),
                text(describe(&l.kind)),
                text(shape(&l.output)),
                integer(l.parameters),
                integer(l.macs),
            ]
        })
        .collect();
    table.push(vec![
        text("total"),
        text(format!("{} on {}", network.name, shape(&network.input))),
        text(shape(&[network.classes])),
        integer(network.parameters()),
        integer(network.macs()),
    ]);
    rows(&["layer", "operation", "output", "parameters", "macs_per_image"], &table, to)?;
    if !global.quiet {
        if is_guess {
            eprintln!(
                "note: the data set is not prepared, so what is not said of images and classes is the network's own"
            );
        }
        note.iter().chain(&network.notes).for_each(|note| tell(&format!("note: {note}")));
    }
    Ok(Exit::Fine)
}
