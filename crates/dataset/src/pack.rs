//! Decodes, converts and packs the images of a source, in parallel and in bounded memory.
//!
//! A reader thread sends chunks of contents; the workers of the rayon pool turn them into pixels; this thread writes each
//! image at its place. Every byte of the result depends on the source and the settings only, not on the threads.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use plan::OnBroken;
use rayon::prelude::*;

use crate::{
    Broken, DatasetError, Manifest, Part, Progress, Stage,
    container::{HEADER_BYTES, Placement, header},
    decode,
    manifest::FORMAT_VERSION,
    resize::{Target, convert},
    source::{Feed, Payload, Raw, Survey},
    statistics::Sums,
};

/// Names of the two files of a prepared data set.
pub(crate) const DATA: &str = "data.safetensors";
pub(crate) const MANIFEST: &str = "manifest.json";

/// A chunk goes to the workers when it holds so many images or bytes.
const CHUNK_IMAGES: usize = 512;
const CHUNK_BYTES: usize = 32 << 20;

/// What to pack.
pub(crate) struct Job<'a> {
    pub source: plan::Source,
    /// For messages.
    pub path: &'a Path,
    pub source_fingerprint: &'a str,
    pub survey: &'a Survey,
    pub feed: &'a dyn Feed,
    pub target: Target,
    pub on_broken: OnBroken,
}

/// One image, ready to be written.
struct Done {
    raw: Raw,
    hash: [u8; 32],
    sums: Sums,
}

/// Packs into `folder`, which must exist and be empty.
pub(crate) fn pack(job: &Job<'_>, folder: &Path, progress: &dyn Fn(Progress)) -> Result<Manifest, DatasetError> {
    if job.on_broken == OnBroken::Refuse
        && let Some((path, reason)) = job.survey.broken.first()
    {
        return Err(refusal(path, reason));
    }
    let path = folder.join(DATA);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| DatasetError::io("create", &path, error))?;
    let mut packer = Packer {
        job,
        file,
        file_path: &path,
        shape: None,
        hashes: vec![None; job.survey.entries.len()],
        sums: Sums::default(),
        broken: job.survey.broken.iter().map(|(path, reason)| broken(job.path, path, reason)).collect(),
    };
    let (sender, receiver) = sync_channel(1);
    let (read, packed) = std::thread::scope(|scope| {
        let reader = scope.spawn(move || send_chunks(job.feed, sender));
        let packed = packer.consume(receiver, progress);
        (reader.join(), packed)
    });
    read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    packed?;
    packer.finish(folder)
}

fn broken(root: &Path, path: &Path, reason: &str) -> Broken {
    Broken { path: path.strip_prefix(root).unwrap_or(path).display().to_string(), reason: reason.to_string() }
}

fn refusal(path: &Path, reason: &str) -> DatasetError {
    DatasetError::file(path, format!("{reason} (dataset.on_broken = \"skip\" leaves such files out)"))
}

type Chunk = Vec<(usize, Payload)>;

fn send_chunks(feed: &dyn Feed, sender: SyncSender<Chunk>) -> Result<(), DatasetError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    feed.run(&mut |position, payload| {
        bytes += payload.bytes();
        chunk.push((position, payload));
        if chunk.len() < CHUNK_IMAGES && bytes < CHUNK_BYTES {
            return true;
        }
        bytes = 0;
        // Fails when the packer has given up: then the feed may stop too.
        sender.send(std::mem::take(&mut chunk)).is_ok()
    })?;
    if !chunk.is_empty() {
        let _ = sender.send(chunk);
    }
    Ok(())
}

fn work(payload: Payload, target: &Target) -> Result<Done, String> {
    let raw = match payload {
        Payload::Raw(raw) => convert(raw, target)?,
        Payload::Encoded(bytes) => decode::decode(&bytes, target)?,
        Payload::File(path) => decode::decode(&std::fs::read(path).map_err(|error| error.to_string())?, target)?,
        Payload::Glyph(glyphs, position) => {
            let pixels = glyphs.draw(position);
            Raw { channels: glyphs.channels, height: glyphs.size, width: glyphs.size, pixels }
        }
    };
    let hash = *blake3::hash(&raw.pixels).as_bytes();
    let sums = Sums::of(&raw.pixels, raw.channels);
    Ok(Done { raw, hash, sums })
}

struct Packer<'a> {
    job: &'a Job<'a>,
    file: File,
    file_path: &'a Path,
    /// Height and width, known from the first image on.
    shape: Option<(usize, usize)>,
    /// BLAKE3 of each image that was packed.
    hashes: Vec<Option<[u8; 32]>>,
    /// Over the training part.
    sums: Sums,
    broken: Vec<Broken>,
}

impl Packer<'_> {
    fn consume(&mut self, chunks: Receiver<Chunk>, progress: &dyn Fn(Progress)) -> Result<(), DatasetError> {
        let total = self.hashes.len() as u64;
        let mut done = 0;
        progress(Progress { stage: Stage::Pack, done, total });
        for chunk in chunks {
            let target = self.job.target;
            done += chunk.len() as u64;
            let results: Vec<_> =
                chunk.into_par_iter().map(|(position, payload)| (position, work(payload, &target))).collect();
            self.write(results)?;
            progress(Progress { stage: Stage::Pack, done, total });
        }
        Ok(())
    }

    fn write(&mut self, results: Vec<(usize, Result<Done, String>)>) -> Result<(), DatasetError> {
        let failed = |error| DatasetError::io("write", self.file_path, error);
        let images = self.hashes.len();
        // Neighbours are written together.
        let mut run = Vec::new();
        let mut run_end = 0u64;
        for (position, result) in results {
            let entry = &self.job.survey.entries[position];
            let done = match result {
                Ok(done) => done,
                Err(reason) if self.job.on_broken == OnBroken::Skip => {
                    self.broken.push(broken(self.job.path, &entry.name, &reason));
                    continue;
                }
                Err(reason) => return Err(refusal(&entry.name, &reason)),
            };
            let size = (done.raw.height, done.raw.width);
            let (height, width) = *self.shape.get_or_insert(size);
            if size != (height, width) {
                return Err(DatasetError::setting(
                    "dataset.image_size",
                    format!(
                        "is needed, because the images differ in size: {} has {}×{} pixels, the first image {width}×{height}",
                        entry.name.display(),
                        size.1,
                        size.0
                    ),
                ));
            }
            self.hashes[position] = Some(done.hash);
            if entry.part == Part::Train {
                self.sums.add(&done.sums);
            }
            let bytes = done.raw.pixels.len();
            let offset = Placement::new(images, bytes).images + (position * bytes) as u64;
            if offset != run_end || run.is_empty() {
                flush(&mut self.file, &mut run, run_end).map_err(failed)?;
            }
            run.extend_from_slice(&done.raw.pixels);
            run_end = offset + bytes as u64;
        }
        flush(&mut self.file, &mut run, run_end).map_err(failed)
    }

    /// Closes the gaps that broken files left, then writes labels, manifest and header.
    fn finish(mut self, folder: &Path) -> Result<Manifest, DatasetError> {
        let failed = |error| DatasetError::io("write", self.file_path, error);
        let entries = &self.job.survey.entries;
        let Some((height, width)) = self.shape else {
            return Err(DatasetError::file(self.job.path, "holds no image that can be read"));
        };
        let kept: Vec<usize> = (0..entries.len()).filter(|&position| self.hashes[position].is_some()).collect();
        self.check_classes(&kept)?;
        let image_bytes = self.job.target.channels * height * width;
        let placement = Placement::new(kept.len(), image_bytes);
        if kept.len() < entries.len() {
            let old = Placement::new(entries.len(), image_bytes);
            let mut image = vec![0; image_bytes];
            // Images only ever move towards the front, so going forward overwrites none that is still needed.
            for (new, &position) in kept.iter().enumerate() {
                self.file.seek(SeekFrom::Start(old.images + (position * image_bytes) as u64)).map_err(failed)?;
                self.file.read_exact(&mut image).map_err(failed)?;
                self.file.seek(SeekFrom::Start(placement.images + (new * image_bytes) as u64)).map_err(failed)?;
                self.file.write_all(&image).map_err(failed)?;
            }
        }
        self.file.set_len(placement.end).map_err(failed)?;
        let labels: Vec<u8> =
            kept.iter().flat_map(|&position| i64::from(entries[position].label).to_le_bytes()).collect();
        let train_images = kept.iter().filter(|&&position| entries[position].part == Part::Train).count();
        let channels = self.job.target.channels;
        self.broken.sort_by(|a, b| (&a.path, &a.reason).cmp(&(&b.path, &b.reason)));
        let classes = self.job.survey.classes.clone();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            fingerprint: fingerprint(
                &classes,
                [train_images, kept.len() - train_images, channels, height, width],
                &labels,
                kept.iter().filter_map(|&position| self.hashes[position]),
            ),
            source: self.job.source,
            source_fingerprint: self.job.source_fingerprint.to_string(),
            classes,
            channels,
            height,
            width,
            train_images,
            test_images: kept.len() - train_images,
            mean: self.sums.mean(channels),
            std: self.sums.deviation(channels),
            principal: (channels == 3).then(|| self.sums.principal()),
            broken: self.broken,
            ignored_files: self.job.survey.ignored_files,
        };
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| DatasetError::io("write", &folder.join(MANIFEST), std::io::Error::other(error)))?;
        let manifest_hash = blake3::hash(&json).to_hex();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(&header(&manifest, &manifest_hash)).map_err(failed)?;
        debug_assert_eq!(placement.labels, HEADER_BYTES);
        self.file.write_all(&labels).map_err(failed)?;
        // On the disk before the entry gets its name: a crash must not leave a whole name on half a file.
        self.file.sync_all().map_err(failed)?;
        let path = folder.join(MANIFEST);
        std::fs::write(&path, &json).map_err(|error| DatasetError::io("write", &path, error))?;
        Ok(manifest)
    }

    /// Every class needs an image to learn from.
    fn check_classes(&self, kept: &[usize]) -> Result<(), DatasetError> {
        let mut counts: BTreeMap<u32, usize> =
            (0..self.job.survey.classes.len() as u32).map(|label| (label, 0)).collect();
        for &position in kept {
            let entry = &self.job.survey.entries[position];
            if entry.part == Part::Train {
                *counts.entry(entry.label).or_default() += 1;
            }
        }
        match counts.iter().find(|&(_, &count)| count == 0) {
            None => Ok(()),
            Some((&label, _)) => {
                let class = &self.job.survey.classes[label as usize];
                Err(DatasetError::file(
                    self.job.path,
                    format!("class {class:?} has no training image that can be read"),
                ))
            }
        }
    }
}

fn flush(file: &mut File, run: &mut Vec<u8>, end: u64) -> std::io::Result<()> {
    if !run.is_empty() {
        file.seek(SeekFrom::Start(end - run.len() as u64))?;
        file.write_all(run)?;
        run.clear();
    }
    Ok(())
}

/// BLAKE3 over classes, shape, labels and the hash of each image.
pub(crate) fn fingerprint(
    classes: &[String],
    shape: [usize; 5],
    labels: &[u8],
    images: impl Iterator<Item = [u8; 32]>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    for class in classes {
        hasher.update(&(class.len() as u64).to_le_bytes());
        hasher.update(class.as_bytes());
    }
    for size in shape {
        hasher.update(&(size as u64).to_le_bytes());
    }
    hasher.update(labels);
    for hash in images {
        hasher.update(&hash);
    }
    hasher.finalize().to_hex().to_string()
}
