//! Image files outside of any data set, as a network sees the images of one.

use std::path::Path;

use crate::{
    DatasetError,
    color::Normalizer,
    decode::decode,
    geometry::{Size, Window, cut},
    resize::Target,
    source::Raw,
};

/// How the images of a data set were prepared, and what a network sees of them: enough to treat any image file alike.
#[derive(Clone, Debug)]
pub struct Preprocessing {
    channels: usize,
    image: Size,
    sample: Size,
    normalizer: Normalizer,
}

impl Preprocessing {
    /// Images are prepared with `image` [H, W] pixels; the network sees the centre of `input` [C, H, W], each channel less
    /// its mean, divided by its deviation (both in units of the full range).
    ///
    /// # Errors
    /// Anything but one or three channels, or a mean and deviation that are not one for each.
    pub fn new(image: [usize; 2], input: [usize; 3], mean: &[f64], std: &[f64]) -> Result<Self, DatasetError> {
        let [channels, height, width] = input;
        if !matches!(channels, 1 | 3) || mean.len() != channels || std.len() != channels {
            let (mean, std) = (mean.len(), std.len());
            return Err(DatasetError::setting(
                "input",
                format!(
                    "images have 1 or 3 channels, each with a mean and a deviation; got {channels} channels, {mean} means and {std} deviations"
                ),
            ));
        }
        let [image_height, image_width] = image;
        Ok(Self {
            channels,
            image: Size { height: image_height, width: image_width },
            sample: Size { height, width },
            normalizer: Normalizer::of(mean, std),
        })
    }

    /// Values of one sample: C·H·W.
    pub fn sample_values(&self) -> usize {
        self.channels * self.sample.pixels()
    }

    /// Reads the image file `path` and writes to `sample` [C, H, W] what the network sees of it: decoded, brought to the
    /// prepared channels and size, its centre cut out, normalised; exactly as an image of the data set.
    ///
    /// # Errors
    /// A file that cannot be read or is no image, with its path.
    ///
    /// # Panics
    /// If `sample` is shorter than [`Self::sample_values`].
    pub fn sample(&self, path: &Path, sample: &mut [f32]) -> Result<(), DatasetError> {
        let bytes = std::fs::read(path).map_err(|error| DatasetError::io("read", path, error))?;
        let Size { height, width } = self.image;
        let target = Target { channels: self.channels, side: (height == width).then_some(height) };
        let raw = decode(&bytes, &target).map_err(|reason| DatasetError::file(path, reason))?;
        let Raw { height: got_height, width: got_width, pixels, .. } = raw;
        if (got_height, got_width) != (height, width) {
            // Only a square can be cut out of any image.
            return Err(DatasetError::file(
                path,
                format!(
                    "has {got_width}×{got_height} pixels, but the network was trained on images of {width}×{height}"
                ),
            ));
        }
        let window = Window::center(self.image, self.sample);
        cut(&pixels, self.image, window, &self.normalizer.plain(), sample, self.sample);
        Ok(())
    }
}
