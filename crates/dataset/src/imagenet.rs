//! ImageNet as the ILSVRC2012 challenge lays it out (Russakovsky et al. 2015): a folder, a .tar or a .tar.gz.
//!
//! Training images lie in `train/WNID/*.JPEG`, a WNID being WordNet's number of a class: `n` and eight digits. The validation
//! images of the challenge serve as the test part, since the labels of its own test images were never published: `val/WNID/*`,
//! or flat `val/ILSVRC2012_val_*.JPEG` with their classes in one of
//!
//! - `LOC_val_solution.csv` (Kaggle): lines `IMAGE,WNID x y x y …` under the heading `ImageId,PredictionString`;
//! - `ILSVRC2012_validation_ground_truth.txt` (the development kit): line n is the class number of image n, and `map_clsloc.txt`
//!   (in later years' kits; the numbers are the same) says by lines `WNID NUMBER NAME` which class that is. The numbers do
//!   not follow the order of the WNIDs.
//!
//! These files may lie anywhere below the folder. Classes are sorted by WNID and called `WNID NAME` where
//! `LOC_synset_mapping.txt`, `words.txt` or `map_clsloc.txt` gives a name, else `WNID`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

use crate::{
    DatasetError, Part,
    archive::{self, Contents, Found, Kind},
    images::{self, HoldBack, ImagesFeed, Places, is_hidden, looks_like_image},
    source::Survey,
};

/// Side of the prepared images where none is asked for, in pixels (Krizhevsky et al. 2012, section 2).
pub(crate) const DEFAULT_SIZE: usize = 256;

const SOLUTION: &str = "LOC_val_solution.csv";
const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const NUMBERS: &str = "map_clsloc.txt";
/// Files that name the classes, the best first.
const NAMES: [&str; 3] = ["LOC_synset_mapping.txt", "words.txt", NUMBERS];

/// The challenge's validation images, which serve as the test part.
const TEST_NAME: &str = "val";

/// Lists and checks the images at `path`.
pub(crate) fn survey(path: &Path) -> Result<(Survey, ImagesFeed), DatasetError> {
    let (found, documents) = list(path)?;
    let documents = Documents { root: path, contents: documents };
    let places = places(path, &found, &documents)?;
    // The parts are given: nothing is held back.
    let (mut survey, feed) = images::survey_placed(path, found, places, HoldBack { fraction: 0.0, seed: 0 })?;
    if let Some(class) = survey.classes.iter().find(|class| !is_wnid(class)) {
        return Err(DatasetError::file(
            path,
            format!(
                "class {class:?} is no WNID: the folders in train are called n and eight digits, such as n01440764"
            ),
        ));
    }
    let names = documents.names()?;
    for class in &mut survey.classes {
        if let Some(name) = names.get(class) {
            *class = format!("{class} {name}");
        }
    }
    Ok((survey, feed))
}

/// Every file of the folder `path` that shapes the data set, after checking that they fit together.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let (survey, _) = survey(path)?;
    let documents = archive::list_folder(path)?.into_iter().filter(|found| is_document(&found.path));
    Ok(survey
        .entries
        .into_iter()
        .map(|entry| entry.name)
        .chain(documents.map(|found| path.join(found.path)))
        // What cannot be read is the packer's to report.
        .filter(|path| File::open(path).is_ok())
        .collect())
}

fn is_wnid(name: &str) -> bool {
    name.len() == 9 && name.starts_with('n') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn is_document(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !is_hidden(path) && ([SOLUTION, GROUND_TRUTH].contains(&name) || NAMES.contains(&name))
}

fn list(path: &Path) -> Result<(Vec<Found>, Contents), DatasetError> {
    if !path.is_dir() {
        return archive::list_and_read(path, &is_document);
    }
    let found = archive::list_folder(path)?;
    let mut contents = Contents::new();
    for found in found.iter().filter(|found| found.kind == Kind::File && is_document(&found.path)) {
        let file = path.join(&found.path);
        let bytes = std::fs::read(&file).map_err(|error| DatasetError::io("read", &file, error))?;
        contents.insert(found.path.clone(), bytes);
    }
    Ok((found, contents))
}

/// Finds the two parts and the classes of the test images.
fn places(root: &Path, found: &[Found], documents: &Documents<'_>) -> Result<Places, DatasetError> {
    let images = || {
        found
            .iter()
            .filter(|found| found.kind == Kind::File && !is_hidden(&found.path) && looks_like_image(&found.path))
    };
    let wrappers: BTreeSet<PathBuf> = images().filter_map(|found| wrapper(&found.path)).collect();
    let mut candidates = wrappers.into_iter();
    let Some(wrapper) = candidates.next() else {
        let class_archive = |found: &&Found| {
            found.path.extension().is_some_and(|ending| ending == "tar")
                && found.path.file_stem().and_then(|stem| stem.to_str()).is_some_and(is_wnid)
        };
        let reason = match found.iter().find(class_archive) {
            Some(inner) => format!(
                "holds an archive for each class, such as {}; unpack each of them into a folder train/WNID",
                inner.path.display()
            ),
            None => "no training images found; ImageNet's lie in train/WNID/*.JPEG, a WNID being n and eight digits"
                .to_string(),
        };
        return Err(DatasetError::file(root, reason));
    };
    if let Some(other) = candidates.next() {
        let [one, other] = [&wrapper, &other].map(|wrapper| root.join(wrapper).join("train"));
        return Err(DatasetError::file(
            &other,
            format!("a second training part, besides {}: which one counts?", one.display()),
        ));
    }
    let mut places = Places { wrapper, has_parts: true, test_name: Some(TEST_NAME), test_classes: HashMap::new() };
    let tested: Vec<&Path> = images()
        .filter_map(|found| places.place(&found.path))
        .filter_map(|(part, path)| (part == Part::Test).then_some(path))
        .collect();
    let part = root.join(&places.wrapper).join(TEST_NAME);
    if tested.is_empty() {
        return Err(DatasetError::file(
            &part,
            "no validation images found, which serve as the test part; they lie in val/WNID/*.JPEG or val/ILSVRC2012_val_*.JPEG",
        ));
    }
    let flat: BTreeMap<String, &Path> = tested
        .into_iter()
        .filter(|path| path.iter().count() == 1)
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect();
    if !flat.is_empty() {
        places.test_classes = documents.test_classes(&part, &flat)?;
    }
    Ok(places)
}

/// What lies above `train/WNID/`.
fn wrapper(path: &Path) -> Option<PathBuf> {
    let names: Vec<_> = path.iter().collect();
    let at = names.windows(2).position(|pair| pair[0] == "train" && pair[1].to_str().is_some_and(is_wnid))?;
    // The class's folder holds something.
    (names.len() > at + 2).then(|| names[..at].iter().collect())
}

/// The text files that lie beside the images.
struct Documents<'a> {
    root: &'a Path,
    contents: Contents,
}

/// A text file: its path for messages, and its words.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    fn refuse(&self, line: usize, reason: impl std::fmt::Display) -> DatasetError {
        DatasetError::file(&self.path, format!("line {line}: {reason}"))
    }

    /// Lines that are not empty, with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .map(str::trim)
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.is_empty())
    }
}

impl Documents<'_> {
    /// The one file called `name`.
    fn get(&self, name: &str) -> Result<Option<Document>, DatasetError> {
        let mut named = self.contents.iter().filter(|(path, _)| path.file_name().is_some_and(|file| file == name));
        let Some((path, bytes)) = named.next() else { return Ok(None) };
        if let Some((other, _)) = named.next() {
            let other = self.root.join(other);
            return Err(DatasetError::file(&other, format!("twice: also as {}", self.root.join(path).display())));
        }
        Ok(Some(Document { path: self.root.join(path), text: String::from_utf8_lossy(bytes).into_owned() }))
    }

    /// Names of the classes by WNID, the first of several words for the same.
    fn names(&self) -> Result<HashMap<String, String>, DatasetError> {
        for file in NAMES {
            let Some(document) = self.get(file)? else { continue };
            return Ok(document
                .lines()
                .filter_map(|(_, line)| {
                    let (wnid, words) = line.split_once(char::is_whitespace)?;
                    let name = match file {
                        NUMBERS => words.split_whitespace().nth(1)?.replace('_', " "),
                        _ => words.split(',').next()?.trim().to_string(),
                    };
                    (is_wnid(wnid) && !name.is_empty()).then(|| (wnid.to_string(), name))
                })
                .collect());
        }
        Ok(HashMap::new())
    }

    /// The classes of the images `flat` (path by name without its ending), which lie side by side in the folder `part`.
    fn test_classes(
        &self,
        part: &Path,
        flat: &BTreeMap<String, &Path>,
    ) -> Result<HashMap<PathBuf, String>, DatasetError> {
        let (document, labels) = if let Some(document) = self.get(SOLUTION)? {
            let labels = solution(&document)?;
            (document, labels)
        } else if let Some(document) = self.get(GROUND_TRUTH)? {
            let Some(numbers) = self.get(NUMBERS)? else {
                return Err(DatasetError::file(
                    &document.path,
                    format!(
                        "numbers the classes, but {NUMBERS} (lines \"WNID NUMBER NAME\", from a later year's development kit), which says what the numbers mean, is not there; put it beside this file, or take Kaggle's {SOLUTION} instead"
                    ),
                ));
            };
            let labels = ground_truth(&document, &class_numbers(&numbers)?)?;
            (document, labels)
        } else {
            return Err(DatasetError::file(
                part,
                format!(
                    "the images lie in no class folders, and nothing below {} says what they show: put {SOLUTION} there, or {GROUND_TRUTH} with {NUMBERS}",
                    self.root.display()
                ),
            ));
        };
        let mut classes = HashMap::with_capacity(labels.len());
        for (line, image, wnid) in labels {
            let Some(path) = flat.get(&image) else {
                return Err(document.refuse(line, format!("image {image} is not in {}", part.display())));
            };
            if classes.insert(path.to_path_buf(), wnid).is_some() {
                return Err(document.refuse(line, format!("image {image} has a class already")));
            }
        }
        match flat.values().find(|&&path| !classes.contains_key(path)) {
            None => Ok(classes),
            Some(path) => Err(DatasetError::file(
                &part.join(path),
                format!("has no class: it is not in {}", document.path.display()),
            )),
        }
    }
}

/// A line's number, the image (its name without an ending) and its class.
type Labelled = (usize, String, String);

fn solution(document: &Document) -> Result<Vec<Labelled>, DatasetError> {
    let mut lines = document.lines();
    let heading = "ImageId,PredictionString";
    match lines.next() {
        Some((_, first)) if first == heading => {}
        _ => return Err(document.refuse(1, format!("must be the heading {heading}"))),
    }
    lines
        .map(|(line, text)| {
            let labelled =
                text.split_once(',').and_then(|(image, boxes)| Some((image, boxes.split_whitespace().next()?)));
            match labelled {
                Some((image, wnid)) if is_wnid(wnid) => Ok((line, image.to_string(), wnid.to_string())),
                _ => Err(document.refuse(line, format!("must be IMAGE,WNID and a box, got {text:?}"))),
            }
        })
        .collect()
}

/// WNIDs by the numbers of the development kit.
fn class_numbers(document: &Document) -> Result<HashMap<u32, String>, DatasetError> {
    let mut numbers = HashMap::new();
    for (line, text) in document.lines() {
        let mut words = text.split_whitespace();
        let wnid = words.next().filter(|wnid| is_wnid(wnid));
        let number = words.next().and_then(|number| number.parse().ok());
        let (Some(wnid), Some(number)) = (wnid, number) else {
            return Err(document.refuse(line, format!("must be WNID NUMBER NAME, got {text:?}")));
        };
        if numbers.insert(number, wnid.to_string()).is_some() {
            return Err(document.refuse(line, format!("number {number} has a class already")));
        }
    }
    Ok(numbers)
}

fn ground_truth(document: &Document, numbers: &HashMap<u32, String>) -> Result<Vec<Labelled>, DatasetError> {
    document
        .lines()
        .map(|(line, text)| {
            let wnid = text.parse().ok().and_then(|number: u32| numbers.get(&number));
            let Some(wnid) = wnid else {
                return Err(document.refuse(line, format!("must be a class number of {NUMBERS}, got {text:?}")));
            };
            Ok((line, format!("ILSVRC2012_val_{line:08}"), wnid.clone()))
        })
        .collect()
}
