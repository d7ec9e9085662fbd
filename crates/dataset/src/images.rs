//! Image files in one folder per class: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` to be split; a folder, a .tar or a
//! .tar.gz.
//!
//! A single folder round it all is looked through. Classes are sorted by name, images by class and path, whatever order an
//! archive has them in. Images may lie in folders below their class. Hidden files and files of other kinds are passed over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::{
    DatasetError, Part,
    archive::{self, Found, Kind},
    rng::Purpose,
    source::{Entry, Feed, Payload, Sink, Survey},
    splits,
};

/// Endings of files that are images to be read, in lower case.
const READ: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];
/// Endings of images in formats that are not read: passing them over in silence would be a trap.
const UNREAD: [&str; 9] = ["gif", "tif", "tiff", "avif", "heic", "jp2", "jxl", "ppm", "tga"];
/// Names of the test part, the first that is there.
const TEST_NAMES: [&str; 4] = ["test", "val", "valid", "validation"];

/// What parts are called elsewhere, in lower case.
const OTHER_PARTS: [&str; 8] = ["train", "training", "test", "testing", "val", "valid", "validation", "dev"];

/// How the source is to be split where it has no test part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HoldBack {
    pub fraction: f64,
    pub seed: u64,
}

/// The images of a folder or an archive.
#[derive(Debug)]
pub(crate) struct ImagesFeed {
    path: PathBuf,
    /// Number in the archive (or in the folder's listing) to position in the survey.
    positions: HashMap<usize, usize>,
    /// Paths by position, of a folder.
    files: Option<Vec<PathBuf>>,
}

impl Feed for ImagesFeed {
    fn run(&self, sink: &mut Sink<'_>) -> Result<(), DatasetError> {
        if let Some(files) = &self.files {
            for (position, path) in files.iter().enumerate() {
                if !sink(position, Payload::File(path.clone())) {
                    break;
                }
            }
            return Ok(());
        }
        archive::walk(&self.path, &mut |number, found, reader| match self.positions.get(&number) {
            None => Ok(true),
            Some(&position) => {
                Ok(sink(position, Payload::Encoded(archive::contents(&self.path.join(found.path), reader)?)))
            }
        })
    }
}

/// Lists the images at `path`.
pub(crate) fn survey(path: &Path, hold_back: HoldBack) -> Result<(Survey, ImagesFeed), DatasetError> {
    let found = if path.is_dir() { archive::list_folder(path)? } else { archive::list(path)? };
    let places = Places::of(&found);
    survey_placed(path, found, places, hold_back)
}

/// Lists the images among what was `found` at `path`, which lie at their `places`.
pub(crate) fn survey_placed(
    path: &Path,
    found: Vec<Found>,
    places: Places,
    hold_back: HoldBack,
) -> Result<(Survey, ImagesFeed), DatasetError> {
    let mut layout = Layout { root: path, found, places, classes: Vec::new(), broken: Vec::new(), ignored_files: 0 };
    let images = layout.images(hold_back)?;
    let entries: Vec<Entry> = images
        .iter()
        .map(|image| Entry { part: image.part, label: image.label, name: path.join(&layout.found[image.number].path) })
        .collect();
    let files = path.is_dir().then(|| entries.iter().map(|entry| entry.name.clone()).collect());
    let positions = images.iter().enumerate().map(|(position, image)| (image.number, position)).collect();
    let survey = Survey {
        classes: layout.classes,
        entries,
        channels: 3,
        has_test_part: layout.places.test_name.is_some(),
        broken: layout.broken.into_iter().map(|(name, reason)| (path.join(name), reason)).collect(),
        ignored_files: layout.ignored_files,
    };
    Ok((survey, ImagesFeed { path: path.to_path_buf(), positions, files }))
}

/// Where the parts lie, and which images have their class from elsewhere than a folder.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// The folder round it all.
    pub wrapper: PathBuf,
    /// Whether there is a folder `train`.
    pub has_parts: bool,
    /// Name of the test part's folder.
    pub test_name: Option<&'static str>,
    /// Classes of test images that lie in no class folder, by path within the test part.
    pub test_classes: HashMap<PathBuf, String>,
}

impl Places {
    /// By the names of the folders.
    fn of(found: &[Found]) -> Self {
        let usable: Vec<&Found> =
            found.iter().filter(|entry| !matches!(entry.kind, Kind::Unusable(_)) && !is_hidden(&entry.path)).collect();
        let files = || usable.iter().filter(|entry| entry.kind == Kind::File && looks_like_image(&entry.path));
        let tops: BTreeSet<_> = files().filter_map(|entry| entry.path.iter().next()).collect();
        // One folder above everything, and folders of folders in it.
        let wrapper = match tops.iter().next() {
            Some(&top) if tops.len() == 1 && top != "train" && files().all(|entry| entry.path.iter().count() > 2) => {
                PathBuf::from(top)
            }
            _ => PathBuf::new(),
        };
        let top = |name: &str| {
            usable.iter().any(|entry| entry.path.starts_with(wrapper.join(name)) && entry.path != wrapper.join(name))
        };
        let has_parts = top("train");
        let test_name = TEST_NAMES.into_iter().find(|name| has_parts && top(name));
        Self { wrapper, has_parts, test_name, test_classes: HashMap::new() }
    }

    /// Part and path within the part.
    pub fn place<'p>(&self, path: &'p Path) -> Option<(Part, &'p Path)> {
        let path = path.strip_prefix(&self.wrapper).ok()?;
        if !self.has_parts {
            return Some((Part::Train, path));
        }
        if let Ok(path) = path.strip_prefix("train") {
            return Some((Part::Train, path));
        }
        path.strip_prefix(self.test_name?).ok().map(|path| (Part::Test, path))
    }

    /// Part, class, and whether `path` is more than the class's own folder.
    fn class(&self, path: &Path) -> Option<(Part, String, bool)> {
        let (part, path) = self.place(path)?;
        if let (Part::Test, Some(class)) = (part, self.test_classes.get(path)) {
            return Some((part, class.clone(), true));
        }
        let mut names = path.iter();
        let class = names.next()?.to_string_lossy().into_owned();
        Some((part, class, names.next().is_some()))
    }
}

#[derive(Clone, Debug)]
struct ImageFile {
    part: Part,
    label: u32,
    /// Index into [`Layout::found`].
    number: usize,
}

/// The listing and what it means.
struct Layout<'a> {
    root: &'a Path,
    found: Vec<Found>,
    places: Places,
    classes: Vec<String>,
    broken: Vec<(PathBuf, String)>,
    ignored_files: u64,
}

fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

pub(crate) fn is_hidden(path: &Path) -> bool {
    path.iter().any(|name| (name.to_string_lossy().starts_with('.') && name != "..") || name == "__MACOSX")
}

pub(crate) fn looks_like_image(path: &Path) -> bool {
    let ending = ending(path);
    READ.contains(&&*ending) || UNREAD.contains(&&*ending)
}

impl Layout<'_> {
    /// The images, sorted by part, class and path.
    fn images(&mut self, hold_back: HoldBack) -> Result<Vec<ImageFile>, DatasetError> {
        let mut classes: BTreeMap<String, bool> = BTreeMap::new();
        let mut placed = Vec::new();
        let mut refused = Vec::new();
        for (number, entry) in self.found.iter().enumerate() {
            let image = looks_like_image(&entry.path);
            if is_hidden(&entry.path) {
                if entry.kind != Kind::Folder {
                    self.ignored_files += 1;
                }
                continue;
            }
            match (&entry.kind, self.places.class(&entry.path)) {
                (Kind::Folder, Some((Part::Train, class, false))) => {
                    classes.entry(class).or_insert(false);
                }
                (Kind::Folder, Some((_, _, true))) if image => {
                    self.broken.push((entry.path.clone(), "a folder with the name of an image".to_string()));
                }
                (Kind::Folder, _) => {}
                (Kind::Unusable(_), _) if image => refused.push((number, None)),
                (Kind::File, Some((_, _, false))) if image => {
                    self.broken.push((entry.path.clone(), "an image outside of every class folder".to_string()));
                }
                (Kind::File, Some((part, class, true))) if image => {
                    if UNREAD.contains(&&*ending(&entry.path)) {
                        refused.push((number, Some("not a JPEG, PNG, BMP or WebP image; convert it")));
                        continue;
                    }
                    if class.contains(char::REPLACEMENT_CHARACTER) && entry.path.to_str().is_none() {
                        // Two such names may look alike.
                        return Err(DatasetError::file(
                            &self.root.join(&entry.path),
                            "the class's name is not UTF-8; rename its folder",
                        ));
                    }
                    if part == Part::Train {
                        classes.insert(class.clone(), true);
                    }
                    placed.push((part, class, number));
                }
                _ => self.ignored_files += 1,
            }
        }
        for (number, reason) in refused {
            self.refuse(number, reason);
        }
        if placed.is_empty() && classes.is_empty() {
            let others = self.broken.first().map(|(path, reason)| format!(" but {}: {reason}", path.display()));
            return Err(DatasetError::file(
                self.root,
                format!(
                    "no images found{}; they are expected as train/CLASS/* and test/CLASS/*, or as CLASS/*, ending in .jpg, .jpeg, .png, .bmp or .webp",
                    others.unwrap_or_default()
                ),
            ));
        }
        if let Some((class, _)) = classes.iter().find(|(_, has_images)| !**has_images) {
            return Err(DatasetError::file(self.root, format!("class {class:?} has no training image")));
        }
        let part = |class: &String| OTHER_PARTS.contains(&&*class.to_lowercase());
        if !self.places.has_parts && classes.len() > 1 && classes.keys().all(part) {
            let names: Vec<String> = classes.into_keys().collect();
            return Err(DatasetError::file(
                self.root,
                format!(
                    "the folders {} look like parts of a data set and not like classes; parts are called train and test",
                    names.join(", ")
                ),
            ));
        }
        self.classes = classes.into_keys().collect();
        let mut images = Vec::with_capacity(placed.len());
        for (part, class, number) in placed {
            let label = self.classes.binary_search(&class).map_err(|_| {
                DatasetError::file(
                    &self.root.join(&self.found[number].path),
                    format!("class {class:?} is tested but has no training image"),
                )
            })?;
            images.push(ImageFile { part, label: label as u32, number });
        }
        let by_path = |image: &ImageFile| (image.part, image.label, &self.found[image.number].path);
        images.sort_by(|a, b| by_path(a).cmp(&by_path(b)));
        if self.places.test_name.is_none() {
            self.hold_back(&mut images, hold_back);
            images.sort_by(|a, b| by_path(a).cmp(&by_path(b)));
        }
        Ok(images)
    }

    fn refuse(&mut self, number: usize, reason: Option<&str>) {
        let Found { path, kind } = &self.found[number];
        let reason = match (kind, reason) {
            (_, Some(reason)) => reason.to_string(),
            (Kind::Unusable(reason), None) => reason.clone(),
            _ => "of no use".to_string(),
        };
        self.broken.push((path.clone(), reason));
    }

    /// Makes a share of the images the test part, each class by its share.
    fn hold_back(&self, images: &mut [ImageFile], HoldBack { fraction, seed }: HoldBack) {
        let all: Vec<u32> = (0..images.len() as u32).collect();
        let groups = splits::group(&all, |index| images[index as usize].label, self.classes.len());
        let (held, _) = splits::stratify(&groups, fraction, seed, Purpose::Test);
        for index in held {
            images[index as usize].part = Part::Test;
        }
    }
}
