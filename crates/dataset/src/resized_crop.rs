//! Random resized crop: a part of random area and shape, scaled to the sample's size (Szegedy et al. 2015, "Going deeper with
//! convolutions", section 6), drawn as torchvision's `RandomResizedCrop` does.

use fast_image_resize::Resizer;
use plan::ResizedCrop;

use crate::{
    elementary::{exp, ln},
    geometry::Size,
    resize,
    rng::{Counter, Purpose},
};

/// A rectangle inside an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub top: usize,
    pub left: usize,
    pub size: Size,
}

/// Draws before the centre is taken instead.
const ATTEMPTS: usize = 10;

impl Region {
    /// At random within `image`: the area uniform, the ratio of width to height log-uniform in their ranges, the place uniform.
    /// Where ten draws do not fit into the image, the largest part in its centre whose ratio is in the range.
    pub fn draw(ranges: &ResizedCrop, image: Size, seed: u64, epoch: u32, index: u32) -> Self {
        let mut rng = Counter::new(seed, Purpose::ResizedCrop, epoch, index);
        let [least, most] = ranges.ratio;
        for _ in 0..ATTEMPTS {
            let area = rng.range(ranges.area[0], ranges.area[1]) * image.pixels() as f64;
            let ratio = exp(rng.range(ln(least), ln(most)));
            let side = |squared: f64| squared.sqrt().round() as usize;
            let size = Size { height: side(area / ratio), width: side(area * ratio) };
            if (1..=image.height).contains(&size.height) && (1..=image.width).contains(&size.width) {
                let mut place = |room: usize| rng.below(room as u32 + 1) as usize;
                let (top, left) = (place(image.height - size.height), place(image.width - size.width));
                return Self { top, left, size };
            }
        }
        let (height, width) = (image.height as f64, image.width as f64);
        let size = Size {
            height: (width / least).round().clamp(1.0, height) as usize,
            width: (height * most).round().clamp(1.0, width) as usize,
        };
        Self { top: (image.height - size.height) / 2, left: (image.width - size.width) / 2, size }
    }
}

/// Scales regions; keeps its buffers from sample to sample.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scaler {
    resizer: Resizer,
    plane: Vec<u8>,
    pixels: Vec<u8>,
}

impl Scaler {
    /// `region` of `image` [C, H, W] scaled to `target`: [C, h, w]. A region of the target's size is copied as it is.
    pub fn scale(&mut self, image: &[u8], size: Size, region: Region, target: Size) -> &[u8] {
        let channels = image.len() / size.pixels();
        self.pixels.resize(channels * target.pixels(), 0);
        let planes = image.chunks_exact(size.pixels()).zip(self.pixels.chunks_exact_mut(target.pixels()));
        for (plane, scaled) in planes {
            // What is mapped cannot be lent as the resizer wants it (see `resize::square`); a copy costs a hundredth of the scaling.
            self.plane.clear();
            self.plane.extend_from_slice(plane);
            resize::region(&mut self.resizer, &mut self.plane, size, region, scaled, target);
        }
        &self.pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Size = Size { height: 200, width: 256 };

    fn draws(area: [f64; 2], ratio: [f64; 2], image: Size) -> Vec<Region> {
        (0..4000).map(|index| Region::draw(&ResizedCrop { area, ratio }, image, 3, 1, index)).collect()
    }

    #[test]
    fn regions_lie_inside_the_image_and_have_the_asked_areas_and_ratios() {
        let regions = draws([0.1, 0.5], [0.75, 4.0 / 3.0], IMAGE);
        for Region { top, left, size } in &regions {
            assert!(top + size.height <= 200 && left + size.width <= 256, "{top} {left} {size:?}");
            let area = size.pixels() as f64 / IMAGE.pixels() as f64;
            // Sides are whole pixels.
            assert!((0.097..0.503).contains(&area), "{area}");
            let ratio = size.width as f64 / size.height as f64;
            assert!((0.74..1.35).contains(&ratio), "{ratio}");
        }
        let mean = |value: &dyn Fn(&Region) -> f64| regions.iter().map(value).sum::<f64>() / regions.len() as f64;
        let area = mean(&|region| region.size.pixels() as f64 / IMAGE.pixels() as f64);
        assert!((area - 0.3).abs() < 0.01, "the area is uniform: mean {area}");
        let log_ratio = mean(&|region| (region.size.width as f64 / region.size.height as f64).ln());
        assert!(log_ratio.abs() < 0.01, "wide and tall alike: mean {log_ratio}");
        let middle = mean(&|region| (region.left as f64 + region.size.width as f64 / 2.0) / 256.0);
        assert!((middle - 0.5).abs() < 0.01, "everywhere alike: mean {middle}");
    }

    #[test]
    fn the_whole_image_is_its_own_region() {
        let square = Size { height: 33, width: 33 };
        let whole = Region { top: 0, left: 0, size: square };
        assert!(draws([1.0, 1.0], [1.0, 1.0], square).iter().all(|region| *region == whole));
    }

    #[test]
    fn where_no_draw_fits_the_centre_is_taken() {
        // No square of the whole area fits into an oblong.
        let centre = Region { top: 0, left: 28, size: Size { height: 200, width: 200 } };
        assert!(draws([1.0, 1.0], [1.0, 1.0], IMAGE).iter().all(|region| *region == centre));
        let tall = Size { height: 256, width: 200 };
        let centre = Region { top: 28, left: 0, size: Size { height: 200, width: 200 } };
        assert!(draws([1.0, 1.0], [1.0, 1.0], tall).iter().all(|region| *region == centre));
        let line = Size { height: 1, width: 20_000 };
        assert!(draws([0.08, 1.0], [0.75, 4.0 / 3.0], line).iter().all(|region| region.size.pixels() == 1));
    }

    #[test]
    fn scaling_keeps_flat_colours_and_copies_what_fits() {
        let mut scaler = Scaler::default();
        let size = Size { height: 20, width: 30 };
        let flat: Vec<u8> = [7, 80, 255].into_iter().flat_map(|value| [value; 600]).collect();
        let target = Size { height: 9, width: 9 };
        let region = Region { top: 3, left: 4, size: Size { height: 14, width: 11 } };
        let scaled = scaler.scale(&flat, size, region, target);
        assert!(scaled.chunks_exact(81).zip([7, 80, 255]).all(|(plane, value)| plane.iter().all(|&x| x == value)));
        let varied: Vec<u8> = (0..600u32).map(|i| (i * i % 251) as u8).collect();
        let region = Region { top: 3, left: 4, size: target };
        let copied = scaler.scale(&varied, size, region, target);
        assert!((0..9).all(|row| copied[row * 9..][..9] == varied[(3 + row) * 30 + 4..][..9]));
    }
}
