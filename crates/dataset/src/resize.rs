//! To the size and the channels that a data set is prepared with.

use std::cell::RefCell;

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::TypedImage,
    pixels::{U8, U8x3, U8x4},
};
use pulp::{Arch, NullaryFnOnce};

use crate::{buffers, geometry::Size, resized_crop::Region, source::Raw};

/// Size and channels of the prepared images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// 1 or 3.
    pub channels: usize,
    /// Side of the square that every image is brought to.
    pub side: Option<usize>,
}

thread_local! {
    /// Keeps its buffers from image to image.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Scales the centre square of an image of interleaved channels to `side`, which is the same as scaling its short side to
/// `side` and cutting out the centre. Bilinear with a support that grows when shrinking (antialiased), as in Pillow.
///
/// `pixels` are not changed. They are borrowed as the library's own buffers are, so that its passes are compiled for one kind
/// of image only.
pub(crate) fn square(
    pixels: &mut [u8],
    width: usize,
    height: usize,
    channels: usize,
    side: usize,
) -> Result<Vec<u8>, String> {
    // Typed, so that only these kinds of pixels are compiled.
    match channels {
        1 => scaled::<U8>(pixels, width, height, side),
        3 => scaled::<U8x3>(pixels, width, height, side),
        _ => scaled::<U8x4>(pixels, width, height, side),
    }
}

fn scaled<P: PixelTrait>(pixels: &mut [u8], width: usize, height: usize, side: usize) -> Result<Vec<u8>, String> {
    let source =
        TypedImage::<P>::from_buffer(width as u32, height as u32, pixels).map_err(|error| error.to_string())?;
    let mut bytes = buffers::zeros(side * side * P::size());
    let mut scaled =
        TypedImage::<P>::from_buffer(side as u32, side as u32, &mut bytes).map_err(|error| error.to_string())?;
    let short = width.min(height);
    // Whole pixels, so that an image whose short side is `side` already is cut and not blurred.
    let size = Size { height: short, width: short };
    let region = Region { top: (height - short) / 2, left: (width - short) / 2, size };
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut scaled, &bilinear(region)))
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Bilinear with a support that grows when shrinking; a region that is not scaled is copied.
fn bilinear(Region { top, left, size }: Region) -> ResizeOptions {
    ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left as f64, top as f64, size.width as f64, size.height as f64)
        .use_alpha(false)
}

/// Scales `region` of one `plane` [H, W] of `size`, which stays as it is, to `scaled` [h, w] of `target`, as [`square`] does.
///
/// # Panics
/// If a slice is not of its size, or the region does not lie inside.
pub(crate) fn region(
    resizer: &mut Resizer,
    plane: &mut [u8],
    size: Size,
    region: Region,
    scaled: &mut [u8],
    target: Size,
) {
    let source = TypedImage::<U8>::from_buffer(size.width as u32, size.height as u32, plane)
        .expect("the plane has the image's size");
    let mut scaled = TypedImage::<U8>::from_buffer(target.width as u32, target.height as u32, scaled)
        .expect("the result has the target's size");
    resizer.resize_typed(&source, &mut scaled, &bilinear(region)).expect("the region lies inside of the image");
}

/// [H, W, C] to [C, H, W], for 1, 3 or 4 channels, of which the fourth is left out.
pub(crate) fn planes(interleaved: &[u8], channels: usize) -> Vec<u8> {
    match channels {
        1 => interleaved.to_vec(),
        3 => Arch::new().dispatch(Planes::<3>(interleaved.as_chunks().0)),
        _ => Arch::new().dispatch(Planes::<4>(interleaved.as_chunks().0)),
    }
}

/// [`planes`] of three or four channels, compiled for each set of instructions.
struct Planes<'a, const N: usize>(&'a [[u8; N]]);

impl<const N: usize> NullaryFnOnce for Planes<'_, N> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn call(self) -> Vec<u8> {
        let mut planar = buffers::zeros(3 * self.0.len());
        let (red, rest) = planar.split_at_mut(self.0.len());
        let (green, blue) = rest.split_at_mut(self.0.len());
        for (((pixel, red), green), blue) in self.0.iter().zip(red).zip(green).zip(blue) {
            (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
        }
        planar
    }
}

/// Brightness of a colour by ITU-R BT.601, as Pillow and OpenCV compute it: (299 R + 587 G + 114 B) / 1000, rounded.
pub(crate) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue) + 500) / 1000) as u8
}

/// Brings plain pixels to the target's channels and size.
pub(crate) fn convert(raw: Raw, target: &Target) -> Result<Raw, String> {
    let Raw { channels, height, width, pixels } = raw;
    let plane = height * width;
    let mut pixels = match (channels, target.channels) {
        (1, 3) => pixels.repeat(3),
        (3, 1) => (0..plane).map(|i| luma(pixels[i], pixels[plane + i], pixels[2 * plane + i])).collect(),
        _ => pixels,
    };
    let channels = target.channels;
    let Some(side) = target.side.filter(|&side| side != height || side != width) else {
        return Ok(Raw { channels, height, width, pixels });
    };
    let mut scaled = Vec::with_capacity(channels * side * side);
    for pixels in pixels.chunks_exact_mut(plane) {
        scaled.extend(square(pixels, width, height, 1, side)?);
    }
    Ok(Raw { channels, height: side, width: side, pixels: scaled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gray_and_colour_turn_into_each_other() {
        let gray = Raw { channels: 1, height: 1, width: 2, pixels: vec![3, 200] };
        let colour = convert(gray, &Target { channels: 3, side: None }).unwrap();
        assert_eq!(colour.pixels, [3, 200, 3, 200, 3, 200]);
        let gray = convert(colour, &Target { channels: 1, side: None }).unwrap();
        assert_eq!(gray.pixels, [3, 200]);
        assert_eq!([luma(255, 0, 0), luma(0, 255, 0), luma(0, 0, 255), luma(255, 255, 255)], [76, 150, 29, 255]);
    }

    #[test]
    fn the_centre_square_is_kept() {
        let wide = Raw { channels: 1, height: 2, width: 6, pixels: vec![9, 9, 1, 2, 9, 9, 9, 9, 3, 4, 9, 9] };
        assert_eq!(convert(wide, &Target { channels: 1, side: Some(2) }).unwrap().pixels, [1, 2, 3, 4]);
        let tall = Raw { channels: 1, height: 20_000, width: 1, pixels: vec![7; 20_000] };
        assert_eq!(convert(tall, &Target { channels: 1, side: Some(3) }).unwrap().pixels, [7; 9]);
        let flat = Raw { channels: 3, height: 40, width: 50, pixels: vec![80; 6000] };
        assert_eq!(convert(flat, &Target { channels: 3, side: Some(16) }).unwrap().pixels, [80; 768]);
    }

    #[test]
    fn interleaved_pixels_become_planes() {
        assert_eq!(planes(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
        assert_eq!(planes(&[1, 2, 3, 0, 4, 5, 6, 0], 4), [1, 4, 2, 5, 3, 6]);
        assert_eq!(planes(&[1, 2], 1), [1, 2]);
    }
}
