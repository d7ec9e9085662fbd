//! How many images a second one thread prepares, and how many it augments.
//!
//! ```text
//! cargo run -p dataset --example throughput -- prepare FOLDER [SIDE]
//! cargo run -p dataset --example throughput -- augment [SECONDS]
//! ```
//!
//! `prepare` reads, decodes, resizes, hashes and packs the images in `FOLDER/CLASS/*`. `augment` writes normalised samples of
//! 3×227×227 out of 3×256×256. Printed are images per second of the clock and of processor time; the latter does not suffer
//! from other programs. `throughput.py` beside this file compares `prepare` with torchvision.

use std::{cell::Cell, path::Path, time::Instant};

use dataset::{Draw, Loader, Scratch, Stage, prepare};
use plan::{Augment, Color, Dataset, ResizedCrop, Source};

/// The clock, and the processor time of this thread in seconds.
#[derive(Clone, Copy)]
struct Time {
    clock: Instant,
    processor: Option<f64>,
}

impl Time {
    fn now() -> Self {
        // Linux: nanoseconds that this thread ran come first.
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let processor = stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok());
        Self { clock: Instant::now(), processor: processor.map(|nanoseconds| nanoseconds / 1e9) }
    }

    /// Images per second of the clock and of processor time since then.
    fn rates(self, images: f64) -> (f64, f64) {
        let now = Self::now();
        let by_clock = images / (now.clock - self.clock).as_secs_f64();
        let by_processor = now.processor.zip(self.processor).map(|(now, then)| images / (now - then));
        (by_clock, by_processor.unwrap_or(by_clock))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // Prepares in this thread and no other.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    match words[..] {
        ["prepare", folder] => pool.install(|| preparation(Path::new(folder), None)),
        ["prepare", folder, side] => {
            let side = side.parse()?;
            pool.install(|| preparation(Path::new(folder), Some(side)))
        }
        ["augment"] => pool.install(|| augmentation(1.0)),
        ["augment", seconds] => {
            let seconds = seconds.parse()?;
            pool.install(|| augmentation(seconds))
        }
        _ => Err("usage: throughput prepare FOLDER [SIDE] | throughput augment [SECONDS]".into()),
    }
    .map_err(|error| error.to_string().into())
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn preparation(folder: &Path, image_size: Option<usize>) -> Outcome {
    let settings = Dataset {
        source: Source::Images,
        path: Some(folder.to_path_buf()),
        image_size,
        test_fraction: 0.0,
        ..Dataset::default()
    };
    let cache = tempfile::tempdir()?;
    let (start, rates) = (Cell::new(None), Cell::new((0.0, 0.0)));
    prepare(&settings, cache.path(), &|progress| match (progress.stage, progress.done) {
        (Stage::Pack, 0) => start.set(Some(Time::now())),
        (Stage::Pack, done) => rates.set(start.get().map_or((0.0, 0.0), |start| start.rates(done as f64))),
        _ => {}
    })?;
    let (by_clock, by_processor) = rates.get();
    println!("{by_clock:.1} images/s of the clock, {by_processor:.1} of processor time");
    Ok(())
}

fn augmentation(seconds: f64) -> Outcome {
    let cache = tempfile::tempdir()?;
    let settings = Dataset {
        image_size: Some(256),
        color: Some(Color::Rgb),
        train_images: Some(200),
        test_images: Some(10),
        ..Dataset::default()
    };
    let prepared = prepare(&settings, cache.path(), &|_| {})?;
    let crop = Augment { crop: Some(227), flip: 0.5, ..Augment::default() };
    let moved = Augment { rotation_degrees: 10.0, scale: 0.1, ..crop.clone() };
    let resized = Augment { resized_crop: Some(ResizedCrop::default()), ..crop.clone() };
    for (name, augment) in [
        ("crop, flip", crop.clone()),
        ("crop, flip, PCA", Augment { pca: 0.1, ..crop.clone() }),
        ("crop, flip, hue", Augment { hue: 0.1, ..crop }),
        ("crop, flip, rotation, scale", moved.clone()),
        ("crop, flip, PCA, rotation, scale", Augment { pca: 0.1, ..moved }),
        ("resized crop, flip", resized.clone()),
        ("resized crop, flip, PCA", Augment { pca: 0.1, ..resized }),
    ] {
        let loader = Loader::new(&prepared, &augment)?;
        let (mut scratch, mut target) = (Scratch::default(), vec![0.0; loader.classes()]);
        // As many as a batch: samples go to memory, not to the nearest cache.
        let mut batch = vec![0.0; 64 * loader.sample_values()];
        let mut images = 0;
        let start = Time::now();
        while start.clock.elapsed().as_secs_f64() < seconds {
            for (n, sample) in batch.chunks_exact_mut(loader.sample_values()).enumerate() {
                let draw = Draw { seed: 1, epoch: images, label_smoothing: 0.0, partners: &[] };
                loader.training_sample((3 * images + n as u32) % 200, &draw, &mut scratch, sample, &mut target);
            }
            images += 64;
        }
        let (by_clock, by_processor) = start.rates(f64::from(images));
        println!("{by_clock:8.0} images/s of the clock, {by_processor:8.0} of processor time: {name}");
    }
    Ok(())
}
