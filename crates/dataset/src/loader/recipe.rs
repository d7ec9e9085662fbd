//! Samples told without their pixels, for a device that has the images.

use super::{Draw, Loader};
use crate::{
    color::Tone,
    geometry::Window,
    rng::{Counter, Purpose},
};

/// How a sample is cut out of one image: what a device needs to make the very values that a [`Loader`] writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    image: u32,
    window: Window,
    tone: Tone,
    /// Rows and columns that are blank, each as first and beyond.
    blank: [u32; 4],
    /// Share of it in the sample, where two are blended.
    share: f32,
}

impl Recipe {
    /// Words that it takes.
    pub const WORDS: usize = 27;

    /// Writes it as 32-bit words: image, top, left (signed), whether it is flipped, the blank rectangle's top, bottom, left and right; then,
    /// as floats, its share, the matrix from pixels to values (row by row), what is added to them, their least and their largest values.
    ///
    /// # Panics
    /// If `words` are not [`Self::WORDS`].
    pub fn write(&self, words: &mut [u32]) {
        assert_eq!(words.len(), Self::WORDS, "a recipe has its words");
        let Window { top, left, flip } = self.window;
        words[..4].copy_from_slice(&[self.image, top as i32 as u32, left as i32 as u32, u32::from(flip)]);
        words[4..8].copy_from_slice(&self.blank);
        let (low, high) = self.tone.bounds.unwrap_or(([f32::MIN; 3], [f32::MAX; 3]));
        let numbers = [self.share].into_iter().chain(self.tone.matrix.into_iter().flatten());
        let numbers = numbers.chain(self.tone.offset).chain(low).chain(high);
        words[8..].iter_mut().zip(numbers).for_each(|(word, number)| *word = number.to_bits());
    }
}

impl Loader {
    /// Whether recipes tell all that happens to training images: everything but resized crops, rotation, scale, shear, shifts and pixel
    /// noise, which take more than one pixel, or more numbers, for a value.
    pub fn has_recipes(&self) -> bool {
        !self.warped && self.augment.resized_crop.is_none() && self.augment.noise <= 0.0
    }

    /// Recipes of a training sample: 2 with mixup, else 1.
    pub fn training_recipes(&self) -> usize {
        if self.augment.mixup > 0.0 { 2 } else { 1 }
    }

    /// What [`Self::training_sample`] writes, as [`Self::training_recipes`] recipes one after the other, and its target (K values).
    ///
    /// # Panics
    /// If a slice has another length, `index` is out of range, or there are no recipes ([`Self::has_recipes`]).
    pub fn training_recipe(&self, index: u32, draw: &Draw<'_>, words: &mut [u32], target: &mut [f32]) {
        assert!(self.has_recipes(), "recipes tell all that happens");
        self.target(index, draw.label_smoothing, target);
        let own = self.recipe(index, draw);
        let Some((share, partner)) = self.mixed(index, draw) else { return own.write(words) };
        let (first, second) = words.split_at_mut(Recipe::WORDS);
        Recipe { share, ..own }.write(first);
        Recipe { share: 1.0 - share, ..self.recipe(partner, draw) }.write(second);
        self.mixed_target(index, share, partner, draw.label_smoothing, target);
    }

    /// What [`Self::evaluation_sample`] writes.
    ///
    /// # Panics
    /// If `words` are not [`Recipe::WORDS`].
    pub fn evaluation_recipe(&self, index: u32, words: &mut [u32]) {
        self.plain_recipe(index, Window::center(self.image, self.sample)).write(words);
    }

    /// What [`Self::ten_crop_sample`] writes.
    ///
    /// # Panics
    /// If `view` is above 9, or `words` are not [`Recipe::WORDS`].
    pub fn ten_crop_recipe(&self, index: u32, view: usize, words: &mut [u32]) {
        self.plain_recipe(index, self.view(view)).write(words);
    }

    fn plain_recipe(&self, image: u32, window: Window) -> Recipe {
        Recipe { image, window, tone: self.plain, blank: [0; 4], share: 1.0 }
    }

    /// What `distort` does.
    fn recipe(&self, image: u32, draw: &Draw<'_>) -> Recipe {
        let Draw { seed, epoch, .. } = *draw;
        let window = Window::draw(&self.augment, self.image, self.sample, seed, epoch, image);
        let tone = if self.colored {
            self.normalizer.draw(&self.augment, self.prepared.manifest(), &|| self.luma(image), seed, epoch, image)
        } else {
            self.plain
        };
        let mut blank = [0; 4];
        if self.augment.cutout > 0 {
            let (rows, columns) = self.hole(Counter::new(seed, Purpose::Cutout, epoch, image));
            blank = [rows.start, rows.end, columns.start, columns.end].map(|edge| edge as u32);
        }
        Recipe { image, window, tone, blank, share: 1.0 }
    }
}
