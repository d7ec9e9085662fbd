//! ImageNet's layout, made small.

use std::path::Path;

use dataset::{Part, Prepared, prepare};
use plan::{Dataset, OnBroken, Source};

use crate::images::{BLUE, Files, RED, jpeg, tar, write};

/// Sorted as the labels are; the development kit numbers them the other way round.
const FOX: &str = "n02119789";
const TENCH: &str = "n01440764";

const SOLUTION: &str = "ImageId,PredictionString\n\
    ILSVRC2012_val_00000002,n02119789 85 1 499 272 \n\
    ILSVRC2012_val_00000001,n01440764 1 1 9 9 5 5 9 9 \n\
    ILSVRC2012_val_00000003,n01440764 1 1 9 9 \n";
const NUMBERS: &str = "n02119789 1 kit_fox\nn01440764 449 tench\n";

fn text(name: &str, text: &str) -> (String, Vec<u8>) {
    (name.to_string(), text.as_bytes().to_vec())
}

/// Two training images of each class.
fn train() -> Files {
    [(TENCH, BLUE), (FOX, RED)]
        .into_iter()
        .flat_map(|(wnid, color)| [1, 2].map(|n| (format!("train/{wnid}/{wnid}_{n}.JPEG"), jpeg(20, 16, color))))
        .collect()
}

/// Three test images, side by side: a tench, a fox, a tench.
fn flat() -> Files {
    let images = [BLUE, RED, BLUE].into_iter().zip(1..);
    let images = images.map(|(color, n)| (format!("val/ILSVRC2012_val_{n:08}.JPEG"), jpeg(20, 16, color)));
    train().into_iter().chain(images).collect()
}

/// The same in folders.
fn nested() -> Files {
    let folder = |n: usize| if n == 2 { FOX } else { TENCH };
    flat()
        .into_iter()
        .map(|(name, bytes)| match name.strip_prefix("val/ILSVRC2012_val_0000000") {
            Some(rest) => (format!("val/{}/{rest}", folder(rest[..1].parse().unwrap())), bytes),
            None => (name, bytes),
        })
        .collect()
}

fn settings(path: &Path) -> Dataset {
    Dataset { source: Source::Imagenet, path: Some(path.to_path_buf()), image_size: Some(8), ..Dataset::default() }
}

fn of(files: &[(String, Vec<u8>)]) -> Result<Prepared, String> {
    let folder = write(files);
    prepare(&settings(&folder.path().join("set")), &folder.path().join("cache"), &|_| {})
        .map_err(|error| error.to_string())
}

fn with(files: Files, more: &[(&str, &str)]) -> Files {
    files.into_iter().chain(more.iter().map(|(name, words)| text(name, words))).collect()
}

#[test]
fn every_way_to_label_the_validation_images_gives_the_same_test_part() {
    let expected = of(&nested()).unwrap();
    let manifest = expected.manifest();
    assert_eq!(manifest.classes, [TENCH, FOX]);
    assert_eq!((manifest.channels, manifest.train_images, manifest.test_images), (3, 4, 3));
    assert_eq!((expected.labels(Part::Train), expected.labels(Part::Test)), (&[0, 0, 1, 1][..], &[0, 0, 1][..]));
    assert!(expected.image(6)[32] > 150 && expected.image(5)[32] < 100, "the fox is red, the tench is not");
    let ground_truth = [("devkit/data/ILSVRC2012_validation_ground_truth.txt", "449\n1\n449\n")];
    let by_csv = of(&with(flat(), &[("LOC_val_solution.csv", SOLUTION)])).unwrap();
    assert_eq!(by_csv.manifest().fingerprint, manifest.fingerprint);
    assert_eq!(by_csv.manifest().source, Source::Imagenet);
    // Here the classes have names too, so their fingerprint is another one.
    let numbered = of(&with(with(flat(), &ground_truth), &[("devkit/data/map_clsloc.txt", NUMBERS)])).unwrap();
    assert_eq!(numbered.manifest().classes, ["n01440764 tench", "n02119789 kit fox"]);
    assert_eq!(numbered.labels(Part::Test), expected.labels(Part::Test));
    assert!((0..7).all(|index| numbered.image(index) == expected.image(index)));
}

#[test]
fn an_archive_and_kaggle_s_folders_hold_the_same() {
    let expected = of(&nested()).unwrap();
    let kaggle: Files = flat()
        .into_iter()
        .map(|(name, bytes)| (format!("./ILSVRC/Data/CLS-LOC/{name}"), bytes))
        .chain([
            // The challenge's test images have no labels and are passed over.
            ("./ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG".to_string(), jpeg(8, 8, RED)),
            text("./ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_1.xml", "<annotation/>"),
            text("./LOC_val_solution.csv", SOLUTION),
        ])
        .rev()
        .collect();
    let folder = write(&[]);
    let path = folder.path().join("imagenet.tar");
    std::fs::write(&path, tar(&kaggle)).unwrap();
    for prepared in [prepare(&settings(&path), &folder.path().join("cache"), &|_| {}).unwrap(), of(&kaggle).unwrap()] {
        assert_eq!(prepared.manifest().fingerprint, expected.manifest().fingerprint);
        assert_eq!(prepared.manifest().ignored_files, 3);
    }
}

#[test]
fn classes_take_the_first_of_their_names() {
    let words = "n00001740\tentity\nn01440764\ttench, Tinca tinca\nn02119789\tkit fox, Vulpes macrotis\n";
    let synsets = "n01440764 Tench, Tinca tinca\n";
    let classes = |more: &[(&str, &str)]| of(&with(nested(), more)).unwrap().manifest().classes.clone();
    assert_eq!(classes(&[("words.txt", words)]), ["n01440764 tench", "n02119789 kit fox"]);
    assert_eq!(classes(&[("words.txt", words), ("LOC_synset_mapping.txt", synsets)]), ["n01440764 Tench", FOX]);
}

#[test]
fn images_are_256_pixels_wide_unless_told_otherwise() {
    let folder = write(&nested());
    let settings = Dataset { image_size: None, ..settings(&folder.path().join("set")) };
    let prepared = prepare(&settings, &folder.path().join("cache"), &|_| {}).unwrap();
    assert_eq!((prepared.manifest().height, prepared.manifest().width), (256, 256));
}

#[test]
fn a_changed_label_is_noticed_and_a_broken_image_can_be_skipped() {
    let mut files = with(flat(), &[("LOC_val_solution.csv", SOLUTION)]);
    files.push(("train/n01440764/broken.JPEG".into(), b"\xff\xd8\xff".to_vec()));
    let folder = write(&files);
    let (set, cache) = (folder.path().join("set"), folder.path().join("cache"));
    let text = prepare(&settings(&set), &cache, &|_| {}).unwrap_err().to_string();
    assert!(text.contains("broken.JPEG: truncated JPEG") && text.contains("dataset.on_broken"), "{text}");
    let skipping = Dataset { on_broken: OnBroken::Skip, ..settings(&set) };
    let first = prepare(&skipping, &cache, &|_| {}).unwrap();
    assert_eq!((first.len(), first.manifest().broken.len()), (7, 1));
    std::fs::write(set.join("LOC_val_solution.csv"), SOLUTION.replace("00003,n01440764", "00003,n02119789")).unwrap();
    assert!(dataset::find(&skipping, &cache).unwrap().is_none());
    let second = prepare(&skipping, &cache, &|_| {}).unwrap();
    assert_eq!((first.labels(Part::Test), second.labels(Part::Test)), (&[0, 0, 1][..], &[0, 1, 1][..]));
}

#[test]
fn what_does_not_fit_together_is_refused_by_file_and_line() {
    let check = |files: &Files, words: &[&str]| {
        let text = of(files).unwrap_err();
        assert!(words.iter().all(|word| text.contains(word)), "{text}, expected {words:?}");
    };
    check(&flat(), &["set/val: ", "lie in no class folders", "LOC_val_solution.csv", "map_clsloc.txt"]);
    let solution = |text: &str| with(flat(), &[("LOC_val_solution.csv", text)]);
    check(&solution(&SOLUTION[26..]), &["LOC_val_solution.csv: line 1: must be the heading ImageId,PredictionString"]);
    check(
        &solution(&format!("{SOLUTION}x\n")),
        &["LOC_val_solution.csv: line 5: must be IMAGE,WNID and a box, got \"x\""],
    );
    check(
        &solution(&format!("{SOLUTION}ILSVRC2012_val_00000004,n01440764 1\n")),
        &["LOC_val_solution.csv: line 5: image ILSVRC2012_val_00000004 is not in ", "set/val"],
    );
    check(
        &solution(&format!("{SOLUTION}ILSVRC2012_val_00000003,n02119789 1\n")),
        &["LOC_val_solution.csv: line 5: image ILSVRC2012_val_00000003 has a class already"],
    );
    check(
        &solution(SOLUTION.rsplit_once("ILSVRC").unwrap().0),
        &["ILSVRC2012_val_00000003.JPEG: has no class: it is not in ", "LOC_val_solution.csv"],
    );
    check(
        &solution(&SOLUTION.replace(FOX, "n99999999")),
        &["ILSVRC2012_val_00000002.JPEG: class \"n99999999\" is tested but has no training image"],
    );
    let truth = |labels: &str, numbers: Option<&str>| {
        let mut files = with(flat(), &[("ILSVRC2012_validation_ground_truth.txt", labels)]);
        files.extend(numbers.map(|numbers| text("map_clsloc.txt", numbers)));
        files
    };
    check(
        &truth("449\n1\n449\n", None),
        &["ground_truth.txt: numbers the classes, but map_clsloc.txt", "is not there"],
    );
    check(
        &truth("449\n2\n449\n", Some(NUMBERS)),
        &["ground_truth.txt: line 2: must be a class number of map_clsloc.txt, got \"2\""],
    );
    check(&truth("449\n1\n", Some(NUMBERS)), &["ILSVRC2012_val_00000003.JPEG: has no class"]);
    check(&truth("449\n1\n449\n1\n", Some(NUMBERS)), &["line 4: image ILSVRC2012_val_00000004 is not in "]);
    check(&truth("449\n", Some("n02119789 kit_fox\n")), &["map_clsloc.txt: line 1: must be WNID NUMBER NAME"]);
    check(
        &truth("449\n", Some("n02119789 1 kit_fox\nn01440764 1 tench\n")),
        &["map_clsloc.txt: line 2: number 1 has a class already"],
    );
    check(
        &with(flat(), &[("a/LOC_val_solution.csv", SOLUTION), ("b/LOC_val_solution.csv", SOLUTION)]),
        &["b/LOC_val_solution.csv: twice: also as", "a/LOC_val_solution.csv"],
    );
}

#[test]
fn other_layouts_are_told_apart() {
    let check = |files: &Files, word: &str| {
        let text = of(files).unwrap_err();
        assert!(text.contains(word), "{text}, expected {word}");
    };
    check(&train(), "set/val: no validation images found, which serve as the test part");
    check(
        &vec![("train/fish/1.JPEG".into(), jpeg(8, 8, RED))],
        "no training images found; ImageNet's lie in train/WNID",
    );
    check(&vec![("n01440764.tar".into(), tar(&train()))], "holds an archive for each class, such as n01440764.tar");
    let stray = [nested(), vec![("train/fish/1.JPEG".into(), jpeg(8, 8, RED))]].concat();
    check(&stray, "class \"fish\" is no WNID");
    let again = [nested(), vec![("old/train/n01440764/1.JPEG".into(), jpeg(8, 8, RED))]].concat();
    check(&again, "set/old/train: a second training part, besides");
}
