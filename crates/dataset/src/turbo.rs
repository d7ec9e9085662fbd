//! libjpeg-turbo, for those who build with it: the same pictures in less time.

use std::cell::RefCell;

use turbojpeg::{Decompressor, Image, PixelFormat};

use crate::buffers;

/// As many scans of a progressive file as the usual decoder takes: more would be an attack on the processor's time.
const MAX_SCANS: u32 = 100;

thread_local! {
    static DECOMPRESSOR: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// The pixels, [H, W, C] of 1 channel, or of 4 of which the last says nothing; none where the library has anything to complain about, be it a warning. What is to be
/// said of such a file, and whether it is to be read all the same, the usual decoder says.
pub(crate) fn decode(bytes: &[u8], width: usize, height: usize, channels: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            none => {
                let mut new = Decompressor::new().ok()?;
                new.set_scan_limit(MAX_SCANS).ok()?;
                none.insert(new)
            }
        };
        let mut pixels = buffers::zeros(width * height * channels);
        let format = if channels == 1 { PixelFormat::GRAY } else { PixelFormat::RGBX };
        let image = Image { pixels: &mut pixels[..], width, pitch: width * channels, height, format };
        decompressor.decompress(bytes, image).ok()?;
        Some(pixels)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_files_are_decoded_here_and_what_is_odd_is_left_to_the_usual_decoder() {
        let file = include_bytes!("../tests/pillow/420.jpg").as_slice();
        assert_eq!(decode(file, 67, 45, 4).map(|pixels| pixels.len()), Some(67 * 45 * 4));
        assert_eq!(decode(file, 67, 45, 1).map(|pixels| pixels.len()), Some(67 * 45));
        assert!(decode(file, 60, 40, 4).is_none(), "another size than the file's");
        let cut = [&file[..file.len() - 90], &[0xff, 0xd9]].concat();
        assert!(decode(&cut, 67, 45, 4).is_none(), "missing data are no more than a warning there");
        assert_eq!(crate::jpeg::DECODER, Some("libjpeg-turbo"));
    }
}
