//! A picture of the first convolution's filters, as figure 3 of Krizhevsky et al. 2012.

use std::path::Path;

use graph::{LayerKind, step::Variables};

use crate::{ExportError, write_whole};

/// White space round each filter, in pixels.
const GAP: usize = 4;
/// Filters are enlarged by a whole factor to at least so many pixels.
const READABLE: usize = 44;
/// Filters in a row where there are many: the paper's 96 make 6 rows of 16.
const COLUMNS: usize = 16;

/// Draws the filters of the first convolution into the PNG file `path`, enlarged, in the order of their channels. Each is
/// scaled by itself: its largest weight of either sign is black or white, zero is gray. Three input channels are drawn as
/// red, green and blue, one as gray, and of any other number the mean.
///
/// # Errors
/// A network without a convolution, or a file that cannot be written.
pub fn write_filters(path: &Path, variables: &Variables) -> Result<(), ExportError> {
    let first = variables.network.layers.iter().find(|layer| matches!(layer.kind, LayerKind::Convolution { .. }));
    let weights = first.and_then(|layer| variables.parameters.iter().find(|p| p.layer == layer.name));
    let Some(weights) = weights else {
        return Err(ExportError::Unsupported("the network has no convolution to draw".to_owned()));
    };
    let picture = draw(&weights.values.read(), weights.values.shape());
    let png = picture.png().map_err(|error| ExportError::Write { path: path.to_owned(), source: error.into() })?;
    write_whole(path, &png)
}

/// Rows of red, green and blue.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn white(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[255; 3]; width * height] }
    }

    fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(self.pixels.as_flattened())?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// The picture of weights [O, C, KH, KW].
fn draw(weights: &[f32], shape: &[usize]) -> Picture {
    let [count, channels, height, width] = *shape else { return Picture::white(1, 1) };
    let columns = if count > COLUMNS { COLUMNS } else { count.min((count as f64).sqrt().ceil() as usize * 2) }.max(1);
    let factor = READABLE.div_ceil(height.max(width)).max(1);
    let cell = [height * factor + GAP, width * factor + GAP];
    let size = [count.div_ceil(columns) * cell[0] + GAP, columns * cell[1] + GAP];
    let mut picture = Picture::white(size[1], size[0]);
    let plane = height * width;
    for (i, filter) in weights.chunks_exact(channels * plane).enumerate() {
        let largest = filter.iter().filter(|w| w.is_finite()).fold(0.0_f32, |largest, w| largest.max(w.abs()));
        let tone = |weight: f32| {
            let weight = if largest > 0.0 { weight / largest } else { 0.0 };
            // NaN becomes black.
            (127.5 + 127.5 * weight).round() as u8
        };
        let corner = [GAP + i / columns * cell[0], GAP + i % columns * cell[1]];
        for y in 0..height * factor {
            for x in 0..width * factor {
                let at = y / factor * width + x / factor;
                let color = if channels == 3 {
                    [0, 1, 2].map(|channel| tone(filter[channel * plane + at]))
                } else {
                    let sum: f32 = (0..channels).map(|channel| filter[channel * plane + at]).sum();
                    [tone(sum / channels as f32); 3]
                };
                picture.pixels[(corner[0] + y) * size[1] + corner[1] + x] = color;
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use graph::Network;
    use plan::{Architecture, Model, Optimizer};

    use super::*;

    #[test]
    fn each_filter_is_scaled_by_itself() {
        // Two filters of 1×2 pixels in one channel, the second a hundred times the first and turned round.
        let picture = draw(&[0.01, -0.005, -0.5, 1.0], &[2, 1, 1, 2]);
        let cell = 44 + GAP;
        let left = |filter: usize, x: usize| picture.pixels[GAP * picture.width + GAP + filter * cell + x];
        assert_eq!([left(0, 0), left(0, 22)], [[255; 3], [64; 3]]);
        assert_eq!([left(1, 21), left(1, 43)], [[64; 3], [255; 3]]);
        assert_eq!(picture.pixels[0], [255; 3], "between filters it is white");
    }

    #[test]
    fn three_channels_are_colours_and_zero_is_gray() {
        let picture = draw(&[1.0, 0.0, -1.0], &[1, 3, 1, 1]);
        assert_eq!(picture.pixels[GAP * picture.width + GAP], [255, 128, 0]);
        let picture = draw(&[0.0; 3], &[1, 3, 1, 1]);
        assert_eq!(picture.pixels[GAP * picture.width + GAP], [128; 3]);
    }

    #[test]
    fn the_papers_filters_make_six_rows_of_sixteen() {
        let model = Model { architecture: Architecture::AlexNet, ..Model::default() };
        let network = Network::new(&model, [3, 227, 227], 10).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pictures").join("filters.png");
        write_filters(&path, &Variables::new(&network, Optimizer::Sgd)).unwrap();
        let picture = image::open(&path).unwrap();
        assert_eq!((picture.width(), picture.height()), (16 * 48 + 4, 6 * 48 + 4));
    }
}
