//! Ranges of the settings, and which of them go together.

use crate::{
    Architecture, Augment, Color, Dataset, Device, Layout, Model, Normalization, Optimizer, Precision, Settings,
    Source, Stem, Train, schedule::Curve,
};

/// What is wrong with a setting: the key path and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Violation {
    /// Key path, such as `train.weight_decay`.
    pub key: String,
    /// What would be right, and what was given.
    pub message: String,
}

impl Violation {
    /// Fine if `holds`; else the key and the message.
    pub(crate) fn unless(holds: bool, key: impl Into<String>, message: impl FnOnce() -> String) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { key: key.into(), message: message() }) }
    }
}

/// Largest side of an image, in pixels.
const MAX_SIDE: usize = 4096;
/// Smallest side that leaves LeNet-5's third convolution a 5×5 map, in pixels.
const LENET5_LEAST: usize = 28;
/// Smallest side for AlexNet's small stem, in pixels.
const SMALL_STEM_LEAST: usize = 24;

impl Settings {
    /// Checks each key by itself, then which keys go together.
    pub fn validate(&self) -> Result<(), Violation> {
        self.validate_ranges()?;
        self.validate_combination()
    }

    /// Checks each key by itself.
    pub(crate) fn validate_ranges(&self) -> Result<(), Violation> {
        dataset(&self.dataset)?;
        augment(&self.augment)?;
        model(&self.model)?;
        train(&self.train)
    }

    /// Checks which keys go together. Expects ranges to be sound.
    pub(crate) fn validate_combination(&self) -> Result<(), Violation> {
        source(&self.dataset)?;
        images(self)?;
        network(self)?;
        update(self)
    }
}

fn at_least(key: &str, value: f64, least: f64) -> Result<(), Violation> {
    Violation::unless(value >= least && value.is_finite(), key, || format!("must be ≥ {least}, got {value}"))
}

fn above(key: &str, value: f64, bound: f64) -> Result<(), Violation> {
    Violation::unless(value > bound && value.is_finite(), key, || format!("must be > {bound}, got {value}"))
}

fn within(key: &str, value: f64, least: f64, most: f64) -> Result<(), Violation> {
    Violation::unless((least..=most).contains(&value), key, || format!("must be from {least} to {most}, got {value}"))
}

fn below(key: &str, value: f64, bound: f64) -> Result<(), Violation> {
    Violation::unless((0.0..bound).contains(&value), key, || format!("must be ≥ 0 and below {bound}, got {value}"))
}

fn count(key: &str, value: usize, most: usize) -> Result<(), Violation> {
    Violation::unless((1..=most).contains(&value), key, || format!("must be from 1 to {most}, got {value}"))
}

/// The least and the largest of a range that is drawn from.
fn range(key: &str, [least, most]: [f64; 2], bounds: &str, holds: impl Fn(f64) -> bool) -> Result<(), Violation> {
    Violation::unless(holds(least) && holds(most) && least <= most, key, || {
        format!("must be [least, largest], both {bounds}; got [{least}, {most}]")
    })
}

fn dataset(dataset: &Dataset) -> Result<(), Violation> {
    below("dataset.validation_fraction", dataset.validation_fraction, 1.0)?;
    below("dataset.test_fraction", dataset.test_fraction, 1.0)?;
    if let Some(size) = dataset.image_size {
        count("dataset.image_size", size, MAX_SIDE)?;
    }
    for (key, images) in [("dataset.train_images", dataset.train_images), ("dataset.test_images", dataset.test_images)]
    {
        if let Some(images) = images {
            // Image indices are u32.
            count(key, images, u32::MAX as usize)?;
        }
    }
    Ok(())
}

fn augment(augment: &Augment) -> Result<(), Violation> {
    if let Some(crop) = augment.crop {
        count("augment.crop", crop, MAX_SIDE)?;
    }
    let most = |key: &str, pixels: usize| {
        Violation::unless(pixels <= MAX_SIDE, key, || format!("must be at most {MAX_SIDE}, got {pixels}"))
    };
    if let Some(crop) = &augment.resized_crop {
        range("augment.resized_crop.area", crop.area, "above 0 and at most 1", |area| area > 0.0 && area <= 1.0)?;
        range("augment.resized_crop.ratio", crop.ratio, "from 0.1 to 10", |ratio| (0.1..=10.0).contains(&ratio))?;
    }
    most("augment.pad", augment.pad)?;
    most("augment.cutout", augment.cutout)?;
    within("augment.flip", augment.flip, 0.0, 1.0)?;
    within("augment.rotation_degrees", augment.rotation_degrees, 0.0, 180.0)?;
    below("augment.scale", augment.scale, 1.0)?;
    below("augment.shear_degrees", augment.shear_degrees, 90.0)?;
    within("augment.translate", augment.translate, 0.0, 1.0)?;
    within("augment.brightness", augment.brightness, 0.0, 1.0)?;
    within("augment.contrast", augment.contrast, 0.0, 1.0)?;
    within("augment.saturation", augment.saturation, 0.0, 1.0)?;
    within("augment.hue", augment.hue, 0.0, 0.5)?;
    at_least("augment.pca", augment.pca, 0.0)?;
    at_least("augment.noise", augment.noise, 0.0)?;
    at_least("augment.mixup", augment.mixup, 0.0)
}

fn model(model: &Model) -> Result<(), Violation> {
    if let Some(dropout) = model.dropout {
        below("model.dropout", dropout, 1.0)?;
    }
    if let Some(towers) = model.towers {
        Violation::unless(matches!(towers, 1 | 2), "model.towers", || format!("must be 1 or 2, got {towers}"))?;
    }
    if let Some(width) = model.width {
        Violation::unless(width > 0.0 && width <= 4.0, "model.width", || {
            format!("must be above 0 and at most 4, got {width}")
        })?;
    }
    Ok(())
}

fn train(train: &Train) -> Result<(), Violation> {
    count("train.epochs", train.epochs as usize, 100_000)?;
    count("train.batch_size", train.batch_size, 65_536)?;
    count("train.evaluation_batch_size", train.evaluation_batch_size, 65_536)?;
    above("train.learning_rate", train.learning_rate, 0.0)?;
    below("train.momentum", train.momentum, 1.0)?;
    below("train.beta2", train.beta2, 1.0)?;
    at_least("train.weight_decay", train.weight_decay, 0.0)?;
    below("train.label_smoothing", train.label_smoothing, 1.0)?;
    if let Some(clip) = train.gradient_clip {
        above("train.gradient_clip", clip, 0.0)?;
    }
    if let Some(decay) = train.average_decay {
        below("train.average_decay", decay, 1.0)?;
    }
    Violation::unless(
        train.initial_weights.as_ref().is_none_or(|path| !path.as_os_str().is_empty()),
        "train.initial_weights",
        || "must be the path of a safetensors file, got an empty one".to_owned(),
    )?;
    Violation::unless(train.precision != Precision::Tf32 || train.device == Device::Cuda, "train.precision", || {
        "\"tf32\" is computed on GPUs only; set train.device = \"cuda\", or train.precision = \"f32\" or \"bf16\""
            .to_owned()
    })?;
    train.schedule.validate()
}

fn source(dataset: &Dataset) -> Result<(), Violation> {
    let default = Dataset::default();
    let split = dataset.source == Source::Images;
    let files = split || dataset.source == Source::Imagenet;
    for (key, holds, sources) in [
        ("dataset.test_fraction", split || dataset.test_fraction == default.test_fraction, "source images"),
        ("dataset.on_broken", files || dataset.on_broken == default.on_broken, "the sources images and imagenet"),
    ] {
        Violation::unless(holds, key, || format!("has a meaning for {sources} only"))?;
    }
    let needed = match dataset.source {
        Source::Glyphs => {
            return Violation::unless(dataset.path.is_none(), "dataset.path", || {
                "has no meaning for source glyphs, which the program draws; set dataset.source = \"idx\", \"cifar\", \"images\" or \"imagenet\" to read files"
                    .to_owned()
            });
        }
        Source::Idx => "source idx needs the folder of its four files",
        Source::Cifar => "source cifar needs the folder or archive of its binary batches",
        Source::Images => "source images needs the folder or archive of the image files",
        Source::Imagenet => "source imagenet needs the folder or archive that holds train and val",
    };
    Violation::unless(dataset.path.as_ref().is_some_and(|path| !path.as_os_str().is_empty()), "dataset.path", || {
        format!("is missing: {needed}; set it in the file or with dataset.path=PATH")
    })
}

/// Sizes and colours that are known without looking at the data.
fn images(settings: &Settings) -> Result<(), Violation> {
    let resolved = settings.resolved();
    let augment = &resolved.augment;
    Violation::unless(augment.resized_crop.is_none() || augment.pad == 0, "augment.pad", || {
        "does not go with augment.resized_crop, which finds its crops inside the image; leave one of them out"
            .to_owned()
    })?;
    if let (Some(crop), Some(size)) = (augment.crop, resolved.dataset.image_size) {
        let padded = size + 2 * augment.pad;
        Violation::unless(crop <= padded, "augment.crop", || {
            let padding =
                if augment.pad > 0 { format!(" with {} of padding on each side", augment.pad) } else { String::new() };
            format!("must be at most {padded}, since images are {size}×{size}{padding}; got {crop}")
        })?;
    }
    if let Some(side) = resolved.input_size() {
        Violation::unless(augment.cutout < side, "augment.cutout", || {
            format!("must be below {side}, the side of the images the network sees; got {}", augment.cutout)
        })?;
    }
    if resolved.dataset.color == Some(Color::Gray) {
        for (key, strength) in
            [("augment.saturation", augment.saturation), ("augment.hue", augment.hue), ("augment.pca", augment.pca)]
        {
            Violation::unless(strength == 0.0, key, || {
                "has no meaning for gray images; set dataset.color = \"rgb\" or leave it out".to_owned()
            })?;
        }
    }
    Ok(())
}

fn network(settings: &Settings) -> Result<(), Violation> {
    let model = &settings.model;
    let side = settings.input_size();
    if model.architecture == Architecture::LeNet5 {
        let given = [
            ("overlapping_pooling", model.overlapping_pooling.is_some()),
            ("towers", model.towers.is_some()),
            ("layout", model.layout.is_some()),
            ("stem", model.stem.is_some()),
            ("width", model.width.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            return Violation::unless(false, format!("model.{name}"), || {
                "has no meaning for lenet5, only for alexnet; set it in alexnet's variant alone".to_owned()
            });
        }
        return match side {
            Some(side) => Violation::unless(side >= LENET5_LEAST, "model.architecture", || {
                format!("lenet5 needs images of at least {LENET5_LEAST}×{LENET5_LEAST} pixels, got {side}×{side}")
            }),
            None => Ok(()),
        };
    }
    if model.layout == Some(Layout::Torchvision) {
        Violation::unless(model.towers != Some(2), "model.towers", || {
            "must be 1 with layout torchvision, which has no towers".to_owned()
        })?;
    }
    let Some(side) = side else { return Ok(()) };
    let stem = model.resolved_stem(side);
    let least = model.least_input_size(stem);
    Violation::unless(
        side >= least,
        if stem == Stem::Large && model.stem.is_some() { "model.stem" } else { "model.architecture" },
        || {
            let (name, hint) = match stem {
                Stem::Large => ("large", format!("; stem small takes {SMALL_STEM_LEAST}")),
                Stem::Small => ("small", String::new()),
            };
            format!("alexnet with stem {name} needs images of at least {least}×{least} pixels, got {side}×{side}{hint}")
        },
    )
}

impl Model {
    /// Smallest side, in pixels, that leaves every pooling of AlexNet at least one output.
    pub(crate) fn least_input_size(&self, stem: Stem) -> usize {
        match (stem, self.resolved_layout(), self.overlapping_pooling.unwrap_or(true)) {
            (Stem::Small, _, _) => SMALL_STEM_LEAST,
            // Three poolings of 3 with stride 2 need 15 pixels after conv1: (67 − 11) / 4 + 1, or (63 + 2·2 − 11) / 4 + 1 with padding.
            (Stem::Large, Layout::Paper, true) => 67,
            (Stem::Large, _, _) => 63,
        }
    }
}

fn update(settings: &Settings) -> Result<(), Violation> {
    let train = &settings.train;
    Violation::unless(
        train.initial_weights_skip.is_empty() || train.initial_weights.is_some(),
        "train.initial_weights_skip",
        || "has a meaning only with train.initial_weights".to_owned(),
    )?;
    if train.nesterov {
        Violation::unless(train.optimizer == Optimizer::Sgd, "train.nesterov", || {
            "has a meaning for optimizer sgd only".to_owned()
        })?;
        Violation::unless(train.momentum > 0.0, "train.nesterov", || "needs train.momentum above 0".to_owned())?;
    }
    let default = Train::default().beta2;
    Violation::unless(train.optimizer != Optimizer::Sgd || train.beta2 == default, "train.beta2", || {
        "has no meaning for optimizer sgd, only for adam and adamw".to_owned()
    })?;
    if matches!(train.schedule.curve, Curve::Plateau { .. }) {
        Violation::unless(settings.dataset.validation_fraction > 0.0, "train.schedule", || {
            "plateau watches the validation loss and needs dataset.validation_fraction above 0".to_owned()
        })?;
    }
    if settings.model.resolved_normalization() == Normalization::Batch
        && settings.model.architecture == Architecture::AlexNet
    {
        // Below two images the last maps may be a single value per channel, whose variance is always 0.
        Violation::unless(train.batch_size >= 2, "train.batch_size", || {
            "must be at least 2 with batch normalization, got 1".to_owned()
        })?;
    }
    train.schedule.validate_within(train)
}
