//! Defaults that depend on other keys, made explicit.

use crate::{Activation, Architecture, Color, Initialization, Layout, Model, Normalization, Settings, Source, Stem};

/// From this side on, in pixels, AlexNet takes its large stem unless told otherwise.
const LARGE_STEM_FROM: usize = 63;

impl Settings {
    /// The same settings with every default that depends on another key filled in, as far as the file alone tells; a key that is left
    /// out and one that is given its default resolve to the same. Trials carry resolved settings.
    ///
    /// What only the data can tell (the size of images that are read from files, and AlexNet's stem with it) stays open.
    pub fn resolved(&self) -> Self {
        let mut settings = self.clone();
        let dataset = &mut settings.dataset;
        let (size, color) = match dataset.source {
            Source::Glyphs => (Some(28), Some(Color::Gray)),
            Source::Idx => (None, Some(Color::Gray)),
            Source::Cifar => (Some(32), Some(Color::Rgb)),
            Source::Images => (None, None),
            Source::Imagenet => (Some(256), Some(Color::Rgb)),
        };
        dataset.image_size = dataset.image_size.or(size);
        dataset.color = dataset.color.or(color);
        if dataset.source == Source::Glyphs {
            dataset.train_images = dataset.train_images.or(Some(6000));
            dataset.test_images = dataset.test_images.or(Some(2000));
        }
        // A crop of the whole image is none; padding without a crop is a crop of the image's own size.
        let augment = &mut settings.augment;
        if augment.pad > 0 {
            augment.crop = augment.crop.or(dataset.image_size);
        } else if augment.crop == dataset.image_size {
            augment.crop = None;
        }
        settings.model = self.model.resolved(settings.input_size());
        // Which layers, not in which order.
        for layers in [&mut settings.train.initial_weights_skip, &mut settings.train.freeze] {
            layers.sort_unstable();
            layers.dedup();
        }
        settings
    }

    /// Side, in pixels, of the square images that the network sees, where the file alone tells.
    pub fn input_size(&self) -> Option<usize> {
        self.augment.crop.or(self.dataset.image_size).or(match self.dataset.source {
            Source::Glyphs => Some(28),
            Source::Cifar => Some(32),
            Source::Imagenet => Some(256),
            Source::Idx | Source::Images => None,
        })
    }
}

impl Model {
    /// The same model with the architecture's defaults filled in; AlexNet's stem only where the side of the input, in pixels, is known.
    /// Keys that the architecture does not have stay out.
    pub fn resolved(&self, input_size: Option<usize>) -> Self {
        let alexnet = self.architecture == Architecture::AlexNet;
        Self {
            architecture: self.architecture,
            activation: Some(self.resolved_activation()),
            normalization: Some(self.resolved_normalization()),
            dropout: Some(self.resolved_dropout()),
            overlapping_pooling: self.overlapping_pooling.or(alexnet.then_some(true)),
            towers: self.towers.or(alexnet.then_some(1)),
            layout: self.layout.or(alexnet.then_some(Layout::Paper)),
            stem: self.stem.or(input_size.filter(|_| alexnet).map(|side| self.resolved_stem(side))),
            width: self.width.or(alexnet.then_some(1.0)),
            initialization: Some(self.resolved_initialization()),
        }
    }

    /// `model.activation` or the architecture's own.
    pub fn resolved_activation(&self) -> Activation {
        self.activation.unwrap_or(match self.architecture {
            Architecture::LeNet5 => Activation::Tanh,
            Architecture::AlexNet => Activation::Relu,
        })
    }

    /// `model.normalization` or the architecture's own: none for LeNet-5 and for AlexNet in torchvision's layout, else batch.
    pub fn resolved_normalization(&self) -> Normalization {
        self.normalization.unwrap_or(match (self.architecture, self.resolved_layout()) {
            (Architecture::AlexNet, Layout::Paper) => Normalization::Batch,
            (Architecture::LeNet5, _) | (_, Layout::Torchvision) => Normalization::None,
        })
    }

    /// `model.dropout` or the architecture's own.
    pub fn resolved_dropout(&self) -> f64 {
        self.dropout.unwrap_or(match self.architecture {
            Architecture::LeNet5 => 0.0,
            Architecture::AlexNet => 0.5,
        })
    }

    /// `model.layout`, or the paper's.
    pub fn resolved_layout(&self) -> Layout {
        self.layout.unwrap_or_default()
    }

    /// `model.stem`, or AlexNet's own for images of this side, in pixels: large where it fits and from 63 pixels on, else small.
    pub fn resolved_stem(&self, input_size: usize) -> Stem {
        self.stem.unwrap_or(if input_size >= LARGE_STEM_FROM.max(self.least_input_size(Stem::Large)) {
            Stem::Large
        } else {
            Stem::Small
        })
    }

    /// `model.initialization` or the architecture's own.
    pub fn resolved_initialization(&self) -> Initialization {
        self.initialization.unwrap_or(match self.architecture {
            Architecture::LeNet5 => Initialization::Xavier,
            Architecture::AlexNet => Initialization::He,
        })
    }
}
