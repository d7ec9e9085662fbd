//! Layer tables and parameter counts: the tables of `tests/golden/README.md`, and messages for what cannot be built.

use graph::{LayerKind, ModelError, Network, step::Variables};
use plan::{Architecture, Layout, Model, Normalization, Optimizer, Stem};

fn alexnet() -> Model {
    Model { architecture: Architecture::AlexNet, ..Model::default() }
}

/// The rows of a table in the README: layer, output, parameters, MACs.
fn table(title: &str) -> Vec<(String, String, usize, u64)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/README.md");
    let text = std::fs::read_to_string(path).expect("the README of the golden vectors");
    let section = text.split("\n### ").find(|s| s.starts_with(title)).unwrap_or_else(|| panic!("no table {title}"));
    let section = section.split("\n## ").next().expect("a first part");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(|c| c.trim().replace(['*', ','], "")).collect());
    cells
        .map(|c: Vec<String>| (c[0].clone(), c[1].clone(), c[2].parse().expect("a count"), c[3].parse().expect("MACs")))
        .collect()
}

/// The same rows of a network: batch normalization counts with its convolution, layers without parameters are left out
/// but for pools.
fn rows(network: &Network) -> Vec<(String, String, usize, u64)> {
    let mut rows: Vec<(String, String, usize, u64)> = Vec::new();
    for layer in &network.layers {
        let output = layer.output.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        match layer.kind {
            LayerKind::BatchNorm => rows.last_mut().expect("a convolution before it").2 += layer.parameters,
            LayerKind::Convolution { .. }
            | LayerKind::Linear { .. }
            | LayerKind::MaxPool(_)
            | LayerKind::AveragePool(_) => rows.push((layer.name.clone(), output, layer.parameters, layer.macs)),
            LayerKind::LocalResponse(_) | LayerKind::Activation(_) | LayerKind::Flatten | LayerKind::Dropout(_) => {
                assert_eq!((layer.parameters, layer.macs), (0, 0), "{}", layer.name);
            }
        }
    }
    rows.push(("total".to_owned(), String::new(), network.parameters(), network.macs()));
    rows
}

#[test]
fn layer_tables_are_pytorchs() {
    let none = Some(Normalization::None);
    let local = Some(Normalization::LocalResponse);
    let cases = [
        ("LeNet-5, 1×28×28", Model::default(), [1, 28, 28], 10),
        ("AlexNet, 3×227×227, 1000 classes, no or", Model { normalization: none, ..alexnet() }, [3, 227, 227], 1000),
        ("AlexNet, 3×227×227, 1000 classes, no or", Model { normalization: local, ..alexnet() }, [3, 227, 227], 1000),
        ("AlexNet, 3×227×227, batch", alexnet(), [3, 227, 227], 1000),
        (
            "AlexNet, 3×227×227, two towers",
            Model { towers: Some(2), normalization: local, ..alexnet() },
            [3, 227, 227],
            1000,
        ),
        ("AlexNet, torchvision's", Model { layout: Some(Layout::Torchvision), ..alexnet() }, [3, 224, 224], 1000),
    ];
    for (title, model, input, classes) in cases {
        let network = Network::new(&model, input, classes).expect("a known network");
        assert_eq!(rows(&network), table(title), "{title}");
    }
}

#[test]
fn variables_hold_every_parameter() {
    for (model, input) in [(Model::default(), [1, 28, 28]), (alexnet(), [3, 227, 227])] {
        let network = Network::new(&model, input, 1000).expect("a known network");
        let variables = Variables::new(&network, Optimizer::Adam);
        let elements: usize = variables.parameters.iter().map(|p| p.values.elements()).sum();
        assert_eq!(elements, network.parameters());
        let running: usize = variables.running.iter().map(|s| s.elements()).sum();
        assert_eq!(variables.bytes(), 4 * (3 * elements + running));
        let names: Vec<&str> = variables.persistent().map(|s| s.name()).collect();
        let unique: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "names of a checkpoint: {names:?}");
    }
}

#[test]
fn every_size_that_is_accepted_can_be_built() {
    let mut built = 0;
    for layout in [Layout::Paper, Layout::Torchvision] {
        for overlapping in [true, false] {
            for stem in [None, Some(Stem::Large), Some(Stem::Small)] {
                let model = Model { layout: Some(layout), overlapping_pooling: Some(overlapping), stem, ..alexnet() };
                for side in 1..=130 {
                    let Ok(network) = Network::new(&model, [3, side, side + 3], 10) else { continue };
                    built += 1;
                    let extents = network.layers.iter().flat_map(|layer| &layer.output);
                    assert!(extents.clone().all(|&e| e > 0 && e < 100_000), "{model:?} on {side}: {network:?}");
                }
                assert!(Network::new(&model, [3, 24, 24], 10).is_ok() == (stem != Some(Stem::Large)));
                assert!(Network::new(&model, [3, 67, 67], 10).is_ok(), "{model:?}");
                assert!(Network::new(&model, [3, 64, 64], 10).is_ok() || stem == Some(Stem::Large), "{model:?}");
            }
        }
    }
    assert!(built > 1_000);
}

#[test]
fn what_cannot_be_built_is_said() {
    let message =
        |model: &Model, input, classes| Network::new(model, input, classes).expect_err("too small").to_string();
    assert_eq!(
        message(&Model::default(), [1, 27, 40], 10),
        "model.architecture: LeNet-5 needs images of at least 28×28 pixels, got 27×27"
    );
    assert_eq!(
        message(&Model { stem: Some(Stem::Large), ..alexnet() }, [3, 66, 66], 10),
        "model.architecture: AlexNet needs images of at least 67×67 pixels with model.stem = \"large\" (\"small\" takes 24), got 66×66"
    );
    assert_eq!(
        message(&alexnet(), [3, 23, 23], 10),
        "model.architecture: AlexNet needs images of at least 24×24 pixels, got 23×23"
    );
    assert_eq!(message(&alexnet(), [3, 32, 32], 1), "dataset: a classifier needs at least 2 classes, got 1");
    assert_eq!(Network::new(&alexnet(), [3, 32, 32], 0), Err(ModelError::TooFewClasses(0)));
}

#[test]
fn departures_from_the_papers_are_noted() {
    let notes = |model: &Model, input| Network::new(model, input, 10).expect("a network").notes;
    assert_eq!(notes(&Model::default(), [1, 28, 28]), [""; 0]);
    assert!(notes(&Model::default(), [3, 32, 32])[0].contains("3×32×32"));
    assert_eq!(notes(&alexnet(), [3, 227, 227]), [""; 0]);
    assert_eq!(notes(&Model { width: Some(0.5), ..alexnet() }, [3, 32, 32]).len(), 2);
}
