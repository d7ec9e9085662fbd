//! Networks for other programs and single images: `export`, `predict`, and the details of `evaluate`.

use crate::workplace::{DB, SMALL, Workplace};

/// One PNG of `side`×`side` gray pixels.
fn png(side: u32, pixel: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    let image = image::GrayImage::from_fn(side, side, |x, y| image::Luma([pixel(x, y)]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A folder of two classes, dark and bright, that a network trained for two epochs tells apart.
fn dark_and_bright(place: &Workplace) {
    for part in ["train", "test"] {
        for (class, level) in [("dark", 40), ("bright", 180)] {
            for i in 0..20_u32 {
                let bytes = png(32, |x, y| (level + (x * 7 + y * 13 + i * 29) % 31) as u8);
                place.write(&format!("levels/{part}/{class}/{i:02}.png"), bytes);
            }
        }
    }
    place.write(
        "experiment.toml",
        "name = \"levels\"\n[dataset]\nsource = \"images\"\npath = \"levels\"\nimage_size = 32\ncolor = \"gray\"\n\
         [augment]\ncrop = 28\n[train]\nepochs = 3\nbatch_size = 4\n",
    );
    place.run("train experiment.toml").exits(0);
}

#[test]
fn an_export_holds_the_network_and_says_what_it_is() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    place.run("export 1 --out shared --filters shared/filters.png --sample 3").exits(0);
    let card: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("shared/card.json")).unwrap()).unwrap();
    assert_eq!(card["parameters"], 61_706);
    assert_eq!(card["model"]["activation"], "tanh", "defaults are spelt out");
    assert_eq!(card["preprocessing"]["input"], serde_json::json!([1, 28, 28]));
    assert_eq!(card["classes"].as_array().unwrap().len(), 10);
    assert_eq!(card["training"]["specification"]["train"]["epochs"], 2);
    let recorded = &place.rows(DB, "SELECT top1 FROM evaluations WHERE run_id = 1")[0][0];
    assert_eq!(card["training"]["metrics"]["evaluations"][0]["top1"].to_string(), recorded.to_string());
    let fingerprint = &place.rows(DB, "SELECT data_fingerprint FROM trials")[0][0];
    assert_eq!(card["training"]["data_fingerprint"], fingerprint.to_string());
    assert!(card["training"]["provenance"][0]["commit_hash"].is_string());
    for (name, least) in
        [("model.onnx", 61_706 * 4), ("weights.safetensors", 61_706 * 4), ("sample.safetensors", 3 * 784 * 4)]
    {
        assert!(std::fs::metadata(place.path("shared").join(name)).unwrap().len() > least, "{name}");
    }
    assert!(image::open(place.path("shared/filters.png")).unwrap().width() > 100);
    let own = std::fs::read(place.path("results.runs/1/weights.safetensors")).unwrap();
    assert_eq!(std::fs::read(place.path("shared/weights.safetensors")).unwrap(), own, "the same weights and names");
}

#[test]
fn torchvisions_names_are_refused_to_other_networks_before_anything_is_written() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    let refused = place.run("export 1 --out shared --names torchvision").exits(2);
    assert!(refused.stderr.contains("LeNet-5"), "{}", refused.stderr);
    assert!(!place.path("shared").exists());
}

#[test]
fn images_are_predicted_as_the_data_set_was_prepared() {
    let place = Workplace::new();
    dark_and_bright(&place);
    // A larger picture is brought to the prepared size, whatever its name says.
    place.write("night.jpg", png(90, |x, y| 40 + ((x + y) % 31) as u8));
    let rows = place.run("predict 1 night.jpg levels/test/bright/00.png --format json").exits(0).json();
    let of = |i: usize| {
        (rows[i]["image"].as_str().unwrap(), rows[i]["rank"].as_i64().unwrap(), rows[i]["class"].as_str().unwrap())
    };
    assert_eq!([of(0), of(1)], [("night.jpg", 1, "dark"), ("night.jpg", 2, "bright")]);
    assert_eq!(of(2), ("levels/test/bright/00.png", 1, "bright"));
    let sum = rows[0]["probability"].as_f64().unwrap() + rows[1]["probability"].as_f64().unwrap();
    assert!((sum - 1.0).abs() < 1e-9, "two classes share the probability: {sum}");
    let by_file =
        place.run("predict results.runs/1/weights.safetensors night.jpg levels/test/bright/00.png --format json");
    assert_eq!(by_file.exits(0).json(), rows, "the weights file knows how to prepare images");
    assert_eq!(place.run("predict 1 night.jpg --top 1 --format csv").exits(0).text().lines().count(), 2);
}

#[test]
fn a_broken_image_is_named_and_the_others_are_predicted() {
    let place = Workplace::new();
    dark_and_bright(&place);
    place.write("broken.png", "this is no picture");
    let finished = place.run("predict 1 broken.png levels/test/dark/01.png missing.png --format json").exits(2);
    assert!(finished.stderr.contains("broken.png: not a JPEG, PNG, BMP or WebP image"), "{}", finished.stderr);
    assert!(finished.stderr.contains("missing.png"), "{}", finished.stderr);
    assert_eq!(finished.json()[0]["class"], "dark");
    let nothing = place.run("predict 5 levels/test/dark/01.png").exits(2);
    assert!(nothing.stderr.contains("no run 5"), "{}", nothing.stderr);
}

#[test]
fn details_and_the_confusion_matrix_agree_with_the_summary() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    let details = place.run("evaluate 1 --details --format json --confusion confusion.csv").exits(0).json();
    let (summary, classes) = (&details["summary"][0], details["classes"].as_array().unwrap());
    let right: f64 = classes.iter().map(|c| c["recall"].as_f64().unwrap() * c["support"].as_f64().unwrap()).sum();
    assert!((right / 100.0 - summary["top1"].as_f64().unwrap()).abs() < 1e-12);
    assert!((0.0..=1.0).contains(&summary["calibration_error"].as_f64().unwrap()));
    let csv = std::fs::read_to_string(place.path("confusion.csv")).unwrap();
    let counts: Vec<Vec<f64>> =
        csv.lines().skip(1).map(|line| line.split(',').skip(1).map(|count| count.parse().unwrap()).collect()).collect();
    assert_eq!(counts.iter().flatten().sum::<f64>(), 100.0);
    assert_eq!(counts.iter().enumerate().map(|(i, row)| row[i]).sum::<f64>(), right.round());
    let worst = &details["most_confused"][0];
    let apart = counts
        .iter()
        .enumerate()
        .flat_map(|(i, row)| row.iter().enumerate().filter(move |(j, _)| i != *j).map(|(_, c)| *c));
    assert_eq!(worst["images"].as_f64(), apart.max_by(f64::total_cmp));
    let refused = place.run("evaluate 1 --details --format csv").exits(2);
    assert!(refused.stderr.contains("--confusion"), "{}", refused.stderr);
}

#[test]
fn ten_views_are_averaged() {
    let place = Workplace::new();
    dark_and_bright(&place);
    let one = place.run("evaluate 1 --format json").exits(0).json();
    let ten = place.run("evaluate 1 --ten-crop --format json").exits(0);
    assert!(ten.stderr.is_empty(), "ten views of a crop need no note: {}", ten.stderr);
    let ten = ten.json();
    assert_eq!((&one[0]["views"], &ten[0]["views"]), (&1.into(), &10.into()));
    assert_eq!(ten[0]["images"], 40);
    assert_ne!(one[0]["loss"], ten[0]["loss"]);
    assert_eq!(ten[0]["top1"], 1.0);
}

/// The training loss of a run's first epoch.
fn first_loss(place: &Workplace, run: i64) -> f64 {
    let rows = place.rows(DB, &format!("SELECT train_loss FROM epochs WHERE run_id = {run} AND epoch = 1"));
    rows[0][0].to_string().parse().unwrap()
}

#[test]
fn a_trial_starts_from_the_weights_given() {
    let place = Workplace::with(SMALL);
    place.run("train experiment.toml ~sweep seeds=1 train.epochs=6").exits(0);
    place.run("export 1 --out start").exits(0);
    place.run("train experiment.toml ~sweep seeds=1").exits(0);
    let start = "~sweep seeds=1 train.initial_weights=start/weights.safetensors";
    place.run(&format!("train experiment.toml {start}")).exits(0);
    let (fresh, started) = (first_loss(&place, 2), first_loss(&place, 3));
    assert!(started < 0.8 * fresh, "from trained weights {started}, from random ones {fresh}");

    // The same contents elsewhere are the same trial.
    std::fs::copy(place.path("start/weights.safetensors"), place.path("copy.safetensors")).unwrap();
    let plan = place.run("plan experiment.toml ~sweep seeds=1 train.initial_weights=copy.safetensors --format json");
    assert_eq!(plan.exits(0).json()[0]["status"], "done");
    place.run("export 2 --out other").exits(0);
    std::fs::copy(place.path("other/weights.safetensors"), place.path("copy.safetensors")).unwrap();
    let plan = place.run("plan experiment.toml ~sweep seeds=1 train.initial_weights=copy.safetensors --format json");
    assert_eq!(plan.exits(0).json()[0]["status"], "to run");
    assert_eq!(place.run("evaluate 3 --format json").exits(0).json()[0]["images"], 100);
}

#[test]
fn frozen_layers_stay_and_the_others_are_trained() {
    let place = Workplace::new();
    dark_and_bright(&place);
    let first = "train.initial_weights=results.runs/1/weights.safetensors";
    let of_no_layer = place.run(&format!("train experiment.toml {first} train.freeze=[\"conv4\"]")).exits(2).stderr;
    assert!(
        of_no_layer.contains("experiment.toml")
            && of_no_layer.contains("train.freeze: the network has no layer conv4, only conv1, "),
        "{of_no_layer}"
    );
    let nothing = place.run("plan experiment.toml train.freeze=[\"*\"]").exits(2).stderr;
    assert!(nothing.contains("train.freeze: all layers are frozen"), "{nothing}");
    let unknown = place.run("train experiment.toml train.frozen=[\"conv1\"]").exits(2).stderr;
    assert!(unknown.contains("train.freeze"), "{unknown}");

    // Killed and taken up again: a checkpoint holds no moments of what is frozen.
    let line = format!("train experiment.toml {first} train.freeze=[\"conv*\",\"fc4\"] train.epochs=300 --quiet");
    place.run(&format!("{line} --db undisturbed.db")).exits(0);
    let mut killed = place.start(&line);
    place.wait_for(DB, "SELECT count(*) FROM runs WHERE run_id > 1 AND checkpoint_epoch >= 2", 1, &mut killed);
    killed.kill().unwrap();
    killed.wait().unwrap();
    place.run(&line).exits(0);
    let identity = place.rows("undisturbed.db", "SELECT identity FROM runs")[0][0].to_string();
    let metrics = |db: &str| place.metrics(db).lines().filter(|line| line.contains(&identity)).collect::<String>();
    assert!(
        metrics(DB) == metrics("undisturbed.db") && metrics(DB).contains("weights of"),
        "the same, to the last bit"
    );
    for (freeze, is_known) in [("[\"conv*\",\"fc4\"]", true), ("[\"conv1\"]", false)] {
        let line = format!("plan experiment.toml {first} train.freeze={freeze} train.epochs=301 --estimate");
        let told = place.run(&line).exits(0).stderr;
        assert_eq!(told.contains("from recorded runs"), is_known, "{told}");
    }
    let weights = |run: u32| {
        let bytes = std::fs::read(place.path(format!("results.runs/{run}/weights.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<_> = file.iter().map(|(name, tensor)| (name.to_owned(), tensor.data().to_vec())).collect();
        tensors.sort();
        tensors
    };
    let newest = place.count(DB, "SELECT max(run_id) FROM runs WHERE status = 'done'") as u32;
    assert!(newest > 1, "another trial");
    let mut kept = 0;
    for ((name, was), (_, is)) in weights(1).into_iter().zip(weights(newest)) {
        let is_frozen = name.starts_with("conv") || name.starts_with("fc4");
        assert_eq!(was == is, is_frozen, "{name}");
        kept += usize::from(is_frozen);
    }
    assert_eq!(kept, 8, "weights and biases of three convolutions and a linear layer");
}

#[test]
fn weights_that_do_not_fit_are_refused_before_anything_is_recorded() {
    let place = Workplace::new();
    dark_and_bright(&place);
    place.write(
        "glyphs.toml",
        "name = \"glyphs\"\n[dataset]\ntrain_images = 60\ntest_images = 20\n[train]\nepochs = 1\n",
    );
    let run = |words: &str| place.run(&format!("train glyphs.toml train.initial_weights={words}"));
    let two_classes = "results.runs/1/weights.safetensors";
    for (words, told) in [
        ("none.safetensors".to_owned(), "none.safetensors"),
        ("glyphs.toml".to_owned(), "is not a safetensors file"),
        (two_classes.to_owned(), "fc5.weight is F32 [2, 84], the network needs F32 [10, 84]"),
        (two_classes.to_owned(), "train.initial_weights_skip = [\"fc5\"]"),
        (
            format!("{two_classes} train.initial_weights_skip=[\"fc8\"]"),
            "no layer fc8, only conv1, conv2, conv3, fc4, fc5",
        ),
        (
            format!("{two_classes} train.initial_weights_skip=[\"fc5\"] model.architecture=alexnet model.width=0.125"),
            "no layer fc5",
        ),
    ] {
        let refused = run(&words).exits(2);
        assert!(refused.stderr.contains(told) && refused.stderr.contains("glyphs.toml"), "{told}: {}", refused.stderr);
    }
    assert_eq!(place.count(DB, "SELECT count(*) FROM experiments"), 1, "refused before the database is touched");
    run(&format!("{two_classes} train.initial_weights_skip=[\"fc5\"]")).exits(0);
}
