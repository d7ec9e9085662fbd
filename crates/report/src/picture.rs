//! Small pictures inside a page: pixels as PNG files in data addresses.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Pixels of an image, [C, H, W].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Channels C: 1 is gray, 3 is red, green and blue; of any other number the mean is shown as gray.
    pub channels: usize,
    /// Height H.
    pub height: usize,
    /// Width W.
    pub width: usize,
    /// C·H·W values.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Whether there are as many pixels as the sizes say, and at least one.
    pub fn sound(&self) -> bool {
        let size = self.channels.checked_mul(self.height).and_then(|rows| rows.checked_mul(self.width));
        size.is_some_and(|size| size > 0 && size == self.pixels.len())
    }

    /// A smaller picture whose sides are at most `side` pixels where this one is larger: each pixel is the mean of a block.
    pub fn at_most(self, side: usize) -> Self {
        let factor = self.height.max(self.width).div_ceil(side.max(1)).max(1);
        if factor == 1 || !self.sound() {
            return self;
        }
        let (height, width) = (self.height.div_ceil(factor), self.width.div_ceil(factor));
        let mut pixels = Vec::with_capacity(self.channels * height * width);
        for plane in self.pixels.chunks_exact(self.height * self.width) {
            for y in 0..height {
                for x in 0..width {
                    let rows = y * factor..((y + 1) * factor).min(self.height);
                    let columns = x * factor..((x + 1) * factor).min(self.width);
                    let count = (rows.len() * columns.len()) as u32;
                    let sum: u32 = rows
                        .flat_map(|row| plane[row * self.width..][columns.clone()].iter())
                        .map(|v| u32::from(*v))
                        .sum();
                    pixels.push(((sum + count / 2) / count) as u8);
                }
            }
        }
        Self { channels: self.channels, height, width, pixels }
    }

    /// The picture as a PNG file in a `data:` address; `None` where it is not [`Self::sound`].
    pub fn address(&self) -> Option<String> {
        if !self.sound() {
            return None;
        }
        let plane = self.height * self.width;
        let (color, bytes) = match self.channels {
            3 => {
                let pixel = |at: usize| [0, 1, 2].map(|channel| self.pixels[channel * plane + at]);
                (png::ColorType::Rgb, (0..plane).flat_map(pixel).collect::<Vec<u8>>())
            }
            channels => {
                let mean = |at: usize| -> u8 {
                    let sum: usize = (0..channels).map(|channel| usize::from(self.pixels[channel * plane + at])).sum();
                    (sum / channels) as u8
                };
                (png::ColorType::Grayscale, (0..plane).map(mean).collect())
            }
        };
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().ok()?;
        writer.write_image_data(&bytes).ok()?;
        writer.finish().ok()?;
        Some(format!("data:image/png;base64,{}", STANDARD.encode(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_its_address() {
        let picture = Picture { channels: 3, height: 1, width: 2, pixels: vec![1, 2, 3, 4, 5, 6] };
        let address = picture.address().unwrap();
        let file = STANDARD.decode(address.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; 6];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height, frame.color_type), (2, 1, png::ColorType::Rgb));
        assert_eq!(pixels, [1, 3, 5, 2, 4, 6], "planes become pixels");
    }

    #[test]
    fn a_large_picture_becomes_means_of_blocks() {
        let picture = Picture { channels: 1, height: 2, width: 3, pixels: vec![10, 20, 30, 30, 40, 50] };
        let small = picture.clone().at_most(2);
        assert_eq!((small.height, small.width, small.pixels.as_slice()), (1, 2, [25, 40].as_slice()));
        assert_eq!(picture.clone().at_most(3), picture);
    }

    #[test]
    fn a_picture_without_its_pixels_is_none() {
        assert_eq!(Picture { channels: 1, height: 2, width: 2, pixels: vec![0; 3] }.address(), None);
        assert_eq!(Picture::default().address(), None);
    }
}
