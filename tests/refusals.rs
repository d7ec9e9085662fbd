//! Bad input: one clear message, exit code 2, and the results as they were.

use std::io::Write;

use crate::workplace::{DB, SMALL, Workplace, idx};

/// A command that is to be refused, and words that the message must have.
struct Case {
    line: &'static str,
    says: &'static [&'static str],
}

const fn case(line: &'static str, says: &'static [&'static str]) -> Case {
    Case { line, says }
}

const CASES: &[Case] = &[
    // Keys, types and ranges, in the file and on the command line.
    case("sweep unknown-key.toml", &["unknown-key.toml:4", "train.weight_decya", "did you mean `train.weight_decay`"]),
    case("sweep unknown-section.toml", &["unknown-section.toml:2", "trian", "did you mean"]),
    case("sweep wrong-type.toml", &["wrong-type.toml:3", "train.epochs", "\"two\""]),
    case("sweep negative.toml", &["negative.toml:3", "train.weight_decay", "-0.1"]),
    case("sweep in-grid.toml", &["in-grid.toml:3", "sweep.grid", "train.weight_decay", "-1"]),
    case("sweep empty-grid.toml", &["empty-grid.toml:3", "train.weight_decay", "empty"]),
    case("sweep not-toml.toml", &["not-toml.toml:2"]),
    case("sweep no-name.toml", &["no-name.toml", "name"]),
    case("sweep twice.toml", &["twice.toml:3"]),
    case("sweep experiment.toml train.weight_decya=1", &["train.weight_decya", "did you mean `train.weight_decay`"]),
    case("sweep experiment.toml train.epochs=two", &["train.epochs", "\"two\""]),
    case("sweep experiment.toml train.epochs=0", &["train.epochs", "got 0"]),
    case("sweep experiment.toml train.epochs=-1", &["train.epochs", "-1"]),
    case("sweep experiment.toml train.weight_decay=-1", &["train.weight_decay", "got -1"]),
    case("sweep experiment.toml train.weight_decay=nan", &["train.weight_decay"]),
    case("sweep experiment.toml train.momentum=1", &["train.momentum"]),
    case("sweep experiment.toml train.batch_size=0", &["train.batch_size"]),
    case("sweep experiment.toml dataset.validation_fraction=1.5", &["dataset.validation_fraction", "1.5"]),
    case("sweep experiment.toml dataset.train_images=3", &["dataset.train_images"]),
    case("sweep experiment.toml model.architecture=vgg", &["model.architecture", "lenet5", "alexnet", "vgg"]),
    case("sweep experiment.toml model.dropout=1", &["model.dropout"]),
    case("sweep experiment.toml seeds=0", &["seeds"]),
    case("sweep experiment.toml sweep.grid.\"train.weight_decay\"=[]", &["train.weight_decay", "empty"]),
    case("sweep experiment.toml train.epochs", &["train.epochs", "="]),
    case("sweep experiment.toml train.schedule=bok", &["train.schedule", "book"]),
    // Files that are not there.
    case("sweep missing.toml", &["missing.toml", "No such file"]),
    case("sweep .", &["experiment file", "directory"]),
    case("plan missing.toml", &["missing.toml"]),
    case("prepare missing.toml", &["missing.toml"]),
    case("train missing.toml", &["missing.toml"]),
    case("sweep experiment.toml dataset.source=idx", &["dataset.path", "experiment.toml"]),
    case("sweep experiment.toml dataset.source=idx dataset.path=nowhere", &["nowhere", "dataset.path"]),
    case("sweep experiment.toml dataset.source=images dataset.path=nowhere", &["nowhere", "dataset.path"]),
    case("sweep experiment.toml dataset.source=cifar dataset.path=nowhere", &["nowhere", "dataset.path"]),
    case("sweep experiment.toml dataset.source=idx dataset.path=empty", &["empty", "train-images"]),
    // Files that are not what they should be.
    case(
        "sweep experiment.toml dataset.source=idx dataset.path=truncated",
        &["truncated/train-images-idx3-ubyte", "truncated"],
    ),
    case(
        "sweep experiment.toml dataset.source=idx dataset.path=too-long",
        &["too-long/train-images-idx3-ubyte", "too long"],
    ),
    case("sweep experiment.toml dataset.source=idx dataset.path=corrupt", &["corrupt/train-images-idx3-ubyte.gz"]),
    case("sweep experiment.toml dataset.source=idx dataset.path=cut", &["cut/train-images-idx3-ubyte.gz"]),
    case(
        "sweep experiment.toml dataset.source=idx dataset.path=counts",
        &["counts/train-labels-idx1-ubyte", "39", "40"],
    ),
    case(
        "sweep experiment.toml dataset.source=idx dataset.path=labels",
        &["labels/t10k-labels-idx1-ubyte", "label 10", "out of range"],
    ),
    case("sweep experiment.toml dataset.source=idx dataset.path=swapped", &["swapped/train-images-idx3-ubyte", "IDX"]),
    // What does not go together.
    case("sweep experiment.toml dataset.image_size=8", &["experiment.toml", "lenet5", "28×28", "8×8"]),
    case("sweep experiment.toml dataset.source=idx dataset.path=small", &["lenet5", "28×28", "10×10"]),
    case("sweep experiment.toml augment.crop=64", &["augment.crop"]),
    case("plan experiment.toml dataset.image_size=8", &["lenet5", "28×28", "8×8"]),
    case("model lenet5 --input 1x8x8", &["lenet5", "28×28", "8×8"]),
    case("model lenet6", &["lenet6", "lenet5", "alexnet"]),
    case("model lenet5 --input 28x28", &["--input", "3x227x227"]),
    // Numbers and names that are not there.
    case("train experiment.toml", &["experiment.toml", "4 trials", "--trial"]),
    case("train experiment.toml --trial 4", &["--trial 4", "0 to 3"]),
    case("train experiment.toml --jobs 0", &["--jobs"]),
    case("sweep experiment.toml --epochs 3", &["--epochs", "set without dashes: train.epochs=VALUE"]),
    case("sweep experiment.toml --train.batch-size 3", &["set without dashes: train.batch_size=VALUE"]),
    case("model experiment.toml --trial 4", &["--trial 4", "0 to 3"]),
    case("model lenet5 --trial 0", &["--trial", "lenet5"]),
    case(
        "plan experiment.toml dataset.source=idx dataset.path=data/mnist",
        &["data/mnist", "prepare experiment.toml --download"],
    ),
    case("query bset", &["bset", "best", "trials"]),
    case("query curve", &["curve RUN"]),
    case("query DELETE FROM runs", &["DELETE"]),
    case("query UPDATE runs SET status = 'done'", &["UPDATE"]),
    case("query DROP TABLE runs", &["DROP"]),
    case("query PRAGMA user_version = 3", &["PRAGMA"]),
    case("show small", &["'small'", "the number of a run", "pipeline list"]),
    case("diff 1 small", &["'small'", "the number of a run"]),
    case("query WITH x AS (SELECT 1) INSERT INTO assignments SELECT 1, 'a', 'b', '1'", &["only read"]),
    case("query SELECT nothing FROM runs", &["nothing"]),
    case("query SELECT 1 AS a; DELETE FROM runs", &["one"]),
    case("evaluate 99", &["run 99", "query trials"]),
    case("evaluate seven", &["seven"]),
    case("evaluate -1", &["-1"]),
    case("report nope", &["nope", "small"]),
    // Databases that are none.
    case("sweep experiment.toml --db text.db", &["text.db", "not a SQLite database"]),
    case("query best --db text.db", &["text.db", "not a SQLite database"]),
    case("plan experiment.toml --db text.db", &["text.db", "not a SQLite database"]),
    case("sweep experiment.toml --db empty", &["empty", "folder"]),
    case("sweep experiment.toml --db nowhere/results.db", &["nowhere/results.db", "not a folder"]),
    case("query best --db nowhere/results.db", &["nowhere/results.db", "no such database"]),
    case("report small --db nowhere/results.db", &["nowhere/results.db", "no such database"]),
    case("sweep experiment.toml --cache text.db", &["text.db"]),
    // What the shell may send.
    case("swep experiment.toml", &["swep", "sweep"]),
    case("", &["Usage"]),
    case("query", &["SQL|NAME"]),
    case("completions tcsh", &["tcsh", "zsh"]),
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bad_files(place: &Workplace) {
    place.write("unknown-key.toml", "name = \"x\"\nseeds = 1\n[train]\nweight_decya = 0.1\n");
    place.write("unknown-section.toml", "name = \"x\"\n[trian]\nepochs = 1\n");
    place.write("wrong-type.toml", "name = \"x\"\n[train]\nepochs = \"two\"\n");
    place.write("negative.toml", "name = \"x\"\n[train]\nweight_decay = -0.1\n");
    place.write("in-grid.toml", "name = \"x\"\n[sweep.grid]\n\"train.weight_decay\" = [0.0, -1.0]\n");
    place.write("empty-grid.toml", "name = \"x\"\n[sweep.grid]\n\"train.weight_decay\" = []\n");
    place.write("not-toml.toml", "name = \"x\"\n[train\nepochs = 1\n");
    place.write("no-name.toml", "name = \"\"\n[train]\nepochs = 1\n");
    place.write("twice.toml", "name = \"x\"\nseeds = 1\nname = \"y\"\n");
    place.write("text.db", "This is a letter, not a database. ".repeat(100));
    place.write("empty/readme.txt", "nothing here");

    let images = |folder: &str| format!("{folder}/train-images-idx3-ubyte");
    let whole = |folder: &str| {
        place.write_idx(folder, 28);
        std::fs::read(place.path(images(folder))).unwrap()
    };
    let bytes = whole("truncated");
    place.write(&images("truncated"), &bytes[..bytes.len() - 100]);
    let bytes = whole("too-long");
    place.write(&images("too-long"), [&bytes[..], &[1, 2, 3]].concat());
    for folder in ["corrupt", "cut"] {
        let bytes = whole(folder);
        std::fs::remove_file(place.path(images(folder))).unwrap();
        let mut packed = gzip(&bytes);
        let middle = packed.len() / 2;
        if folder == "corrupt" {
            packed[middle..middle + 20].iter_mut().for_each(|byte| *byte ^= 0x5a);
        } else {
            packed.truncate(middle);
        }
        place.write(&format!("{}.gz", images(folder)), packed);
    }
    whole("counts");
    place.write("counts/train-labels-idx1-ubyte", idx(&[39], &[0; 39]));
    whole("labels");
    place.write("labels/t10k-labels-idx1-ubyte", idx(&[20], &[10; 20]));
    whole("swapped");
    std::fs::copy(place.path("swapped/train-labels-idx1-ubyte"), place.path(images("swapped"))).unwrap();
    place.write_idx("small", 10);
}

/// Words of a line; what follows `query` is one word, as a shell would be given it in quotes.
fn words(line: &str) -> Vec<&str> {
    match line.strip_prefix("query ") {
        Some(rest) if !rest.contains("--") => vec!["query", rest],
        _ => line.split_whitespace().collect(),
    }
}

/// Files of the database, with what is in them.
fn results(place: &Workplace) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(DB) || name.starts_with("reports") || name.starts_with("text.db"))
        .map(|name| (name.clone(), std::fs::read(place.path(name)).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

#[track_caller]
fn refused(place: &Workplace, line: &str, says: &[&str]) {
    let before = results(place);
    let refusal = place.run_words(&words(line)).exits(2);
    assert_eq!(refusal.text(), "", "{line}: nothing on standard output");
    let errors = refusal.stderr.matches("error:").count();
    assert!(errors == 1 || line.is_empty(), "{line}: one message\n{}", refusal.stderr);
    assert!(!refusal.stderr.contains("panicked"), "{line}\n{}", refusal.stderr);
    for word in says {
        assert!(refusal.stderr.contains(word), "{line}: the message has {word:?}\n{}", refusal.stderr);
    }
    let parts: Vec<&str> = refusal.stderr.trim().split(": ").collect();
    let repeats = parts.iter().enumerate().any(|(index, part)| parts[..index].contains(part));
    assert!(!repeats, "{line}: nothing is said twice\n{}", refusal.stderr);
    assert!(results(place) == before, "{line}: the results are as they were");
}

#[test]
fn bad_input_is_refused_with_one_message_that_names_it() {
    let place = Workplace::with(SMALL);
    bad_files(&place);
    place.run("train experiment.toml --trial 0").exits(0);
    for Case { line, says } in CASES {
        refused(&place, line, says);
    }
}

#[test]
fn bad_input_makes_no_database() {
    let place = Workplace::with(SMALL);
    bad_files(&place);
    for Case { line, .. } in
        CASES.iter().filter(|case| case.line.starts_with("sweep") || case.line.starts_with("train"))
    {
        refused(&place, line, &[]);
    }
    for line in ["query best", "query SELECT 1 AS one", "report small", "evaluate 1"] {
        refused(&place, line, &[DB, "no such database"]);
    }
    assert!(!place.path(DB).exists() && !place.path("results.runs").exists());
}

#[test]
fn a_database_that_cannot_be_used_is_refused_before_data_is_prepared() {
    let place = Workplace::with(SMALL);
    bad_files(&place);
    for db in ["text.db", "empty", "nowhere/results.db"] {
        for command in ["sweep", "train"] {
            refused(&place, &format!("{command} experiment.toml --db {db}"), &[db]);
        }
    }
    assert!(!place.path("cache").exists());
}

#[test]
fn the_same_files_undamaged_are_taken() {
    let place = Workplace::with(SMALL);
    place.write_idx("whole", 28);
    let line = "train experiment.toml ~sweep seeds=1 ~dataset.train_images ~dataset.test_images dataset.source=idx dataset.path=whole";
    place.run(line).exits(0);
    assert_eq!(place.count(DB, "SELECT images FROM evaluations"), 20);
}
