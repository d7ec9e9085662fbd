//! The networks, layer by layer, as `pipeline model` shows them.

use crate::workplace::Workplace;

/// The last row of `pipeline model`.
fn total(line: &str) -> serde_json::Value {
    let rows = Workplace::new().run(&format!("model {line} --format json --quiet")).exits(0).json();
    let rows = rows.as_array().unwrap();
    let total = rows.last().unwrap();
    assert_eq!(total["layer"], "total");
    for key in ["parameters", "macs_per_image"] {
        let sum: u64 = rows[..rows.len() - 1].iter().map(|row| row[key].as_u64().unwrap()).sum();
        assert_eq!(total[key], sum, "the layers' {key} add up");
    }
    total.clone()
}

#[test]
fn networks_have_the_parameters_of_the_papers() {
    for (line, parameters) in [
        ("lenet5", 61_706),
        ("alexnet", 62_381_096),
        ("alexnet model.normalization=none", 62_378_344),
        ("alexnet model.normalization=local-response", 62_378_344),
        ("alexnet model.towers=2 model.normalization=none", 60_965_224),
        ("alexnet model.layout=torchvision --input 3x224x224", 61_100_840),
        ("alexnet model.layout=torchvision", 61_100_840),
        ("alexnet --input 3x227x227 --classes 1000", 62_381_096),
    ] {
        assert_eq!(total(line)["parameters"], parameters, "{line}");
    }
}

#[test]
fn networks_have_the_multiply_accumulates_of_the_papers() {
    for (line, macs) in [
        ("lenet5", 416_520),
        ("alexnet", 1_135_256_096),
        ("alexnet model.towers=2 model.normalization=none", 724_406_816),
        ("alexnet model.layout=torchvision --input 3x224x224", 714_188_480),
    ] {
        assert_eq!(total(line)["macs_per_image"], macs, "{line}");
    }
}

#[test]
fn layers_are_shown_with_their_names_and_shapes() {
    let rows = Workplace::new().run("model lenet5 --format json").exits(0).json();
    let rows = rows.as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["layer"] == name).unwrap_or_else(|| panic!("there is a {name}"));
    assert_eq!((&of("conv1")["output"], &of("conv1")["parameters"]), (&"6×28×28".into(), &156.into()));
    assert_eq!((&of("conv3")["output"], &of("conv3")["parameters"]), (&"120×1×1".into(), &48_120.into()));
    assert_eq!((&of("fc5")["output"], &of("fc5")["parameters"]), (&"10".into(), &850.into()));
}

#[test]
fn an_experiment_file_shows_its_own_network() {
    let place = Workplace::with("name = \"own\"\n[model]\narchitecture = \"lenet5\"\n");
    let rows = place.run("model experiment.toml --format json").exits(0).json();
    assert_eq!(rows.as_array().unwrap().last().unwrap()["parameters"], 61_706);
}

#[test]
fn each_network_of_an_experiment_file_can_be_shown_before_its_data_are_there() {
    let place = Workplace::with(
        "[dataset]\nsource = \"images\"\npath = \"none\"\nimage_size = 32\ncolor = \"rgb\"\n\
         [variants.small.model]\narchitecture = \"lenet5\"\n[variants.large.model]\narchitecture = \"alexnet\"\nwidth = 0.25\n",
    );
    let first = place.run("model experiment.toml --classes 7 --format json").exits(0);
    let last = first.json().as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["operation"], &last["output"]), (&"LeNet-5 on 3×32×32".into(), &"7".into()));
    assert!(first.stderr.contains("note: trial 0, small seed=1;"), "{}", first.stderr);
    assert!(first.stderr.contains("such as --trial 1, large seed=1"), "{}", first.stderr);
    assert!(first.stderr.contains("note: the data set is not prepared"), "{}", first.stderr);
    let second = place.run("model experiment.toml --trial 1 --classes 7 --format json").exits(0).json();
    assert_eq!(second.as_array().unwrap().last().unwrap()["operation"], "AlexNet on 3×32×32");
}
