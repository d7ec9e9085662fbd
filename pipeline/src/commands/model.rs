//! `pipeline model`: a network layer by layer.

use std::path::Path;

use ::plan::{Experiment, Settings};
use anyhow::Context;
use graph::{LayerKind, Network};

use crate::{
    cli::{Global, Rows},
    data,
    exit::Exit,
    output::{integer, rows, text},
};

/// [C, H, W] that LeNet-5 was made for.
const LENET5: [usize; 3] = [1, 28, 28];
/// [C, H, W] that AlexNet was made for.
const ALEXNET: [usize; 3] = [3, 227, 227];

fn settings(model: &str, input: Option<[usize; 3]>, overrides: &[String]) -> anyhow::Result<Settings> {
    let own = match model {
        "lenet5" => Some(LENET5),
        "alexnet" => Some(ALEXNET),
        _ => None,
    };
    let experiment = if let Some(own) = own {
        let [channels, height, width] = input.unwrap_or(own);
        let color = if channels == 1 { "gray" } else { "rgb" };
        let mut all = vec![
            format!("model.architecture={model}"),
            format!("dataset.image_size={}", height.min(width)),
            format!("dataset.color={color}"),
        ];
        all.extend(overrides.iter().cloned());
        Experiment::parse("", "model", &all)?
    } else if Path::new(model).exists() {
        Experiment::load(Path::new(model), overrides)?
    } else {
        anyhow::bail!("no network or file {model:?}: expected lenet5, alexnet or an experiment file");
    };
    experiment.trials().into_iter().next().map(|trial| trial.settings).context("the experiment has no trials")
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
    input: Option<[usize; 3]>,
    classes: Option<usize>,
    overrides: &[String],
    to: &Rows,
    global: &Global,
) -> anyhow::Result<Exit> {
    let settings = settings(model, input, overrides)?;
    let prepared = if input.is_none() && Path::new(model).exists() {
        dataset::find(&settings.dataset, &data::cache(global)?)?
    } else {
        None
    };
    let of_data = prepared.as_ref().map(|prepared| -> anyhow::Result<_> {
        let (c, h, w) = dataset::Loader::new(prepared, &settings.augment)?.input_size();
        Ok(([c, h, w], prepared.classes()))
    });
    let (own_input, own_classes) = match (of_data, settings.model.architecture) {
        (Some(known), _) => known?,
        (None, ::plan::Architecture::LeNet5) => (LENET5, 10),
        (None, ::plan::Architecture::AlexNet) => (ALEXNET, 1000),
    };
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
        network.notes.iter().for_each(|note| eprintln!("note: {note}"));
    }
    Ok(Exit::Fine)
}
