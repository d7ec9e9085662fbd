//! Image files to pixels: JPEG, PNG, BMP and WebP, told apart by their contents and not by their names.
//!
//! Orientation from EXIF is applied. Transparent pixels are laid over white. 16-bit values are rounded to 8 bits. CMYK
//! follows Adobe's convention (stored inverted), without colour profiles.

use std::{io::Cursor, panic::catch_unwind};

use zune_bmp::{BmpDecoder, BmpDecoderErrors};
use zune_jpeg::zune_core::{bytestream::ZCursor, options::DecoderOptions};

use crate::{
    buffers,
    exif::{self, Orientation},
    jpeg::read_jpeg,
    resize::{Target, luma, planes, square},
    source::Raw,
};

/// Largest image, in pixels: beyond it lies an attack rather than a photograph.
pub(crate) const MAX_PIXELS: u64 = 1 << 27;

/// Headers of a BMP file with colour masks, in bytes (BITMAPFILEHEADER and BITMAPV3INFOHEADER).
const BMP_HEADERS: usize = 70;

/// Rows of interleaved channels: 1, 3 or 4, of which the fourth says nothing. Vectors take four at a time.
pub(crate) struct Decoded {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub pixels: Vec<u8>,
}

/// Decodes an image file in memory and brings it to the target's channels and size. The reason of a failure says what is
/// wrong with the file.
pub(crate) fn decode(bytes: &[u8], target: &Target) -> Result<Raw, String> {
    // The decoders are well tested, but a panic in one must not end a preparation of a million files.
    let decoded =
        catch_unwind(|| read(bytes, target.channels == 1)).map_err(|_| "the decoder panicked".to_string())??;
    let Decoded { width, height, channels, mut pixels } = match (decoded.channels, target.channels) {
        (3, 1) => Decoded { channels: 1, pixels: gray::<3>(&decoded.pixels), ..decoded },
        (4, 1) => Decoded { channels: 1, pixels: gray::<4>(&decoded.pixels), ..decoded },
        _ => decoded,
    };
    let (pixels, width, height) = match target.side.filter(|&side| side != width || side != height) {
        Some(side) => {
            let scaled = square(&mut pixels, width, height, channels, side)?;
            buffers::keep(pixels);
            (scaled, side, side)
        }
        None => (pixels, width, height),
    };
    let pixels = match (channels, target.channels) {
        (1, 3) => pixels.repeat(3),
        (1, _) => pixels,
        _ => {
            let planar = planes(&pixels, channels);
            buffers::keep(pixels);
            planar
        }
    };
    Ok(Raw { channels: target.channels, height, width, pixels })
}

fn gray<const N: usize>(pixels: &[u8]) -> Vec<u8> {
    pixels.as_chunks::<N>().0.iter().map(|pixel| luma(pixel[0], pixel[1], pixel[2])).collect()
}

fn read(bytes: &[u8], want_gray: bool) -> Result<Decoded, String> {
    match bytes {
        [] => Err("empty file".to_string()),
        [0xff, 0xd8, 0xff, ..] => read_jpeg(bytes, want_gray),
        [0x89, b'P', b'N', b'G', ..] => read_png(bytes),
        [b'B', b'M', ..] => read_bmp(bytes),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => read_webp(bytes),
        _ => {
            let start: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            Err(format!("not a JPEG, PNG, BMP or WebP image: it starts with {}", start.join(" ")))
        }
    }
}

pub(crate) fn check_size(width: u64, height: u64) -> Result<(), String> {
    match width * height {
        0 => Err(format!("{width}×{height} pixels")),
        pixels if pixels > MAX_PIXELS => {
            Err(format!("{width}×{height} pixels, more than the {MAX_PIXELS} that are accepted"))
        }
        _ => Ok(()),
    }
}

fn read_png(bytes: &[u8]) -> Result<Decoded, String> {
    let said = |error: png::DecodingError| format!("corrupt image: {error}");
    let limits = png::Limits { bytes: 8 * MAX_PIXELS as usize };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    // Palettes to colours, 1, 2 and 4 bits to 8, a transparent colour to opacity.
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(said)?;
    let (width, height) = reader.info().size();
    check_size(width.into(), height.into())?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("corrupt image: too large")?];
    let frame = reader.next_frame(&mut pixels).map_err(said)?;
    pixels.truncate(frame.buffer_size());
    if frame.bit_depth == png::BitDepth::Sixteen {
        let rounded = |pair: &[u8]| ((u32::from(u16::from_be_bytes([pair[0], pair[1]])) + 128) / 257) as u8;
        pixels = pixels.chunks_exact(2).map(rounded).collect();
    }
    let decoded = opaque(width as usize, height as usize, frame.color_type.samples(), pixels)?;
    let orientation = reader.info().exif_metadata.as_deref().and_then(exif::orientation);
    Ok(turn(decoded, orientation))
}

fn read_webp(bytes: &[u8]) -> Result<Decoded, String> {
    let said = |error: image_webp::DecodingError| format!("corrupt image: {error}");
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(said)?;
    decoder.set_memory_limit(8 * MAX_PIXELS as usize);
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let mut pixels = vec![0; decoder.output_buffer_size().ok_or("corrupt image: too large")?];
    decoder.read_image(&mut pixels).map_err(said)?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let decoded = opaque(width as usize, height as usize, channels, pixels)?;
    let exif = decoder.exif_metadata().ok().flatten();
    Ok(turn(decoded, exif.as_deref().and_then(exif::orientation)))
}

fn read_bmp(bytes: &[u8]) -> Result<Decoded, String> {
    let said = |error: BmpDecoderErrors| format!("corrupt image: {}", format!("{error:?}").trim());
    let options = DecoderOptions::default().set_max_width(usize::MAX).set_max_height(usize::MAX);
    // The decoder reads colour masks from behind every header, where a picture of one or two pixels has ended.
    let padded: Vec<u8>;
    let readable = if bytes.len() < BMP_HEADERS {
        padded = [bytes, &[0; BMP_HEADERS]].concat();
        &padded
    } else {
        bytes
    };
    let mut decoder = BmpDecoder::new_with_options(ZCursor::new(readable), options);
    decoder.decode_headers().map_err(said)?;
    let (width, height) = decoder.dimensions().ok_or("corrupt image: no size")?;
    check_size(width as u64, height as u64)?;
    if bytes.len() < BMP_HEADERS {
        let (offset, bits) = (bytes.get(10).ok_or("truncated image")?, bytes.get(28).ok_or("truncated image")?);
        if bytes.len() < usize::from(*offset) + (width * usize::from(*bits)).div_ceil(32) * 4 * height {
            return Err("truncated image".to_string());
        }
    }
    let channels = decoder.colorspace().map_or(3, |space| space.num_components());
    opaque(width, height, channels, decoder.decode().map_err(said)?)
}

/// Interleaved pixels without their opacity.
fn opaque(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Result<Decoded, String> {
    if pixels.len() != width * height * channels {
        return Err("corrupt image: the pixels do not fit its size".to_string());
    }
    Ok(match channels {
        2 => Decoded { width, height, channels: 1, pixels: over_white::<2>(&pixels) },
        4 => Decoded { width, height, channels: 3, pixels: over_white::<4>(&pixels) },
        _ => Decoded { width, height, channels, pixels },
    })
}

/// An image as it is to be looked at.
pub(crate) fn turn(decoded: Decoded, orientation: Option<Orientation>) -> Decoded {
    let Some(orientation) = orientation.filter(|orientation| !orientation.is_upright()) else { return decoded };
    let Decoded { width, height, channels, pixels } = decoded;
    let (rows, columns) = if orientation.swaps_sides() { (width, height) } else { (height, width) };
    let mut turned = Vec::with_capacity(pixels.len());
    for row in 0..rows {
        for column in 0..columns {
            let (y, x) = orientation.source(row, column, height, width);
            turned.extend_from_slice(&pixels[(y * width + x) * channels..][..channels]);
        }
    }
    Decoded { width: columns, height: rows, channels, pixels: turned }
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

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat};

    use super::*;

    macro_rules! picture {
        ($name:literal) => {
            (
                $name,
                include_bytes!(concat!("../tests/pillow/", $name, ".jpg")).as_slice(),
                include_bytes!(concat!("../tests/pillow/", $name, ".png")).as_slice(),
            )
        };
    }

    /// Names, JPEG files, and as PNG what Pillow decodes them to.
    const PICTURES: [(&str, &[u8], &[u8]); 6] = [
        picture!("420"),
        picture!("444"),
        picture!("restarts"),
        picture!("gray"),
        picture!("progressive"),
        picture!("turned"),
    ];

    #[test]
    fn jpegs_have_the_pixels_that_pillow_decodes() {
        for (name, jpeg, png) in PICTURES {
            let (got, expected) = (read(jpeg, false).unwrap(), read(png, false).unwrap());
            assert_eq!((got.width, got.height), (expected.width, expected.height));
            assert_eq!(got.channels == 1, expected.channels == 1, "{name}");
            let (got, expected) = (planes(&got.pixels, got.channels), planes(&expected.pixels, expected.channels));
            assert_eq!(got.len(), expected.len(), "{name}");
            let apart = got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            // Pillow decodes by libjpeg-turbo, which rounds a little otherwise, and sub-sampled colour more so.
            assert!(apart <= 4, "{name}: values {apart} apart");
        }
    }

    /// Every kind of pixels that `image` can write, decoded by it and by us.
    #[test]
    fn files_have_the_pixels_that_another_decoder_reads() {
        let (width, height) = (7, 5);
        let values = |channels: usize| (0..35 * channels).map(|i| (i * 37 % 256) as u8).collect::<Vec<u8>>();
        let wide = |channels: usize| -> Vec<u16> { (0..35 * channels).map(|i| (i * 7919 % 65_536) as u16).collect() };
        let pictures: [DynamicImage; 8] = [
            image::GrayImage::from_raw(width, height, values(1)).unwrap().into(),
            image::GrayAlphaImage::from_raw(width, height, values(2)).unwrap().into(),
            image::RgbImage::from_raw(width, height, values(3)).unwrap().into(),
            image::RgbaImage::from_raw(width, height, values(4)).unwrap().into(),
            image::ImageBuffer::<image::Luma<u16>, _>::from_raw(width, height, wide(1)).unwrap().into(),
            image::ImageBuffer::<image::LumaA<u16>, _>::from_raw(width, height, wide(2)).unwrap().into(),
            image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(width, height, wide(3)).unwrap().into(),
            image::ImageBuffer::<image::Rgba<u16>, _>::from_raw(width, height, wide(4)).unwrap().into(),
        ];
        let mut compared = 0;
        for picture in &pictures {
            for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP] {
                let mut file = Cursor::new(Vec::new());
                if picture.write_to(&mut file, format).is_ok() {
                    compare(file.get_ref(), format);
                    compared += 1;
                }
            }
        }
        assert!(compared >= 8 + 3 + 3, "{compared}");
        // A palette, as BMP stores it.
        let mut file = Vec::new();
        let palette: Vec<[u8; 3]> = (0..=255).map(|i| [i, 255 - i, i / 2]).collect();
        image::codecs::bmp::BmpEncoder::new(&mut file)
            .encode_with_palette(&values(1), width, height, ExtendedColorType::L8, Some(&palette))
            .unwrap();
        compare(&file, ImageFormat::Bmp);
        // A palette, as PNG stores it, with one transparent entry.
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette(palette.concat());
        encoder.set_trns(vec![255, 9]);
        encoder.write_header().unwrap().write_image_data(&values(1)).unwrap();
        compare(&file, ImageFormat::Png);
        // One bit a pixel.
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        encoder.write_header().unwrap().write_image_data(&[0x5a, 0xff, 0, 0x10, 0x88]).unwrap();
        compare(&file, ImageFormat::Png);
    }

    fn compare(file: &[u8], format: ImageFormat) {
        let other = image::load_from_memory_with_format(file, format).unwrap();
        let expected = match (other.color().has_alpha(), other.color().has_color()) {
            (false, false) => other.to_luma8().into_raw(),
            (false, true) => other.to_rgb8().into_raw(),
            (true, false) => over_white::<2>(other.to_luma_alpha8().as_raw()),
            (true, true) => over_white::<4>(other.to_rgba8().as_raw()),
        };
        let decoded = read(file, false).unwrap();
        assert_eq!((decoded.width, decoded.height), (7, 5));
        assert_eq!(decoded.pixels, expected, "{format:?}, {:?}", other.color());
    }

    #[test]
    fn a_cut_scan_that_an_end_marker_closes_is_refused() {
        for (name, file, _) in PICTURES.into_iter().filter(|(name, ..)| *name != "turned") {
            assert!(decode(file, &Target { channels: 3, side: None }).is_ok(), "{name}");
            let scan = file.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            for length in scan..file.len() - 2 {
                let cut = [&file[..length], &[0xff, 0xd9]].concat();
                let result = decode(&cut, &Target { channels: 3, side: None });
                let refusal = result.map(|_| ()).expect_err(&format!("{name}, the first {length} bytes"));
                assert!(refusal.contains("truncated"), "{name}: {refusal}");
            }
        }
    }

    #[test]
    fn pictures_are_turned_as_another_program_turns_them() {
        for value in 2..=8_u8 {
            let picture = image::RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 40, y as u8 * 80, 9]));
            let mut file = Vec::new();
            let mut encoder = image::codecs::png::PngEncoder::new(&mut file);
            let tag = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[value, 0, 0, 0]].concat();
            encoder.set_exif_metadata(tag).unwrap();
            encoder.write_image(&picture, 5, 3, ExtendedColorType::Rgb8).unwrap();
            let mut expected = DynamicImage::from(picture);
            expected.apply_orientation(image::metadata::Orientation::from_exif(value).unwrap());
            let decoded = read(&file, false).unwrap();
            assert_eq!((decoded.width as u32, decoded.height as u32), (expected.width(), expected.height()), "{value}");
            assert_eq!(decoded.pixels, expected.into_bytes(), "{value}");
        }
    }
}
