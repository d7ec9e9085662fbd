//! What makes two trials the same.

use plan::{Experiment, Trial};

use crate::sound;

/// Every setting at a value that is valid and not its default, so that a whole trial can be varied key by key.
const RICH: &[(&str, &str, &str)] = &[
    // key path, a value, another value
    ("dataset.image_size", "80", "96"),
    ("dataset.color", "\"rgb\"", ""),
    ("dataset.validation_fraction", "0.2", "0.3"),
    ("dataset.seed", "3", "4"),
    ("dataset.train_images", "500", "600"),
    ("dataset.test_images", "100", "200"),
    ("augment.crop", "72", "70"),
    ("augment.pad", "2", "3"),
    ("augment.flip", "0.5", "0.4"),
    ("augment.rotation_degrees", "5.0", "6.0"),
    ("augment.scale", "0.1", "0.2"),
    ("augment.shear_degrees", "5.0", "6.0"),
    ("augment.translate", "0.1", "0.2"),
    ("augment.brightness", "0.1", "0.2"),
    ("augment.contrast", "0.1", "0.2"),
    ("augment.saturation", "0.1", "0.2"),
    ("augment.hue", "0.1", "0.2"),
    ("augment.pca", "0.1", "0.2"),
    ("augment.noise", "0.1", "0.2"),
    ("augment.cutout", "4", "5"),
    ("augment.mixup", "0.1", "0.2"),
    ("model.architecture", "\"alexnet\"", ""),
    ("model.activation", "\"tanh\"", "\"sigmoid\""),
    ("model.normalization", "\"local-response\"", "\"none\""),
    ("model.dropout", "0.25", "0.3"),
    ("model.overlapping_pooling", "false", "true"),
    ("model.towers", "2", "1"),
    ("model.layout", "\"paper\"", ""),
    ("model.stem", "\"small\"", "\"large\""),
    ("model.width", "0.5", "0.25"),
    ("model.initialization", "\"paper\"", "\"uniform\""),
    ("train.epochs", "7", "8"),
    ("train.batch_size", "32", "16"),
    ("train.evaluation_batch_size", "128", "64"),
    ("train.optimizer", "\"adam\"", "\"adamw\""),
    ("train.learning_rate", "0.002", "0.003"),
    ("train.momentum", "0.8", "0.7"),
    ("train.beta2", "0.99", "0.98"),
    ("train.weight_decay", "0.001", "0.0"),
    ("train.decay", "\"all\"", "\"weights\""),
    ("train.precision", "\"bf16\"", "\"f32\""),
    ("train.schedule", "{ kind = \"cosine\", minimum = 0.0001, warmup_epochs = 1 }", "\"cosine\""),
    ("train.label_smoothing", "0.1", "0.2"),
    ("train.gradient_clip", "1.0", "2.0"),
    ("train.average_decay", "0.9", "0.99"),
];

fn only(experiment: Experiment) -> Trial {
    let mut trials = experiment.trials();
    assert_eq!(trials.len(), 1);
    trials.remove(0)
}

fn trial(text: &str) -> Trial {
    only(sound(text, &[]))
}

/// A small generator (SplitMix64, Steele et al. 2014) that orders keys and picks notations.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// The rich trial in one of many notations: sections, inline tables or dotted keys, in any order, with comments and white space.
fn written_at_random(random: &mut Random) -> String {
    let (mut dotted, mut tables) = (String::new(), String::new());
    let mut sections = vec!["dataset", "augment", "model", "train"];
    while !sections.is_empty() {
        let section = sections.remove(random.below(sections.len()));
        let mut keys: Vec<(&str, &str)> = RICH
            .iter()
            .filter_map(|(key, value, _)| Some((key.strip_prefix(section)?.strip_prefix('.')?, *value)))
            .collect();
        for index in (1..keys.len()).rev() {
            keys.swap(index, random.below(index + 1));
        }
        match random.below(3) {
            0 => {
                tables.push_str(&format!("\n[ {section} ] # a section\n"));
                for (key, value) in keys {
                    tables.push_str(&format!("{}{key}  =\t{value}\n", " ".repeat(random.below(3))));
                }
            }
            1 => {
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("'{key}' = {value}")).collect();
                dotted.push_str(&format!("{section} = {{ {} }}\n", keys.join(", ")));
            }
            _ => {
                for (key, value) in keys {
                    dotted.push_str(&format!("{section}.{key} = {value}\n\n"));
                }
            }
        }
    }
    format!("# notation\n{dotted}seeds = [5]\n{tables}")
}

#[test]
fn notation_and_order_of_keys_do_not_matter() {
    let mut random = Random(1);
    let expected = trial(&written_at_random(&mut random));
    for _ in 0..200 {
        let text = written_at_random(&mut random);
        let other = trial(&text);
        assert_eq!(other.canonical(), expected.canonical(), "\n{text}");
        assert_eq!(other.identity("f"), expected.identity("f"));
    }
}

#[test]
fn every_setting_matters() {
    let sections = written_at_random(&mut Random(2));
    let base = trial(&sections);
    let mut identities = vec![base.identity("f")];
    for (key, _, other) in RICH.iter().filter(|(_, _, other)| !other.is_empty()) {
        let changed = only(sound(&sections, &[&format!("{key}={other}")]));
        identities.push(changed.identity("f"));
    }
    let from_files = ["dataset.source=images", "dataset.path=p"];
    for overrides in [
        &["dataset.color=\"gray\"", "augment.saturation=0", "augment.hue=0", "augment.pca=0"][..],
        &["model.towers=1", "model.layout=torchvision"],
        &["train.optimizer=sgd", "~train.beta2"],
        &["train.optimizer=sgd", "~train.beta2", "train.nesterov=true"],
        &["seeds=[6]"],
        &from_files,
        &[from_files[0], from_files[1], "dataset.test_fraction=0.3"],
        &[from_files[0], from_files[1], "dataset.on_broken=skip"],
    ] {
        identities.push(only(sound(&sections, overrides)).identity("f"));
    }
    identities.push(base.identity("g"));
    identities.push(base.configuration_identity("f"));
    let count = identities.len();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), count, "two different trials share an identity");
}

#[test]
fn the_list_of_settings_is_complete() {
    // A key that is added to Settings must be added to RICH, so that its part in the identity is tested.
    let document = serde_json::to_value(plan::Settings::default()).unwrap();
    let mut keys = Vec::new();
    for (section, table) in document.as_object().unwrap() {
        keys.extend(table.as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
    }
    // Left out of the canonical form where it is not set.
    keys.push("train.average_decay".to_owned());
    keys.sort_unstable();
    let mut tested: Vec<String> = RICH.iter().map(|(key, _, _)| (*key).to_owned()).collect();
    // These have one value only, or are tested by name above, or stand in for the data.
    let by_name = [
        "dataset.path",
        "dataset.source",
        "dataset.test_fraction",
        "dataset.on_broken",
        "train.device",
        "train.nesterov",
    ];
    tested.extend(by_name.map(str::to_owned));
    tested.sort_unstable();
    assert_eq!(tested, keys);
}

#[track_caller]
fn check_same(a: &str, b: &str) {
    let (a, b) = (trial(a), trial(b));
    assert_eq!(a.canonical(), b.canonical());
    assert_eq!(a.identity("f"), b.identity("f"));
}

#[test]
fn the_device_is_how_and_not_what() {
    for device in ["auto", "cpu", "cuda"] {
        check_same("", &format!("train.device = \"{device}\""));
    }
}

#[test]
fn a_default_spelt_out_is_the_default() {
    check_same("", "[train]\nepochs = 10\nmomentum = 0.9\nschedule = \"constant\"");
    check_same(
        "",
        "[model]\nactivation = \"tanh\"\nnormalization = \"none\"\ndropout = 0\ninitialization = \"xavier\"",
    );
    check_same(
        "",
        "[dataset]\nsource = \"glyphs\"\nimage_size = 28\ncolor = \"gray\"\ntrain_images = 6000\ntest_images = 2000",
    );
    check_same(
        "[model]\narchitecture = \"alexnet\"",
        "[model]\narchitecture = \"alexnet\"\nactivation = \"relu\"\nnormalization = \"batch\"\ndropout = 0.5\n\
         overlapping_pooling = true\ntowers = 1\nlayout = \"paper\"\nstem = \"small\"\nwidth = 1\ninitialization = \"he\"",
    );
    check_same(
        "[dataset]\nimage_size = 227\n[model]\narchitecture = \"alexnet\"",
        "[dataset]\nimage_size = 227\n[model]\narchitecture = \"alexnet\"\nstem = \"large\"",
    );
    check_same(
        "[dataset]\nimage_size = 64\n[model]\narchitecture = \"alexnet\"\nlayout = \"torchvision\"",
        "[dataset]\nimage_size = 64\n[model]\narchitecture = \"alexnet\"\nlayout = \"torchvision\"\nstem = \"large\"\n\
         normalization = \"none\"",
    );
    let imagenet = "[dataset]\nsource = \"imagenet\"\npath = \"a\"";
    check_same(imagenet, &format!("{imagenet}\nimage_size = 256\ncolor = \"rgb\"\non_broken = \"refuse\""));
    check_same("[augment]\npad = 2", "[augment]\npad = 2\ncrop = 28");
    check_same("", "[augment]\ncrop = 28");
    check_same(
        "[train]\nschedule = \"cosine\"",
        "[train]\nschedule = { minimum = 0, kind = \"cosine\", warmup_epochs = 0 }",
    );
    check_same("[train]\nweight_decay = 0", "[train]\nweight_decay = -0.0");
}

#[test]
fn the_path_of_the_data_and_an_unused_rate_do_not_matter() {
    check_same("[dataset]\nsource = \"idx\"\npath = \"a\"", "[dataset]\nsource = \"idx\"\npath = \"/b/c\"");
    check_same("[train]\nschedule = \"book\"", "[train]\nschedule = \"book\"\nlearning_rate = 0.5");
}

#[test]
fn how_a_trial_came_about_does_not_matter() {
    let swept = sound("seeds = [1, 2]\n[sweep.grid]\n\"train.weight_decay\" = [0.0, 0.1]", &[]).trials();
    let plain = trial("seeds = [2]\n[train]\nweight_decay = 0.1");
    assert_eq!(swept[3].identity("f"), plain.identity("f"));
    let variant = trial("seeds = [2]\n[variants.v.train]\nweight_decay = 0.1");
    assert_eq!(variant.identity("f"), plain.identity("f"));
}

#[test]
fn a_configuration_is_what_seeds_share() {
    let trials = sound("seeds = 2\n[sweep.grid]\n\"train.weight_decay\" = [0.0, 0.1]", &[]).trials();
    let configurations: Vec<String> = trials.iter().map(|trial| trial.configuration_identity("f")).collect();
    assert_eq!(configurations[0], configurations[1]);
    assert_eq!(configurations[2], configurations[3]);
    assert_ne!(configurations[0], configurations[2]);
    let identities: std::collections::HashSet<String> = trials.iter().map(|trial| trial.identity("f")).collect();
    assert_eq!(identities.len(), 4);
}

#[test]
fn the_canonical_form_is_stable() {
    // Results on disk are found again by this text: changing it orphans them.
    let trial = trial("seeds = [5]");
    assert_eq!(
        trial.canonical(),
        "{\"augment\":{\"brightness\":0.0,\"contrast\":0.0,\"crop\":null,\"cutout\":0,\"flip\":0.0,\"hue\":0.0,\"mixup\":0.0,\
         \"noise\":0.0,\"pad\":0,\"pca\":0.0,\"rotation_degrees\":0.0,\"saturation\":0.0,\"scale\":0.0,\"shear_degrees\":0.0,\
         \"translate\":0.0},\"dataset\":{\"color\":\"gray\",\"image_size\":28,\"on_broken\":\"refuse\",\"seed\":0,\"source\":\"glyphs\",\"test_fraction\":0.2,\"test_images\":2000,\
         \"train_images\":6000,\"validation_fraction\":0.1},\"model\":{\"activation\":\"tanh\",\"architecture\":\"lenet5\",\
         \"dropout\":0.0,\"initialization\":\"xavier\",\"layout\":null,\"normalization\":\"none\",\"overlapping_pooling\":null,\
         \"stem\":null,\"towers\":null,\"width\":null},\"seed\":5,\"train\":{\"batch_size\":64,\"beta2\":0.999,\"decay\":\"weights\",\
         \"epochs\":10,\"evaluation_batch_size\":256,\"gradient_clip\":null,\"label_smoothing\":0.0,\"learning_rate\":0.01,\
         \"momentum\":0.9,\"nesterov\":false,\"optimizer\":\"sgd\",\"precision\":\"f32\",\
         \"schedule\":{\"kind\":\"constant\",\"warmup_epochs\":0},\"weight_decay\":0.0005}}"
    );
    assert_eq!(trial.identity("fingerprint").len(), 32);
}

#[test]
fn the_canonical_form_reads_back() {
    let trial = trial(&written_at_random(&mut Random(3)));
    let mut document: serde_json::Value = serde_json::from_str(&trial.canonical()).unwrap();
    assert_eq!(document.as_object_mut().unwrap().remove("seed"), Some(5.into()));
    let settings: plan::Settings = serde_json::from_value(document).unwrap();
    assert_eq!(settings, trial.settings);
}

#[test]
fn a_resized_crop_matters_where_there_is_one() {
    let of = |crop: &str| trial(&format!("[augment]\nflip = 0.5\n{crop}"));
    assert!(!of("").canonical().contains("resized_crop"), "trials without any keep their identity");
    let default = of("resized_crop = {}");
    assert!(
        default.canonical().contains("\"resized_crop\":{\"area\":[0.08,1.0],\"ratio\":[0.75,1.333"),
        "{}",
        default.canonical()
    );
    assert_eq!(default.identity("f"), of("resized_crop = { area = [0.08, 1] }").identity("f"));
    let others = [
        "",
        "resized_crop = { area = [0.1, 1] }",
        "resized_crop = { area = [0.08, 0.9] }",
        "resized_crop.ratio = [1, 1]",
    ];
    let mut identities: Vec<String> =
        others.iter().map(|crop| of(crop).identity("f")).chain([default.identity("f")]).collect();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), 5);
}

#[test]
fn what_initial_weights_hold_decides_and_not_where_they_lie() {
    let of = |train: &str, hash: Option<&str>| {
        let mut trial = trial(&format!("[train]\n{train}"));
        trial.initial_weights_hash = hash.map(str::to_owned);
        trial
    };
    let here = of("initial_weights = \"here.safetensors\"", Some("aa"));
    let there = of("initial_weights = \"there/it.safetensors\"", Some("aa"));
    assert_eq!(here.canonical(), there.canonical());
    assert!(here.canonical().contains("\"initial_weights\":\"blake3:aa\""), "{}", here.canonical());
    let others = [
        of("", None),
        of("initial_weights = \"here.safetensors\"", Some("bb")),
        of("initial_weights = \"here.safetensors\"\ninitial_weights_skip = [\"fc8\"]", Some("aa")),
    ];
    for other in &others {
        assert_ne!(here.identity("data"), other.identity("data"), "{}", other.canonical());
        assert_ne!(here.configuration_identity("data"), other.configuration_identity("data"));
    }
    assert!(!of("", None).canonical().contains("initial_weights"), "trials without any keep their identity");
    let order =
        |skip: &str| of(&format!("initial_weights = \"a\"\ninitial_weights_skip = {skip}"), Some("aa")).canonical();
    assert_eq!(order("[\"fc8\", \"fc7\"]"), order("[\"fc7\", \"fc8\", \"fc7\"]"));
}

#[test]
fn frozen_layers_decide_and_lists_of_them_can_be_swept() {
    let of = |freeze: &str| trial(&format!("[train]\nfreeze = {freeze}"));
    assert_eq!(of("[]").canonical(), trial("").canonical(), "trials without any keep their identity");
    assert_ne!(of("[\"conv1\"]").identity("data"), of("[]").identity("data"));
    assert_eq!(of("[\"norm1\", \"conv1\", \"norm1\"]").canonical(), of("[\"conv1\", \"norm1\"]").canonical());
    let text = "name = \"x\"\n[sweep.grid]\n\"train.freeze\" = [[], [\"conv*\"], [\"norm1\", \"conv1\"]]";
    let labels: Vec<String> = sound(text, &[]).trials().iter().map(Trial::label).collect();
    let expected = ["freeze=[]", "freeze=[\"conv*\"]", "freeze=[\"conv1\",\"norm1\"]"];
    assert_eq!(labels.len(), 3);
    for (label, expected) in labels.iter().zip(expected) {
        assert!(label.contains(expected), "{label}");
    }
}
