//! Image files to pixels: JPEG, PNG, BMP and WebP, told apart by their contents and not by their names.
//!
//! Orientation from EXIF is applied. Transparent pixels are laid over white. 16-bit values are rounded to 8 bits. CMYK
//! follows Adobe's convention (stored inverted), without colour profiles.

use std::{io::Cursor, panic::catch_unwind};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use crate::{
    resize::{Target, luma, planes, square},
    source::Raw,
};

/// Largest image, in pixels: beyond it lies an attack rather than a photograph.
pub(crate) const MAX_PIXELS: u64 = 1 << 27;

/// Rows of interleaved channels.
struct Decoded {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

/// Decodes an image file in memory and brings it to the target's channels and size. The reason of a failure says what is
/// wrong with the file.
pub(crate) fn decode(bytes: &[u8], target: &Target) -> Result<Raw, String> {
    // The decoders are well tested, but a panic in one must not end a preparation of a million files.
    let decoded =
        catch_unwind(|| read(bytes, target.channels == 1)).map_err(|_| "the decoder panicked".to_string())??;
    let Decoded { width, height, channels, mut pixels } = match (decoded.channels, target.channels) {
        (3, 1) => Decoded { channels: 1, pixels: gray(&decoded.pixels), ..decoded },
        _ => decoded,
    };
    let (pixels, width, height) = match target.side.filter(|&side| side != width || side != height) {
        Some(side) => (square(&mut pixels, width, height, channels, side)?, side, side),
        None => (pixels, width, height),
    };
    let pixels = match (channels, target.channels) {
        (1, 3) => pixels.repeat(3),
        (1, _) => pixels,
        _ => planes(&pixels, channels),
    };
    Ok(Raw { channels: target.channels, height, width, pixels })
}

fn gray(pixels: &[u8]) -> Vec<u8> {
    pixels.chunks_exact(3).map(|pixel| luma(pixel[0], pixel[1], pixel[2])).collect()
}

fn read(bytes: &[u8], want_gray: bool) -> Result<Decoded, String> {
    match bytes {
        [] => Err("empty file".to_string()),
        [0xff, 0xd8, 0xff, ..] => read_jpeg(bytes, want_gray),
        [0x89, b'P', b'N', b'G', ..] => read_other(bytes, ImageFormat::Png),
        [b'B', b'M', ..] => read_other(bytes, ImageFormat::Bmp),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => read_other(bytes, ImageFormat::WebP),
        _ => {
            let start: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            Err(format!("not a JPEG, PNG, BMP or WebP image: it starts with {}", start.join(" ")))
        }
    }
}

fn check_size(width: u64, height: u64) -> Result<(), String> {
    match width * height {
        0 => Err(format!("{width}×{height} pixels")),
        pixels if pixels > MAX_PIXELS => {
            Err(format!("{width}×{height} pixels, more than the {MAX_PIXELS} that are accepted"))
        }
        _ => Ok(()),
    }
}

fn read_jpeg(bytes: &[u8], want_gray: bool) -> Result<Decoded, String> {
    // The decoder fills what is missing with gray, so truncation has to be looked for: no end marker after the last scan.
    let marker = |kind: u8| bytes.windows(2).rposition(|pair| pair == [0xff, kind]);
    if marker(0xd9) < marker(0xda) || marker(0xd9).is_none() {
        return Err("truncated JPEG: it has no end marker".to_string());
    }
    let said = |error: zune_jpeg::errors::DecodeErrors| {
        let text = error.to_string();
        format!("corrupt JPEG: {}", text.trim().trim_end_matches('.'))
    };
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(said)?;
    let (width, height) = decoder.dimensions().ok_or("corrupt JPEG: no size")?;
    check_size(width as u64, height as u64)?;
    // A JPEG's own brightness is BT.601 luma: no need to go through colour.
    let luma_only = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => true,
        Some(ColorSpace::YCbCr) => want_gray,
        _ => false,
    };
    let (space, channels) = if luma_only { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let pixels = decoder.decode().map_err(said)?;
    if pixels.len() != width * height * channels {
        return Err("corrupt JPEG: the pixels do not fit its size".to_string());
    }
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let decoded = Decoded { width, height, channels, pixels };
    match orientation {
        None | Some(Orientation::NoTransforms) => Ok(decoded),
        Some(orientation) => turn(decoded, orientation),
    }
}

fn turn(decoded: Decoded, orientation: Orientation) -> Result<Decoded, String> {
    let Decoded { width, height, channels, pixels } = decoded;
    let (width, height) = (width as u32, height as u32);
    let image = if channels == 1 {
        image::GrayImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        image::RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    };
    let mut image = image.ok_or("the pixels do not fit the size")?;
    image.apply_orientation(orientation);
    Ok(Decoded { width: image.width() as usize, height: image.height() as usize, channels, pixels: image.into_bytes() })
}

fn read_other(bytes: &[u8], format: ImageFormat) -> Result<Decoded, String> {
    let said = |error: image::ImageError| format!("corrupt image: {error}");
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(said)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(said)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (channels, pixels) = match (image.color().has_alpha(), image.color().has_color()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (false, true) => (3, image.into_rgb8().into_raw()),
        (true, false) => (1, over_white::<2>(image.into_luma_alpha8().as_raw())),
        (true, true) => (3, over_white::<4>(image.into_rgba8().as_raw())),
    };
    Ok(Decoded { width, height, channels, pixels })
}

/// Lays pixels of `N` channels, the last of which is opacity, over white.
fn over_white<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / N * (N - 1));
    for pixel in pixels.chunks_exact(N) {
        let alpha = u32::from(pixel[N - 1]);
        out.extend(
            pixel[..N - 1].iter().map(|&value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8),
        );
    }
    out
}
