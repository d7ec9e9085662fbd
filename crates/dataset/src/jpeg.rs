//! JPEG files to pixels, cut and corrupt ones refused.

use zune_jpeg::{
    JpegDecoder,
    zune_core::{colorspace::ColorSpace, options::DecoderOptions},
};

use crate::{
    buffers,
    cursor::Cursor,
    decode::{Decoded, check_size, turn},
    exif, scans,
};

/// So many bytes of ones close the data of a JPEG: more than a decoder reads ahead.
const SEAL_BYTES: usize = 16;

/// Decodes a JPEG to colours, or to its brightness alone where it has no more or `want_gray` says that no more is wanted.
pub(crate) fn read_jpeg(bytes: &[u8], want_gray: bool) -> Result<Decoded, String> {
    // The decoder fills what is missing with gray, so truncation has to be looked for: no end marker after the last scan.
    let end = bytes.windows(2).rposition(|pair| pair == [0xff, 0xd9]);
    let end = end.filter(|&end| !bytes[end..].windows(2).any(|pair| pair == [0xff, 0xda]));
    let end = end.ok_or("truncated JPEG: it has no end marker")?;
    let said = |error: zune_jpeg::errors::DecodeErrors| {
        let text = error.to_string();
        let text = text.trim().trim_matches('"').trim_end_matches('.').trim_end_matches(", corrupt JPEG");
        format!("truncated or corrupt JPEG: {text}")
    };
    if !scans::are_complete(bytes) {
        return Err("truncated JPEG: scans are missing".to_string());
    }
    // Nor does it tell data that were cut and closed by an end marker: ones before that marker are no code, and are not read
    // unless data are missing.
    let (data, ending) = bytes.split_at(end);
    let mut closed = buffers::empty(bytes.len() + 2 * SEAL_BYTES);
    closed.extend_from_slice(data);
    closed.extend([0xff, 0].repeat(SEAL_BYTES));
    closed.extend_from_slice(ending);
    // The decoder chooses its conversion of colours while it reads the headers, so what is wanted must be known before: four channels,
    // which only YCbCr is soundly converted to.
    let options = |space| {
        DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX)
            .jpeg_set_out_colorspace(space)
    };
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(&closed), options(ColorSpace::RGBA));
    decoder.decode_headers().map_err(said)?;
    let (width, height) = decoder.dimensions().ok_or("corrupt JPEG: no size")?;
    check_size(width as u64, height as u64)?;
    let (space, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        // A JPEG's own brightness is BT.601 luma: no need to go through colour.
        Some(ColorSpace::YCbCr) if want_gray => (ColorSpace::Luma, 1),
        Some(ColorSpace::YCbCr) => (ColorSpace::RGBA, 4),
        _ => {
            decoder = JpegDecoder::new_with_options(Cursor::new(&closed), options(ColorSpace::RGB));
            decoder.decode_headers().map_err(said)?;
            (ColorSpace::RGB, 3)
        }
    };
    // Headers may be odd; what is wrong in a scan is not to be painted gray.
    decoder.set_options(options(space).set_strict_mode(true));
    if decoder.output_buffer_size() != Some(width * height * channels) {
        return Err("corrupt JPEG: the pixels do not fit its size".to_string());
    }
    let mut pixels = buffers::zeros(width * height * channels);
    decoder.decode_into(&mut pixels).map_err(said)?;
    let orientation = decoder.exif().and_then(|block| exif::orientation(block));
    drop(decoder);
    buffers::keep(closed);
    Ok(turn(Decoded { width, height, channels, pixels }, orientation))
}
