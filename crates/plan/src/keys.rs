//! Every key of an experiment file with what it takes: the reference that `pipeline keys` prints.

/// A key of experiment files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Key path, such as `train.weight_decay`.
    pub path: &'static str,
    /// What it takes, ranges as intervals: `[0, 1)` holds 0 and not 1.
    pub values: &'static str,
    /// What holds where it is left out.
    pub default: &'static str,
    /// What it does, with its unit.
    pub meaning: &'static str,
}

const fn key(path: &'static str, values: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { path, values, default, meaning }
}

/// All keys, section by section.
pub fn keys() -> &'static [Key] {
    &KEYS
}

#[rustfmt::skip]
static KEYS: [Key; 92] = [
    key("name", "text", "the file's name", "what results and reports are found by: letters, digits, `-`, `_`, `.`"),
    key("question", "text", "empty", "what is to be found out; stands in the report"),
    key("seeds", "count n, for 1 … n; or list of whole numbers", "1", "each configuration is trained once with each seed"),

    key("dataset.source", "glyphs, idx, cifar, images or imagenet", "glyphs", "glyphs: drawn by the program; idx: MNIST's four files; cifar: CIFAR's binary batches; images: a folder for each class; imagenet: ILSVRC2012"),
    key("dataset.path", "path", "none", "folder or archive (.tar, .tar.gz), relative to the current folder; needed by every source but glyphs"),
    key("dataset.image_size", "whole number in [1, 4096]", "the source's own", "side of the square prepared images, in pixels; glyphs: 28, imagenet: 256; needed for images of mixed sizes"),
    key("dataset.color", "gray or rgb", "the source's own", "one channel or three"),
    key("dataset.validation_fraction", "number in [0, 1)", "0.1", "share of the training part that is held back for choices"),
    key("dataset.test_fraction", "number in [0, 1)", "0.2", "source images without a test part: share that is held back for the test"),
    key("dataset.seed", "whole number in [0, ∞)", "0", "decides which images are held back, and draws the glyphs"),
    key("dataset.train_images", "whole number in [1, 4294967295]", "all; glyphs: 6000", "so many images of the training part only, evenly over the classes; validation_fraction is held back of these"),
    key("dataset.test_images", "whole number in [1, 4294967295]", "all; glyphs: 2000", "the same for the test part"),
    key("dataset.on_broken", "refuse or skip", "refuse", "image files that cannot be read: end the preparation, or are left out and listed (sources images, imagenet)"),

    key("augment.crop", "whole number in [1, 4096]", "no crop", "side of a random crop, in pixels; evaluation takes the centre; the network sees this size"),
    key("augment.resized_crop", "table; {} takes its defaults", "none", "crop of random area and shape, scaled to the side `crop`, as torchvision's RandomResizedCrop; takes the place of the plain crop"),
    key("augment.resized_crop.area", "[least, largest], both in (0, 1]", "[0.08, 1.0]", "area as a share of the image, uniform between both"),
    key("augment.resized_crop.ratio", "[least, largest], both in [0.1, 10]", "[3/4, 4/3]", "width over height, log-uniform between both"),
    key("augment.pad", "whole number in [0, 4096]", "0", "zero padding on each side before the random crop, in pixels"),
    key("augment.flip", "number in [0, 1]", "0.0", "probability of a horizontal flip"),
    key("augment.rotation_degrees", "number in [0, 180]", "0.0", "largest rotation either way, in degrees"),
    key("augment.scale", "number in [0, 1)", "0.0", "largest relative change of size either way: 0.1 scales by 0.9 … 1.1"),
    key("augment.shear_degrees", "number in [0, 90)", "0.0", "largest shear either way, in degrees"),
    key("augment.translate", "number in [0, 1]", "0.0", "largest shift either way along each axis, as a share of the side"),
    key("augment.brightness", "number in [0, 1]", "0.0", "largest relative change of brightness either way"),
    key("augment.contrast", "number in [0, 1]", "0.0", "largest relative change of contrast either way"),
    key("augment.saturation", "number in [0, 1]", "0.0", "largest relative change of saturation either way (colour images)"),
    key("augment.hue", "number in [0, 0.5]", "0.0", "largest turn of the hue either way, as a share of the full circle (colour images)"),
    key("augment.pca", "number in [0, ∞)", "0.0", "standard deviation of AlexNet's PCA colour noise; the paper: 0.1 (colour images)"),
    key("augment.noise", "number in [0, ∞)", "0.0", "standard deviation of Gaussian pixel noise, in units of the full range"),
    key("augment.cutout", "whole number in [0, 4096]", "0", "side of a square that is blanked at a random place, in pixels"),
    key("augment.mixup", "number in [0, ∞)", "0.0", "α of the Beta(α, α) distribution that mixes pairs of images and labels; 0 is off"),

    key("model.architecture", "lenet5 or alexnet", "lenet5", "the family of the network"),
    key("model.activation", "relu, tanh or sigmoid", "lenet5: tanh, alexnet: relu", "after each hidden layer"),
    key("model.normalization", "batch, local-response or none", "alexnet: batch; lenet5 and layout torchvision: none", "what follows a convolution"),
    key("model.dropout", "number in [0, 1)", "lenet5: 0, alexnet: 0.5", "probability that an input of a hidden fully connected layer is dropped"),
    key("model.overlapping_pooling", "true or false", "true", "alexnet: max pooling 3×3 with stride 2, or 2×2 with stride 2"),
    key("model.towers", "whole number in [1, 2]", "1", "alexnet: 2 for the paper's split over two GPUs (conv2, conv4, conv5 in two groups)"),
    key("model.layout", "paper or torchvision", "paper", "alexnet: 96-256-384-384-256, or 64-192-384-256-256"),
    key("model.stem", "large or small", "large where it fits, from 63 pixels on", "alexnet's first convolution: 11×11 with stride 4, or 3×3 with stride 1 (images of 24 to 128 pixels)"),
    key("model.width", "number in (0, 4]", "1", "alexnet: factor on every layer's width"),
    key("model.initialization", "he, xavier, paper or uniform", "lenet5: xavier, alexnet: he", "how weights are drawn; paper: N(0, 0.01²) with biases of 1 (Krizhevsky et al. 2012); uniform: PyTorch's"),

    key("train.epochs", "whole number in [1, 100000]", "10", "passes over the training part"),
    key("train.batch_size", "whole number in [1, 65536]", "64", "images per step"),
    key("train.evaluation_batch_size", "whole number in [1, 65536]", "256", "images per step of an evaluation"),
    key("train.optimizer", "sgd, adam or adamw", "sgd", "update rule"),
    key("train.learning_rate", "number in (0, ∞)", "0.01", "base rate η; not used by the schedules book and table"),
    key("train.momentum", "number in [0, 1)", "0.9", "μ of sgd, β₁ of adam and adamw"),
    key("train.nesterov", "true or false", "false", "Nesterov's form of momentum (sgd)"),
    key("train.beta2", "number in [0, 1)", "0.999", "β₂ of adam and adamw"),
    key("train.weight_decay", "number in [0, ∞)", "0.0005", "λ: λw is added to the gradient, as in PyTorch (adamw shrinks instead); Keras' l2(k) is 2k here"),
    key("train.decay", "weights or all", "weights", "what decays: convolution and linear weights, or biases and normalization too"),
    key("train.schedule", "name, or table with kind", "constant", "how the learning rate changes: constant, book, table, step, plateau, cosine, one-cycle"),
    key("train.schedule.kind", "constant, book, table, step, plateau, cosine or one-cycle", "needed in a table", "book: LeNet-5's own rates; the others by the keys below"),
    key("train.schedule.warmup_epochs", "whole number in [0, ∞), below train.epochs", "0", "epochs of linear climb before the curve starts (not for one-cycle)"),
    key("train.schedule.steps", "list of { epochs, learning_rate }", "needed for table", "table: absolute rates, each for so many epochs; the last one stays"),
    key("train.schedule.every_epochs", "whole number in [1, ∞)", "needed for step", "step: epochs between two changes"),
    key("train.schedule.factor", "number in (0, 1)", "0.1", "step, plateau: what each change multiplies the rate by"),
    key("train.schedule.patience_epochs", "whole number in [1, ∞)", "3", "plateau: epochs without a lower validation loss that bring about a change"),
    key("train.schedule.minimum", "number in [0, ∞), below train.learning_rate", "0.0", "cosine: the rate at the end"),
    key("train.schedule.rise", "number in (0, 1)", "0.3", "one-cycle: share of all steps in which the rate rises"),
    key("train.schedule.initial_divisor", "number in [1, ∞)", "25.0", "one-cycle: η over the first rate"),
    key("train.schedule.final_divisor", "number in [1, ∞)", "10000.0", "one-cycle: the first rate over the last"),
    key("train.label_smoothing", "number in [0, 1)", "0.0", "share of the target that is spread evenly over all classes"),
    key("train.gradient_clip", "number in (0, ∞)", "none", "largest norm of the whole gradient; larger ones are scaled down to it"),
    key("train.average_decay", "number in [0, 1)", "none", "share of the old average in a moving average of the weights, which is then validated, tested and kept"),
    key("train.precision", "f32, tf32 or bf16", "f32", "arithmetic of the products of convolutions and linear layers; tf32 on GPUs only"),
    key("train.device", "auto, cpu or cuda", "cpu", "where training runs: auto takes a GPU where one can be used; no part of a trial's identity"),
    key("train.initial_weights", "path", "drawn at random", "safetensors file to start from: of this program, or of torchvision's AlexNet"),
    key("train.initial_weights_skip", "list of layers", "[]", "layers that are drawn at random all the same, such as [\"fc8\"] for other classes"),
    key("train.freeze", "list of layers", "[]", "layers that stay as they start, a normalization's running statistics too; [\"conv*\", \"norm*\"]: all that begin so"),

    key("sweep.grid", "table of KEY = values", "none", "every combination is tried; values: a list, { linspace = [from, to], count = n }, { logspace = [from, to], count = n }, { range = [from, to, step] }, or { values = […], when = {…} }"),
    key("sweep.zip", "table of KEY = values, or list of such tables", "none", "the keys of a table move together"),
    key("sweep.space", "table of KEY = distribution", "none", "{ uniform = [low, high] }, { log_uniform = … }, { integer = … }, { log_integer = … } or { choice = [a, b, …] }, with or without when = {…}; drawn by the sampler"),
    key("sweep.sampler", "table", "none", "how configurations are drawn from the space; needed beside it"),
    key("sweep.sampler.kind", "random, sobol, tpe or cma-es", "needed", "tpe and cma-es choose by results"),
    key("sweep.sampler.configurations", "whole number in [1, 65536]", "needed", "how many, for each variant and combination of the grid, each with every seed; tpe and cma-es: at most 10,000"),
    key("sweep.sampler.seed", "whole number in [0, ∞)", "0", "of the search, apart from the trials' seeds"),
    key("sweep.sampler.startup_configurations", "whole number in [1, configurations]", "tpe: 10, cma-es: 1", "tpe, cma-es: drawn at random before results decide"),
    key("sweep.pruner", "table", "none", "leaves poor configurations early; patience is early stopping"),
    key("sweep.pruner.kind", "halving, hyperband, median, patience or paired", "needed", "what configurations are left by; all of one network are compared, by means over seeds"),
    key("sweep.pruner.reduction_factor", "whole number in [2, 100]", "3", "halving, hyperband: of so many at a rung one goes on, and so many times longer"),
    key("sweep.pruner.minimum_epochs", "whole number in [1, train.epochs)", "a fifth of train.epochs; median, patience, paired: a quarter", "no configuration is left before"),
    key("sweep.pruner.interval_epochs", "whole number in [1, train.epochs]", "1", "median, patience, paired: epochs between two comparisons"),
    key("sweep.pruner.patience_epochs", "whole number in [1, train.epochs]", "5", "patience: epochs without an improvement"),
    key("sweep.pruner.startup_configurations", "whole number in [1, ∞)", "5", "median: how many others must have come as far"),
    key("sweep.pruner.margin", "number in [0, ∞)", "paired: 0.01 for accuracies, 0.05 for losses; patience: 0", "paired: how much worse than the best is borne; patience: the least improvement; in the objective's unit"),
    key("sweep.objective", "name, or list of names", "validation_loss", "what pruners and searches go by: validation_loss or validation_top1, and after it in a list train_seconds, macs_per_image, parameters"),
    key("sweep.on_failure", "continue or stop", "continue", "what the other trials do when one has failed"),
    key("sweep.retries", "whole number in [0, 100]", "0", "how often a trial is taken up again after a failure of the machine"),
    key("sweep.trial_minutes", "number in (0, ∞)", "no limit", "longest time of one trial, in minutes; longer ones fail"),
    key("sweep.minutes", "number in (0, ∞)", "no limit", "longest time of the sweep, in minutes; then it stops and saves, and the same command goes on"),

    key("variants.NAME", "tables dataset, augment, model, train, and sweep.grid, sweep.zip, sweep.space", "none", "settings that are compared as one: each variant's are laid over the file's"),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{Experiment, Settings};

    fn reads(path: &str, value: Json) -> bool {
        let mut tree = path.split('.').rev().fold(value, |below, key| json!({ key: below }));
        // No processor computes `tf32`.
        if path == "train.precision" {
            tree["train"]["device"] = json!("cuda");
        }
        serde_json::from_value::<Settings>(tree).is_ok_and(|settings| settings.validate_ranges().is_ok())
    }

    fn number(value: f64) -> Json {
        if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
    }

    /// Keys of the four sections that settings are read from, without what lies below a schedule.
    fn settings() -> impl Iterator<Item = &'static Key> {
        let sections = ["dataset.", "augment.", "model.", "train."];
        keys().iter().filter(move |key| sections.iter().any(|section| key.path.starts_with(section)))
    }

    #[test]
    fn every_range_is_the_one_that_is_kept() {
        let mut ranges = 0;
        for key in settings().filter(|key| !key.path.starts_with("train.schedule.")) {
            let Some((kind, interval)) = key.values.split_once(" in ").filter(|(kind, _)| kind.ends_with("number"))
            else {
                continue;
            };
            ranges += 1;
            let (open, close) = (interval.starts_with('('), interval.ends_with(')'));
            let (least, most) = interval[1..interval.len() - 1].split_once(", ").unwrap();
            let least: f64 = least.parse().unwrap();
            let nudge = if kind == "whole number" { 1.0 } else { 1e-6 };
            assert_eq!(reads(key.path, number(least)), !open, "{} = {least}", key.path);
            assert!(reads(key.path, number(least + nudge)), "{} above {least}", key.path);
            assert!(!reads(key.path, number(least - nudge)), "{} below {least}", key.path);
            if kind == "whole number" {
                assert!(!reads(key.path, json!(1.5)), "{} is whole", key.path);
            } else {
                assert!(!reads(key.path, json!("a")), "{} is a number", key.path);
            }
            if let Ok(most) = most.parse::<f64>() {
                assert_eq!(reads(key.path, number(most)), !close, "{} = {most}", key.path);
                assert!(!reads(key.path, number(most + nudge)), "{} above {most}", key.path);
                assert!(reads(key.path, number(most - nudge)), "{} below {most}", key.path);
            }
        }
        assert_eq!(ranges, 34, "of the settings have a range");
    }

    #[test]
    fn every_name_is_taken_and_no_other() {
        let mut lists = 0;
        for key in settings().filter(|key| !key.path.starts_with("train.schedule.")) {
            let Some((names, last)) = key.values.split_once(" or ").filter(|(names, _)| !names.contains('[')) else {
                continue;
            };
            if key.path == "train.schedule" {
                continue;
            }
            lists += 1;
            if key.values == "true or false" {
                assert!(reads(key.path, json!(true)) && reads(key.path, json!(false)), "{}", key.path);
                continue;
            }
            let names: Vec<&str> = names.split(", ").chain([last]).collect();
            for name in &names {
                assert!(reads(key.path, json!(name)), "{} = {name}", key.path);
            }
            let section = key.path.split_once('.').unwrap();
            let text = format!("[{}]\n{} = \"xyzzyplugh\"", section.0, section.1);
            let message = Experiment::parse(&text, "x.toml", &[]).unwrap_err().to_string();
            let mut listed: Vec<&str> = names.clone();
            let (_, said) = message.split_once("one of ").unwrap();
            let mut said: Vec<&str> = said.split(", got").next().unwrap().split(", ").collect();
            listed.sort_unstable();
            said.sort_unstable();
            assert_eq!(listed, said, "{}", key.path);
        }
        assert_eq!(lists, 15, "of the settings take names");
    }

    #[test]
    fn every_default_is_the_one_that_is_taken() {
        let Ok(Json::Object(sections)) = serde_json::to_value(Settings::default()) else { panic!("tables") };
        let mut compared = 0;
        for (section, table) in sections {
            for (name, value) in table.as_object().unwrap() {
                let path = format!("{section}.{name}");
                let key = keys().iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path} is described"));
                let expected = match value {
                    Json::Null => continue,
                    Json::String(text) => text.clone(),
                    Json::Object(schedule) => schedule["kind"].as_str().unwrap().to_owned(),
                    other => other.to_string(),
                };
                assert_eq!(key.default, expected, "{path}");
                compared += 1;
            }
        }
        assert_eq!(compared, 34, "settings have a default of their own");
        for (curve, key) in [
            ("cosine", "minimum"),
            ("plateau", "factor"),
            ("plateau", "patience_epochs"),
            ("one-cycle", "rise"),
            ("one-cycle", "initial_divisor"),
            ("one-cycle", "final_divisor"),
        ] {
            let schedule: crate::Schedule = serde_json::from_value(json!(curve)).unwrap();
            let default = serde_json::to_value(&schedule).unwrap()[key].to_string();
            let path = format!("train.schedule.{key}");
            assert_eq!(keys().iter().find(|key| key.path == path).unwrap().default, default, "{path}");
        }
    }

    /// What the program itself lists where a key is not known, table by table.
    #[test]
    fn every_key_is_described_and_no_other() {
        for (prefix, text) in [
            ("", "xyzzyplugh = 1"),
            ("dataset.", "[dataset]\nxyzzyplugh = 1"),
            ("augment.", "[augment]\nxyzzyplugh = 1"),
            ("augment.resized_crop.", "[augment.resized_crop]\nxyzzyplugh = 1"),
            ("model.", "[model]\nxyzzyplugh = 1"),
            ("train.", "[train]\nxyzzyplugh = 1"),
            ("train.schedule.", "[train.schedule]\nkind = \"constant\"\nxyzzyplugh = 1"),
            ("sweep.", "[sweep]\nxyzzyplugh = 1"),
            ("sweep.sampler.", "[sweep.sampler]\nkind = \"random\"\nconfigurations = 2\nxyzzyplugh = 1"),
            ("sweep.pruner.", "[sweep.pruner]\nkind = \"halving\"\nxyzzyplugh = 1"),
        ] {
            let message = Experiment::parse(text, "x.toml", &[]).unwrap_err().to_string();
            let (_, valid) = message.split_once("valid here: ").unwrap_or_else(|| panic!("{message}"));
            let mut valid: Vec<&str> = valid.split(", ").collect();
            let below = keys().iter().filter_map(|key| key.path.strip_prefix(prefix));
            let mut described: Vec<&str> = below
                .map(|key| key.split('.').next().unwrap())
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            valid.sort_unstable();
            described.sort_unstable();
            assert_eq!(described, valid, "{text}");
        }
    }

    #[test]
    fn names_and_ranges_of_a_sweep_are_those_that_are_kept() {
        let refused = |text: &str| match Experiment::parse(text, "x.toml", &[]) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let space = "[sweep.space]\n\"train.momentum\" = { uniform = [0.1, 0.9] }\n[sweep.sampler]\n";
        let of = |path: &str| keys().iter().find(|key| key.path == path).unwrap().values;
        let names = |path: &str| of(path).replace(" or ", ", ").split(", ").map(str::to_owned).collect::<Vec<_>>();
        for kind in names("sweep.sampler.kind") {
            assert_eq!(refused(&format!("{space}kind = \"{kind}\"\nconfigurations = 3")), "");
        }
        for kind in names("sweep.pruner.kind") {
            assert_eq!(refused(&format!("[sweep.pruner]\nkind = \"{kind}\"")), "");
        }
        for name in names("sweep.on_failure") {
            assert_eq!(refused(&format!("[sweep]\non_failure = \"{name}\"")), "");
        }
        for (text, message) in [
            ("[sweep]\nretries = 101".to_owned(), "must be from 0 to 100"),
            ("[sweep]\nminutes = 0".to_owned(), "must be > 0, in minutes"),
            ("[sweep]\ntrial_minutes = 0".to_owned(), "must be > 0, in minutes"),
            (format!("{space}kind = \"sobol\"\nconfigurations = 65537"), "must be from 1 to 65536"),
            (format!("{space}kind = \"tpe\"\nconfigurations = 10001"), "must be at most 10000"),
            (format!("{space}kind = \"tpe\"\nconfigurations = 3\nstartup_configurations = 4"), "must be from 1 to 3"),
            ("[sweep.pruner]\nkind = \"halving\"\nreduction_factor = 101".to_owned(), "must be from 2 to 100"),
            ("[sweep.pruner]\nkind = \"halving\"\nminimum_epochs = 10".to_owned(), "must be from 1 to 9"),
            ("[sweep.pruner]\nkind = \"patience\"\ninterval_epochs = 11".to_owned(), "must be from 1 to 10"),
            ("[sweep.pruner]\nkind = \"median\"\nstartup_configurations = 0".to_owned(), "must be ≥ 1"),
            ("[sweep.pruner]\nkind = \"paired\"\nmargin = -1".to_owned(), "must be ≥ 0"),
            ("[train.schedule]\nkind = \"step\"\nevery_epochs = 0".to_owned(), "must be ≥ 1"),
            ("[train.schedule]\nkind = \"step\"".to_owned(), "needs `every_epochs`"),
            ("[train.schedule]\nkind = \"table\"".to_owned(), "needs its rates"),
            ("[train.schedule]\nkind = \"plateau\"\nfactor = 1".to_owned(), "must be above 0 and below 1"),
            ("[train.schedule]\nkind = \"plateau\"\npatience_epochs = 0".to_owned(), "must be ≥ 1"),
            ("[train.schedule]\nkind = \"cosine\"\nminimum = 0.01".to_owned(), "must be below train.learning_rate"),
            ("[train.schedule]\nkind = \"one-cycle\"\nrise = 1".to_owned(), "must be above 0 and below 1"),
            ("[train.schedule]\nkind = \"one-cycle\"\nfinal_divisor = 0.5".to_owned(), "must be ≥ 1"),
            ("[train.schedule]\nkind = \"cosine\"\nwarmup_epochs = 10".to_owned(), "must be below train.epochs"),
        ] {
            assert!(refused(&text).contains(message), "{text}: {}", refused(&text));
        }
    }
}
