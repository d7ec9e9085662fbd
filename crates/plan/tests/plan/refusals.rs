//! Faults and their messages.

use std::fs;

use plan::{Experiment, PlanError};

use crate::parse;

#[track_caller]
pub(crate) fn check(text: &str, expected: &str) {
    match parse(text, &[]) {
        Ok(_) => panic!("accepted, but should say: {expected}\n{text}"),
        Err(error) => assert_eq!(error.to_string(), expected, "\n{text}"),
    }
}

#[test]
fn syntax() {
    check("name = \n", "x.toml:1: string values must be quoted, expected literal string");
    check("seeds = 1\n[train\nepochs = 1", "x.toml:2: unclosed table, expected `]`");
    check("[train]\nepochs = 1\nepochs = 2", "x.toml:3: duplicate key");
    check("[train]\nepochs = 99999999999999999999", "x.toml:2: the whole number 99999999999999999999 is too large");
}

#[test]
fn other_programs_words_are_understood() {
    for (text, key, meant) in [
        ("[train]\nlr = 0.1", "train.lr", "train.learning_rate"),
        ("[train]\nearly_stopping = 3", "train.early_stopping", "sweep.pruner"),
        ("[train.schedule]\ntype = \"cosine\"", "train.schedule.type", "train.schedule.kind"),
        (
            "[train]\nschedule = { kind = \"step\",\nstep_size = 3 }",
            "train.schedule.step_size",
            "train.schedule.every_epochs",
        ),
        ("[model]\nname = \"alexnet\"", "model.name", "model.architecture"),
        ("[dataset]\nname = \"mnist\"", "dataset.name", "dataset.source"),
        ("[augment]\nhorizontal-flip = 0.5", "augment.horizontal-flip", "augment.flip"),
        ("[augment]\nrotation = 10", "augment.rotation", "augment.rotation_degrees"),
        ("[dataset]\nvalidation = 0.1", "dataset.validation", "dataset.validation_fraction"),
        ("[sweep]\nmetric = \"accuracy\"", "sweep.metric", "sweep.objective"),
        ("[sweep.grid]\n\"train.lr\" = [0.1]", "sweep.grid.\"train.lr\"", "train.learning_rate"),
    ] {
        let line = text.lines().count();
        check(text, &format!("x.toml:{line}: {key}: unknown key, did you mean `{meant}`?"));
    }
    for (text, place, name, meant, names) in [
        ("[dataset]\nsource = \"mnist\"", "dataset.source", "mnist", "idx", "glyphs, idx, cifar, images, imagenet"),
        ("[train]\ndevice = \"gpu\"", "train.device", "gpu", "cuda", "auto, cpu, cuda"),
        ("[train]\nprecision = \"FP32\"", "train.precision", "FP32", "f32", "f32, tf32, bf16"),
        (
            "[sweep]\nobjective = \"val_loss\"",
            "sweep.objective",
            "val_loss",
            "validation_loss",
            "validation_loss, validation_top1, train_seconds, macs_per_image, parameters",
        ),
    ] {
        check(text, &format!("x.toml:2: {place}: unknown value `{name}`, did you mean `{meant}`? (one of {names})"));
    }
    for (section, words) in [
        ("sweep.space", "uniform, log_uniform, integer, log_integer, choice"),
        ("sweep.grid", "linspace, logspace, range, values"),
    ] {
        check(
            &format!("[{section}]\n\"train.learning_rate\" = {{ loguniform = [0.1, 0.2] }}"),
            &format!(
                "x.toml:2: {section}.\"train.learning_rate\": unknown word `loguniform`; \"train.learning_rate\" takes one of {words}"
            ),
        );
    }
}

#[test]
fn unknown_keys_get_a_suggestion() {
    check("[train]\nepoch = 3", "x.toml:2: train.epoch: unknown key, did you mean `train.epochs`?");
    check("\n[trian]\nepochs = 3", "x.toml:2: trian: unknown key, did you mean `train`?");
    check("epochs = 3", "x.toml:1: epochs: unknown key, did you mean `train.epochs`?");
    check(
        "[model]\nweight_decay = 0.1",
        "x.toml:2: model.weight_decay: unknown key, did you mean `train.weight_decay`?",
    );
    check(
        "[train]\nwieght_decay = 0.1",
        "x.toml:2: train.wieght_decay: unknown key, did you mean `train.weight_decay`?",
    );
    check(
        "[train]\nschedule = { kind = \"step\", every_epoch = 2 }",
        "x.toml:2: train.schedule.every_epoch: unknown key, did you mean `train.schedule.every_epochs`?",
    );
    check(
        "xyzzyplugh = 1",
        "x.toml:1: xyzzyplugh: unknown key; valid here: name, question, seeds, dataset, augment, model, train, sweep, variants",
    );
    check("[variants.a.modle]\nwidth = 1", "x.toml:1: variants.a.modle: unknown key, did you mean `model`?");
    check(
        "[variants.a.model]\nwidht = 1",
        "x.toml:2: variants.a.model.widht: unknown key, did you mean `model.width`?",
    );
    check("[sweep.gird]\n\"train.epochs\" = [1]", "x.toml:1: sweep.gird: unknown key, did you mean `sweep.grid`?");
    check(
        "[sweep]\n\"train.epochs\" = [1]",
        "x.toml:2: sweep.\"train.epochs\": unknown key, did you mean `sweep.grid.\"train.epochs\"`?",
    );
    check(
        "[sweep.grid]\n\"train.weigth_decay\" = [1]",
        "x.toml:2: sweep.grid.\"train.weigth_decay\": unknown key, did you mean `train.weight_decay`?",
    );
}

#[test]
fn types() {
    check("[train]\nepochs = \"3\"", "x.toml:2: train.epochs: must be a whole number, got \"3\"");
    check("[train]\nepochs = 2.5", "x.toml:2: train.epochs: must be a whole number, got 2.5");
    check("[train]\nepochs = -1", "x.toml:2: train.epochs: must be a whole number ≥ 0, got -1");
    check("[train]\nepochs = 4294967296", "x.toml:2: train.epochs: must be at most 4294967295, got 4294967296");
    check("[train]\nlearning_rate = true", "x.toml:2: train.learning_rate: must be a number, got true");
    check("[train]\nlearning_rate = 2026-01-01", "x.toml:2: train.learning_rate: must be a number, got 2026-01-01");
    check("[train]\nnesterov = 1", "x.toml:2: train.nesterov: must be true or false, got 1");
    check("train = 1", "x.toml:1: train: must be a table, got 1");
    check("name = 3", "x.toml:1: name: must be a string, in quotes, got 3");
    check("[dataset]\npath = 3", "x.toml:2: dataset.path: must be a string, in quotes, got 3");
    check("[model]\narchitecture = 5", "x.toml:2: model.architecture: must be one of lenet5, alexnet, got 5");
    check(
        "[model]\narchitecture = \"alexnett\"",
        "x.toml:2: model.architecture: unknown value `alexnett`, did you mean `alexnet`? (one of lenet5, alexnet)",
    );
    check("[model]\narchitecture = \"vgg\"", "x.toml:2: model.architecture: must be one of lenet5, alexnet, got `vgg`");
    check("sweep = 1", "x.toml:1: sweep: must be a table of key paths and their lists, got 1");
    check("variants = [1]", "x.toml:1: variants: must be a table of variants, got [1]");
    check("[variants]\na = 1", "x.toml:2: variants.a: must be a table of settings, got 1");
}

#[test]
fn ranges() {
    check("[train]\nweight_decay = -1", "x.toml:2: train.weight_decay: must be ≥ 0, got -1");
    check("[train]\nweight_decay = nan", "x.toml:2: train.weight_decay: must be ≥ 0, got NaN");
    check("[train]\nlearning_rate = inf", "x.toml:2: train.learning_rate: must be > 0, got inf");
    check("[train]\nlearning_rate = 0", "x.toml:2: train.learning_rate: must be > 0, got 0");
    check("[train]\nepochs = 0", "x.toml:2: train.epochs: must be from 1 to 100000, got 0");
    check("[train]\nbatch_size = 0", "x.toml:2: train.batch_size: must be from 1 to 65536, got 0");
    check(
        "[train]\nevaluation_batch_size = 0",
        "x.toml:2: train.evaluation_batch_size: must be from 1 to 65536, got 0",
    );
    check("[train]\nmomentum = 1.0", "x.toml:2: train.momentum: must be ≥ 0 and below 1, got 1");
    check("[train]\nlabel_smoothing = 1", "x.toml:2: train.label_smoothing: must be ≥ 0 and below 1, got 1");
    for device in ["", "\ndevice = \"auto\""] {
        check(
            &format!("[train]\nprecision = \"tf32\"{device}"),
            "x.toml:2: train.precision: \"tf32\" is computed on GPUs only; set train.device = \"cuda\", or train.precision = \"f32\" or \"bf16\"",
        );
    }
    check("[train]\naverage_decay = 1.0", "x.toml:2: train.average_decay: must be ≥ 0 and below 1, got 1");
    check("[train]\ngradient_clip = 0", "x.toml:2: train.gradient_clip: must be > 0, got 0");
    check("[model]\ndropout = 1.0", "x.toml:2: model.dropout: must be ≥ 0 and below 1, got 1");
    check("[model]\ntowers = 3", "x.toml:2: model.towers: must be 1 or 2, got 3");
    check("[model]\nwidth = 0", "x.toml:2: model.width: must be above 0 and at most 4, got 0");
    check(
        "[dataset]\nvalidation_fraction = 1",
        "x.toml:2: dataset.validation_fraction: must be ≥ 0 and below 1, got 1",
    );
    check("[dataset]\ntrain_images = 0", "x.toml:2: dataset.train_images: must be from 1 to 4294967295, got 0");
    check("[dataset]\nimage_size = 5000", "x.toml:2: dataset.image_size: must be from 1 to 4096, got 5000");
    check("[augment]\nflip = 1.5", "x.toml:2: augment.flip: must be from 0 to 1, got 1.5");
    check("[augment]\nhue = 0.6", "x.toml:2: augment.hue: must be from 0 to 0.5, got 0.6");
    let crop = |keys: &str, expected: &str| {
        check(
            &format!("[augment]\nresized_crop = {{ {keys} }}"),
            &format!("x.toml:2: augment.resized_crop.{expected}"),
        );
    };
    crop("area = [0.0, 1.0]", "area: must be [least, largest], both above 0 and at most 1; got [0, 1]");
    crop("area = [0.5, 0.4]", "area: must be [least, largest], both above 0 and at most 1; got [0.5, 0.4]");
    crop("area = [0.5, 1.1]", "area: must be [least, largest], both above 0 and at most 1; got [0.5, 1.1]");
    crop("area = [0.5, nan]", "area: must be [least, largest], both above 0 and at most 1; got [0.5, NaN]");
    crop("ratio = [0.0, 1.0]", "ratio: must be [least, largest], both from 0.1 to 10; got [0, 1]");
    crop("ratio = [1, 0.5]", "ratio: must be [least, largest], both from 0.1 to 10; got [1, 0.5]");
    crop("area = [0.1, 0.5, 1.0]", "area: must be a list of 2 values, got [0.1, 0.5, 1]");
    crop("area = 0.5", "area: must be a list of 2 values, got 0.5");
    crop("scale = [0.5, 1.0]", "scale: unknown key; valid here: area, ratio");
    check("[augment]\nmixup = -0.1", "x.toml:2: augment.mixup: must be ≥ 0, got -0.1");
    check("[variants.a.model]\ndropout = 2", "x.toml:2: variants.a.model.dropout: must be ≥ 0 and below 1, got 2");
}

#[test]
fn keys_that_do_not_go_together() {
    check(
        "[model]\ntowers = 2",
        "x.toml:2: model.towers: has no meaning for lenet5, only for alexnet; set it in alexnet's variant alone",
    );
    check(
        "[model]\nwidth = 0.5\n[variants.a.model]\narchitecture = \"alexnet\"\n[variants.l.model]\narchitecture = \"lenet5\"",
        "x.toml:2: model.width: has no meaning for lenet5, only for alexnet; set it in alexnet's variant alone (in trial l)",
    );
    check(
        "[model]\narchitecture = \"alexnet\"\nlayout = \"torchvision\"\ntowers = 2",
        "x.toml:4: model.towers: must be 1 with layout torchvision, which has no towers",
    );
    check(
        "[model]\narchitecture = \"alexnet\"\nstem = \"large\"",
        "x.toml:3: model.stem: alexnet with stem large needs images of at least 67×67 pixels, got 28×28; stem small takes 24",
    );
    check(
        "[dataset]\nimage_size = 20\n[model]\narchitecture = \"alexnet\"",
        "x.toml:4: model.architecture: alexnet with stem small needs images of at least 24×24 pixels, got 20×20",
    );
    check(
        "[augment]\ncrop = 24",
        "x.toml: model.architecture: lenet5 needs images of at least 28×28 pixels, got 24×24",
    );
    check("[augment]\ncrop = 29", "x.toml:2: augment.crop: must be at most 28, since images are 28×28; got 29");
    check(
        "[augment]\ncrop = 40\npad = 4",
        "x.toml:2: augment.crop: must be at most 36, since images are 28×28 with 4 of padding on each side; got 40",
    );
    check(
        "[augment]\npad = 4\nresized_crop = {}",
        "x.toml:2: augment.pad: does not go with augment.resized_crop, which finds its crops inside the image; leave one of them out",
    );
    check(
        "[augment]\ncutout = 28",
        "x.toml:2: augment.cutout: must be below 28, the side of the images the network sees; got 28",
    );
    check(
        "[augment]\npca = 0.1",
        "x.toml:2: augment.pca: has no meaning for gray images; set dataset.color = \"rgb\" or leave it out",
    );
    check(
        "[dataset]\nsource = \"idx\"",
        "x.toml: dataset.path: is missing: source idx needs the folder of its four files; set it in the file or with dataset.path=PATH",
    );
    check(
        "[dataset]\nsource = \"imagenet\"\npath = \"a\"\ntest_fraction = 0.1",
        "x.toml:4: dataset.test_fraction: has a meaning for source images only",
    );
    check(
        "dataset.source = \"imagenet\"",
        "x.toml: dataset.path: is missing: source imagenet needs the folder or archive that holds train and val; \
         set it in the file or with dataset.path=PATH",
    );
    check("[dataset]\ntest_fraction = 0.1", "x.toml:2: dataset.test_fraction: has a meaning for source images only");
    check(
        "[dataset]\non_broken = \"skip\"",
        "x.toml:2: dataset.on_broken: has a meaning for the sources images and imagenet only",
    );
    check(
        "[dataset]\npath = \"data\"",
        "x.toml:2: dataset.path: has no meaning for source glyphs, which the program draws; \
         set dataset.source = \"idx\", \"cifar\", \"images\" or \"imagenet\" to read files",
    );
    check(
        "[train]\noptimizer = \"adam\"\nnesterov = true",
        "x.toml:3: train.nesterov: has a meaning for optimizer sgd only",
    );
    check("[train]\nmomentum = 0\nnesterov = true", "x.toml:3: train.nesterov: needs train.momentum above 0");
    check("[train]\nbeta2 = 0.99", "x.toml:2: train.beta2: has no meaning for optimizer sgd, only for adam and adamw");
    check(
        "[model]\narchitecture = \"alexnet\"\n[train]\nbatch_size = 1",
        "x.toml:4: train.batch_size: must be at least 2 with batch normalization, got 1",
    );
}

#[test]
fn schedules() {
    check(
        "[train]\nschedule = \"cosin\"",
        "x.toml:2: train.schedule: unknown value `cosin`, did you mean `cosine`? \
         (one of constant, book, table, step, plateau, cosine, one-cycle)",
    );
    check("[train]\nschedule = 3", "x.toml:2: train.schedule: must be a schedule's name or a table with `kind`, got 3");
    check(
        "[train]\nschedule = [1]",
        "x.toml:2: train.schedule: must be a schedule's name or a table with `kind`, got a list",
    );
    check(
        "[train]\nschedule = { factor = 0.1 }",
        "x.toml:2: train.schedule: a schedule's table must say its `kind`: \
         one of constant, book, table, step, plateau, cosine, one-cycle",
    );
    check(
        "[train]\nschedule = { kind = \"cosine\", factor = 0.1 }",
        "x.toml:2: train.schedule: `factor` has no meaning for schedule cosine, which takes minimum, warmup_epochs",
    );
    check(
        "[train]\nschedule = \"step\"",
        "x.toml:2: train.schedule: schedule step needs `every_epochs`: { kind = \"step\", every_epochs = 10 }",
    );
    check(
        "[train]\nschedule = \"table\"",
        "x.toml:2: train.schedule: schedule table needs its rates: \
         { kind = \"table\", steps = [{ epochs = 2, learning_rate = 0.01 }] }",
    );
    check(
        "[train.schedule]\nkind = \"table\"\nsteps = [\n  { epochs = 1, learning_rate = 0.1 },\n  { epochs = 1 },\n]",
        "x.toml:5: train.schedule.steps[1]: `learning_rate` is missing",
    );
    check(
        "[train.schedule]\nkind = \"table\"\nsteps = [{ epochs = 1, learning_rate = -0.1 }]",
        "x.toml:3: train.schedule.steps[0].learning_rate: must be > 0, got -0.1",
    );
    check(
        "[train.schedule]\nkind = \"table\"\nsteps = []",
        "x.toml:3: train.schedule.steps: must hold at least one { epochs, learning_rate }",
    );
    check(
        "[train.schedule]\nkind = \"step\"\nevery_epochs = 2\nfactor = 1.5",
        "x.toml:4: train.schedule.factor: must be above 0 and below 1, got 1.5",
    );
    check(
        "[train.schedule]\nkind = \"step\"\nevery_epochs = 0",
        "x.toml:3: train.schedule.every_epochs: must be ≥ 1, got 0",
    );
    check(
        "[train.schedule]\nkind = \"plateau\"\npatience_epochs = 0",
        "x.toml:3: train.schedule.patience_epochs: must be ≥ 1, got 0",
    );
    check("[train.schedule]\nkind = \"cosine\"\nminimum = -1", "x.toml:3: train.schedule.minimum: must be ≥ 0, got -1");
    check(
        "[train.schedule]\nkind = \"cosine\"\nminimum = 0.5",
        "x.toml:3: train.schedule.minimum: must be below train.learning_rate (0.01), got 0.5",
    );
    check(
        "[train.schedule]\nkind = \"one-cycle\"\nwarmup_epochs = 1",
        "x.toml:3: train.schedule.warmup_epochs: must be 0 for one-cycle, which rises by itself: set `rise`",
    );
    check(
        "[train]\nepochs = 2\nschedule = { kind = \"constant\", warmup_epochs = 2 }",
        "x.toml:3: train.schedule.warmup_epochs: must be below train.epochs (2), got 2",
    );
    check(
        "[dataset]\nvalidation_fraction = 0\n[train]\nschedule = \"plateau\"",
        "x.toml:4: train.schedule: plateau watches the validation loss and needs dataset.validation_fraction above 0",
    );
}

#[test]
fn seeds_and_names() {
    check("seeds = 0", "x.toml:1: seeds: a count of seeds must be ≥ 1, got 0; a list of one is written [0]");
    check("seeds = []", "x.toml:1: seeds: the list is empty: give it at least one seed");
    check("seeds = [\n1,\n2,\n1]", "x.toml:4: seeds: 1 stands twice in the list");
    check("seeds = [1, -2]", "x.toml:1: seeds[1]: must be a whole number ≥ 0, got -2");
    check("seeds = \"one\"", "x.toml:1: seeds: must be a list of whole numbers ≥ 0 or a count, got \"one\"");
    check(
        "name = \"../up\"",
        "x.toml:1: name: must be letters, digits, `-`, `_` and `.`, and begin with a letter or a digit, got \"../up\"",
    );
    check(
        "[variants.\"a b\"]",
        "x.toml:1: variants.\"a b\": a variant's name must be letters, digits, `-`, `_` and `.`, and begin with a letter or a digit",
    );
}

#[test]
fn sweeps() {
    check(
        "[sweep.grid]",
        "x.toml:1: sweep.grid: is empty: name a key and its values, such as \"train.weight_decay\" = [0.0, 0.0005], \
         or leave the section out",
    );
    check(
        "[sweep.grid]\n\"train.epochs\" = []",
        "x.toml:2: sweep.grid.\"train.epochs\": the list is empty: give it at least one value, or leave the key out",
    );
    check(
        "[sweep.grid]\n\"train.weight_decay\" = [\n  0.0005,\n  5e-4,\n]",
        "x.toml:4: sweep.grid.\"train.weight_decay\": 0.0005 stands twice in the list",
    );
    check(
        "[sweep.grid]\n\"train.weight_decay\" = [0.0, -1]",
        "x.toml:2: sweep.grid.\"train.weight_decay\"[1]: must be ≥ 0, got -1",
    );
    check(
        "[sweep.grid]\n\"train.epochs\" = [1, \"two\"]",
        "x.toml:2: sweep.grid.\"train.epochs\"[1]: must be a whole number, got \"two\"",
    );
    check(
        "[sweep.grid]\n\"train.schedule\" = [\"book\", { kind = \"step\", every_epochs = 0 }]",
        "x.toml:2: sweep.grid.\"train.schedule\"[1].every_epochs: must be ≥ 1, got 0",
    );
    check(
        "[sweep.grid]\n\"train.schedule\" = [\"book\", { kind = \"step\", every = 0 }]",
        "x.toml:2: sweep.grid.\"train.schedule\"[1].every: unknown key, did you mean `train.schedule.every_epochs`?",
    );
    check(
        "[sweep.grid]\n\"train.schedule\" = [\"constant\", { kind = \"constant\" }]",
        "x.toml:2: sweep.grid.\"train.schedule\": gives `lenet5 schedule=constant` twice",
    );
    check(
        "[sweep.grid]\n\"train.learning_rate\" = [0.1, 0.2]\n\"train.schedule\" = [\"book\", \"constant\"]",
        "x.toml:2: sweep.grid.\"train.learning_rate\": gives the same trial twice, as `lenet5 η=0.1 schedule=book` and as \
         `lenet5 η=0.2 schedule=book`: leave one out",
    );
    check(
        "[sweep.grid]\n\"model\" = [{}]",
        "x.toml:2: sweep.grid.model: is a section; sweep its keys, or write variants",
    );
    check(
        "[sweep.grid]\n\"train.epochs\" = 3",
        "x.toml:2: sweep.grid.\"train.epochs\": must be a list of values, or { linspace = [from, to], count = n }, \
         { logspace = [from, to], count = n } or { range = [from, to, step] }, got 3",
    );
    check(
        "[sweep.grid]\n\"train.epochs\" = [1, 2]\n[sweep.grid.train]\nepochs = [1]",
        "x.toml:4: sweep.grid.\"train.epochs\": stands twice",
    );
    check(
        "[sweep.grid]\n\"train.epochs\" = [1, 2]\n[sweep.zip]\n\"train.epochs\" = [1, 2]",
        "x.toml:4: sweep.zip.\"train.epochs\": is swept by sweep.grid.\"train.epochs\" too",
    );
    check(
        "[sweep.zip]\n\"train.epochs\" = [1, 2]\n\"train.batch_size\" = [1, 2, 3]",
        "x.toml:3: sweep.zip.\"train.batch_size\": lists that move together must be equally long: \
         train.epochs has 2, train.batch_size has 3",
    );
    check(
        "[sweep.grid]\n\"train.epochs\" = [1, 2]\n\n[variants.a.train]\nepochs = 3",
        "x.toml:5: variants.a.train.epochs: is swept by sweep.grid.\"train.epochs\" too, which would take its place; \
         to give the variant values of its own, write [variants.a.sweep.grid] \"train.epochs\" = [3]",
    );
    check(
        "[variants.a]\n[variants.b]",
        "x.toml:2: variants.b: gives the same trial twice, as `a` and as `b`: leave one out",
    );
    check(
        "[model]\narchitecture = \"alexnet\"\n[sweep.grid]\n\"model.layout\" = [\"paper\", \"torchvision\"]\n\"model.towers\" = [1, 2]",
        "x.toml:5: sweep.grid.\"model.towers\"[1]: must be 1 with layout torchvision, which has no towers \
         (in trial model.layout=\"torchvision\" model.towers=2)",
    );
    check(
        "seeds = 1000\n[sweep.grid]\n\"train.weight_decay\" = { linspace = [0, 1], count = 101 }",
        "x.toml:2: sweep: 101000 trials, of which 1000 per configuration for the seeds; at most 100000 are allowed",
    );
}

#[test]
fn generators() {
    let generator = |table: &str, expected: &str| {
        check(
            &format!("[sweep.grid]\n\"train.weight_decay\" = {table}"),
            &format!("x.toml:2: sweep.grid.\"train.weight_decay\": {expected}"),
        );
    };
    generator("{ logspace = [0, 1], count = 3 }", "logspace needs ends above 0, got 0 and 1");
    generator("{ logspace = [1, 1], count = 3 }", "logspace needs two different ends, got 1 twice");
    generator("{ linspace = [0, 1], count = 1 }", "count must be a whole number from 2 to 100000, got 1");
    generator("{ linspace = [0, 1], count = 2.5 }", "count must be a whole number from 2 to 100000, got 2.5");
    generator("{ linspace = [0, 1] }", "must be { linspace = [from, to], count = n }, got the keys linspace");
    generator("{ linspace = [0], count = 2 }", "linspace must be [from, to], got [0]");
    generator("{ linspace = [0, inf], count = 2 }", "linspace must be [from, to], got [0, inf]");
    generator("{ count = 2 }", "must hold one of linspace, logspace and range, got count");
    generator("{ range = [0, 1, 0] }", "range needs a step that leads from 0 to 1, got 0");
    generator("{ range = [0, 1, -1] }", "range needs a step that leads from 0 to 1, got -1");
    generator("{ range = [0, 1, 1e-9] }", "range gives 1000000001 values, more than 100000");
}

/// Whatever is done to a sound file, it is read or refused with its name, and never a panic.
#[test]
fn damaged_files_are_refused_with_the_files_name() {
    let text = r#"
name = "damaged"
seeds = [1, 2]
dataset = { source = "glyphs", image_size = 64 }
[train]
epochs = 3
schedule = { kind = "table", steps = [{ epochs = 1, learning_rate = 0.1 }] }
[sweep.grid]
"train.weight_decay" = { logspace = [1e-5, 1e-2], count = 4 }
model.dropout = [0.0, 0.5]
[[sweep.zip]]
"train.batch_size" = [8, 16]
"train.momentum" = [0.5, 0.9]
[variants.a.model]
architecture = "alexnet"
[variants.b.sweep.grid]
"train.weight_decay" = { range = [0, 1, 0.5] }
"#;
    assert!(parse(text, &[]).is_ok());
    let check_damaged = |damaged: &str| {
        if let Err(error) = parse(damaged, &[]) {
            assert!(error.to_string().starts_with("x.toml"), "{error}\n{damaged}");
        }
    };
    for (at, _) in text.char_indices().step_by(3) {
        check_damaged(&text[..at]);
        check_damaged(&text[at..]);
        for put in ["[", "]", "{", "}", "=", "\"", ".", ",", "-", "0", "é", "\n", "\0"] {
            check_damaged(&format!("{}{put}{}", &text[..at], &text[at + 1..]));
            check_damaged(&format!("{}{put}{}", &text[..at], &text[at..]));
        }
    }
    check_damaged(&format!("a{} = 1", ".a".repeat(100_000)));
    check_damaged(&format!("seeds = {}", "[".repeat(100_000)));
    check_damaged(&format!("[sweep.grid]\n\"train.schedule{}\" = [1]", ".a".repeat(100_000)));
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    let error = Experiment::load(&missing, &[]).unwrap_err();
    assert!(matches!(&error, PlanError::Read { path, .. } if *path == missing), "{error}");
    let expected = format!("{}: cannot read the experiment file: ", missing.display());
    assert!(error.to_string().starts_with(&expected), "{error}");

    let binary = folder.path().join("binary.toml");
    fs::write(&binary, b"seeds = 1\n\xff\xfe").unwrap();
    let error = Experiment::load(&binary, &[]).unwrap_err();
    assert_eq!(error.to_string(), format!("{}:2: is not UTF-8 text", binary.display()));
}
