//! Decodes, converts and packs the images of a source, in parallel and in bounded memory.
//!
//! A reader thread sends chunks of contents; the workers of the rayon pool turn them into pixels; this thread writes each
//! image at its place and notes it in the [`Journal`]. Every byte of the result depends on the source and the settings only,
//! not on the threads nor on how often the work was interrupted.

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
    journal::{Hash, Head, Journal},
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
/// So many bytes of pixels are held at a time, or an image for each thread where that is more.
const PIXEL_BYTES: usize = 64 << 20;
/// Neighbours are written together up to so many bytes.
const RUN_BYTES: usize = 4 << 20;

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
    hash: Hash,
    sums: Sums,
}

/// Packs into `folder`, which must exist; goes on from what an earlier call for the same job has left there.
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
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| DatasetError::io("create", &path, error))?;
    let mut packer = Packer {
        job,
        folder,
        file,
        file_path: &path,
        journal: None,
        shape: None,
        hashes: vec![None; job.survey.entries.len()],
        sums: Sums::default(),
        broken: job.survey.broken.iter().map(|(path, reason)| broken(job.path, path, reason)).collect(),
    };
    packer.recover(progress)?;
    let done: Vec<bool> = packer.hashes.iter().map(Option::is_some).collect();
    let (sender, receiver) = sync_channel(1);
    let (read, packed) = std::thread::scope(|scope| {
        let reader = scope.spawn(move || send_chunks(job.feed, &done, sender));
        let packed = packer.consume(receiver, progress);
        (reader.join(), packed)
    });
    read.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    packed?;
    packer.finish()
}

fn broken(root: &Path, path: &Path, reason: &str) -> Broken {
    Broken { path: path.strip_prefix(root).unwrap_or(path).display().to_string(), reason: reason.to_string() }
}

fn refusal(path: &Path, reason: &str) -> DatasetError {
    DatasetError::file(path, format!("{reason} (dataset.on_broken = \"skip\" leaves such files out)"))
}

type Chunk = Vec<(usize, Payload)>;

/// Sends all images but those that are done.
fn send_chunks(feed: &dyn Feed, done: &[bool], sender: SyncSender<Chunk>) -> Result<(), DatasetError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    feed.run(&mut |position, payload| {
        if done[position] {
            return true;
        }
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
    folder: &'a Path,
    file: File,
    file_path: &'a Path,
    /// Begun with the first image, whose size it tells.
    journal: Option<Journal>,
    /// Height and width, known from the first image on.
    shape: Option<(usize, usize)>,
    /// BLAKE3 of each image that was packed.
    hashes: Vec<Option<Hash>>,
    /// Over the training part.
    sums: Sums,
    broken: Vec<Broken>,
}

impl Packer<'_> {
    /// Takes over what an earlier call has written, as far as it has the hashes that were noted.
    fn recover(&mut self, progress: &dyn Fn(Progress)) -> Result<(), DatasetError> {
        let failed = |error| DatasetError::io("read", self.file_path, error);
        let Some((journal, head, noted)) = Journal::open(self.folder) else { return Ok(()) };
        let Target { channels, side } = self.job.target;
        let fits = head.entries == self.hashes.len()
            && head.channels == channels
            && side.is_none_or(|side| (head.height, head.width) == (side, side))
            && head
                .height
                .checked_mul(head.width)
                .is_some_and(|pixels| (1..=decode::MAX_PIXELS as usize).contains(&pixels));
        if !fits {
            return Ok(());
        }
        let bytes = head.channels * head.height * head.width;
        let first = Placement::new(head.entries, bytes).images;
        let whole = self.file.metadata().map_err(failed)?.len().saturating_sub(first) / bytes as u64;
        let noted: Vec<(usize, Hash)> = noted
            .into_iter()
            .enumerate()
            .take_while(|&(position, _)| (position as u64) < whole)
            .filter_map(|(position, hash)| Some((position, hash?)))
            .collect();
        let total = noted.len() as u64;
        progress(Progress { stage: Stage::Recover, done: 0, total });
        let mut pixels = Vec::new();
        for (index, batch) in noted.chunks((PIXEL_BYTES / bytes).max(1)).enumerate() {
            pixels.resize(batch.len() * bytes, 0);
            for (image, &(position, _)) in pixels.chunks_exact_mut(bytes).zip(batch) {
                self.file.seek(SeekFrom::Start(first + (position * bytes) as u64)).map_err(failed)?;
                self.file.read_exact(image).map_err(failed)?;
            }
            let entries = &self.job.survey.entries;
            let found: Vec<_> = pixels
                .par_chunks_exact(bytes)
                .zip(batch)
                .map(|(image, (position, hash))| {
                    let sums = || {
                        if entries[*position].part == Part::Train { Sums::of(image, channels) } else { Sums::default() }
                    };
                    (blake3::hash(image).as_bytes() == hash).then(|| (*position, *hash, sums()))
                })
                .collect();
            for (position, hash, sums) in found.into_iter().flatten() {
                self.hashes[position] = Some(hash);
                self.sums.add(&sums);
            }
            progress(Progress {
                stage: Stage::Recover,
                done: ((index + 1) * batch.len()).min(noted.len()) as u64,
                total,
            });
        }
        self.shape = Some((head.height, head.width));
        self.journal = Some(journal);
        Ok(())
    }

    fn consume(&mut self, chunks: Receiver<Chunk>, progress: &dyn Fn(Progress)) -> Result<(), DatasetError> {
        let total = self.hashes.len() as u64;
        let mut done = self.hashes.iter().flatten().count() as u64;
        progress(Progress { stage: Stage::Pack, done, total });
        let target = self.job.target;
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let batch: Vec<_> = chunk.drain(..self.batch_images().min(chunk.len())).collect();
                done += batch.len() as u64;
                let results: Vec<_> =
                    batch.into_par_iter().map(|(position, payload)| (position, work(payload, &target))).collect();
                self.write(results)?;
                progress(Progress { stage: Stage::Pack, done, total });
            }
        }
        Ok(())
    }

    /// So many images are turned into pixels at a time.
    fn batch_images(&self) -> usize {
        let Target { channels, side } = self.job.target;
        match side.map(|side| (side, side)).or(self.shape) {
            Some((height, width)) => {
                (PIXEL_BYTES / (channels * height * width).max(1)).max(rayon::current_num_threads())
            }
            // The first image tells the size of all.
            None => 1,
        }
    }

    fn write(&mut self, results: Vec<(usize, Result<Done, String>)>) -> Result<(), DatasetError> {
        let failed = |error| DatasetError::unwritten(self.file_path, error);
        let images = self.hashes.len();
        // Neighbours are written together.
        let mut run = Vec::new();
        let mut run_end = 0u64;
        let mut written = Vec::new();
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
            written.push((position, done.hash));
            if entry.part == Part::Train {
                self.sums.add(&done.sums);
            }
            let bytes = done.raw.pixels.len();
            let offset = Placement::new(images, bytes).images + (position * bytes) as u64;
            if offset != run_end || run.is_empty() || run.len() >= RUN_BYTES {
                flush(&mut self.file, &mut run, run_end).map_err(failed)?;
            }
            run.extend_from_slice(&done.raw.pixels);
            run_end = offset + bytes as u64;
        }
        flush(&mut self.file, &mut run, run_end).map_err(failed)?;
        let Some((height, width)) = self.shape else { return Ok(()) };
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => {
                let head = Head { entries: images, channels: self.job.target.channels, height, width };
                let begun = Journal::create(self.folder, head)
                    .map_err(|(path, error)| DatasetError::unwritten(&path, error))?;
                none.insert(begun)
            }
        };
        journal.add(&written).map_err(|error| DatasetError::unwritten(&journal.path, error))
    }

    /// Closes the gaps that broken files left, then writes labels, manifest and header.
    fn finish(mut self) -> Result<Manifest, DatasetError> {
        let failed = |error| DatasetError::unwritten(self.file_path, error);
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
            .map_err(|error| DatasetError::io("write", &self.folder.join(MANIFEST), std::io::Error::other(error)))?;
        let manifest_hash = blake3::hash(&json).to_hex();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.write_all(&header(&manifest, &manifest_hash)).map_err(failed)?;
        debug_assert_eq!(placement.labels, HEADER_BYTES);
        self.file.write_all(&labels).map_err(failed)?;
        // On the disk before the entry gets its name: a crash must not leave a whole name on half a file.
        self.file.sync_all().map_err(failed)?;
        let path = self.folder.join(MANIFEST);
        std::fs::write(&path, &json).map_err(|error| DatasetError::unwritten(&path, error))?;
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
