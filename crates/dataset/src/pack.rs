//! Decodes, converts and packs the images of a source, in parallel and in bounded memory.
//!
//! A reader thread sends chunks of contents; the workers of the rayon pool turn them into pixels and write each image at its
//! place, while it is in their caches; this thread notes what was written in the [`Journal`]. Every byte of the result depends
//! on the source and the settings only, not on the threads nor on how often the work was interrupted.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use plan::OnBroken;
use rayon::prelude::*;

use crate::{
    Broken, DatasetError, Manifest, Part, Progress, Stage, buffers,
    container::{HEADER_BYTES, Placement, header},
    decode,
    geometry::Size,
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
/// So many bytes of pixels are noted at a time, or an image for each thread where that is more.
const PIXEL_BYTES: usize = 64 << 20;
/// A file's length is believed up to so many bytes.
const KNOWN_BYTES: u64 = 16 << 20;
/// Neighbours are written together up to so many bytes: few calls for small images, and little enough for a core's cache.
const RUN_BYTES: usize = 256 << 10;

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

/// One image that was written.
struct Done {
    size: Size,
    hash: Hash,
    sums: Sums,
}

/// Why one was not.
enum Failure {
    /// It cannot be read.
    Broken(String),
    /// It has another size than those before it.
    Size(Size),
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
        file: Mutex::new(file),
        file_path: &path,
        journal: None,
        size: None,
        hashes: vec![None; job.survey.entries.len()],
        sums: Sums::default(),
        broken: job.survey.broken.iter().map(|(path, reason)| broken(job.path, path, reason)).collect(),
    };
    packer.recover(progress)?;
    let done: Vec<bool> = packer.hashes.iter().map(Option::is_some).collect();
    let (sender, receiver) = sync_channel(1);
    let (read, packed) = std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .spawn_scoped(scope, move || send_chunks(job.feed, &done, sender))
            .map_err(|error| DatasetError::Threads { reason: error.to_string() })?;
        let packed = packer.consume(receiver, progress);
        Ok((reader.join(), packed))
    })?;
    rayon::broadcast(|_| buffers::release());
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

fn pixels(payload: Payload, target: &Target) -> Result<Raw, String> {
    match payload {
        Payload::Raw(raw) => convert(raw, target),
        Payload::Encoded(bytes) => decode::decode(&bytes, target),
        Payload::File(path) => {
            let bytes = contents(&path).map_err(|error| error.to_string())?;
            let decoded = decode::decode(&bytes, target);
            buffers::keep(bytes);
            decoded
        }
        Payload::Glyph(glyphs, position) => {
            let pixels = glyphs.draw(position);
            Ok(Raw { channels: glyphs.channels, height: glyphs.size, width: glyphs.size, pixels })
        }
    }
}

/// A file's contents, in memory that is to be kept.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len().min(KNOWN_BYTES);
    // One more than it has, so that its end is seen without more memory.
    let mut bytes = buffers::empty(length as usize + 1);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where the workers write to.
struct Place<'a> {
    file: &'a Mutex<File>,
    /// Images of the source.
    images: usize,
    target: Target,
    /// Of all images, once it is known.
    size: Option<Size>,
}

type Results = Vec<(usize, Result<Done, Failure>)>;

impl Place<'_> {
    /// Turns a piece of a chunk into pixels and writes them.
    fn work(&self, piece: Chunk) -> io::Result<Results> {
        let mut run = Run { file: self.file, bytes: Vec::new(), end: 0 };
        let mut results = Vec::with_capacity(piece.len());
        for (position, payload) in piece {
            let result = match pixels(payload, &self.target) {
                Err(reason) => Err(Failure::Broken(reason)),
                Ok(Raw { channels, height, width, pixels }) => {
                    let size = Size { height, width };
                    if self.size.is_none_or(|all| all == size) {
                        let hash = *blake3::hash(&pixels).as_bytes();
                        let sums = Sums::of(&pixels, channels);
                        let first = Placement::new(self.images, pixels.len()).images;
                        run.add(first + (position * pixels.len()) as u64, pixels)?;
                        Ok(Done { size, hash, sums })
                    } else {
                        Err(Failure::Size(size))
                    }
                }
            };
            results.push((position, result));
        }
        run.flush()?;
        buffers::keep(run.bytes);
        Ok(results)
    }
}

/// Neighbours on their way to the file.
struct Run<'a> {
    file: &'a Mutex<File>,
    bytes: Vec<u8>,
    /// Where the last one ends in the file.
    end: u64,
}

impl Run<'_> {
    fn add(&mut self, offset: u64, pixels: Vec<u8>) -> io::Result<()> {
        if offset != self.end || self.bytes.len() + pixels.len() > RUN_BYTES {
            self.flush()?;
        }
        self.end = offset + pixels.len() as u64;
        if self.bytes.is_empty() {
            buffers::keep(std::mem::replace(&mut self.bytes, pixels));
        } else {
            self.bytes.extend_from_slice(&pixels);
            buffers::keep(pixels);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        // The system lets one write to a file at a time anyway. A place is sought before each write, so a panic of another
        // worker leaves nothing behind that matters.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.end - self.bytes.len() as u64))?;
        file.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

struct Packer<'a> {
    job: &'a Job<'a>,
    folder: &'a Path,
    file: Mutex<File>,
    file_path: &'a Path,
    /// Begun with the first image, whose size it tells.
    journal: Option<Journal>,
    /// Known from the first image on.
    size: Option<Size>,
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
        let Some((journal, head, noted)) = Journal::open(self.folder, self.hashes.len()) else { return Ok(()) };
        let Target { channels, side } = self.job.target;
        let fits = head.channels == channels
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
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let whole = file.metadata().map_err(failed)?.len().saturating_sub(first) / bytes as u64;
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
                file.seek(SeekFrom::Start(first + (position * bytes) as u64)).map_err(failed)?;
                file.read_exact(image).map_err(failed)?;
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
        // Where nothing is sound, the size may not be either.
        if self.hashes.iter().any(Option::is_some) {
            self.size = Some(Size { height: head.height, width: head.width });
            self.journal = Some(journal);
        }
        Ok(())
    }

    fn consume(&mut self, chunks: Receiver<Chunk>, progress: &dyn Fn(Progress)) -> Result<(), DatasetError> {
        let total = self.hashes.len() as u64;
        let mut done = self.hashes.iter().flatten().count() as u64;
        progress(Progress { stage: Stage::Pack, done, total });
        for mut chunk in chunks {
            while !chunk.is_empty() {
                let batch: Vec<_> = chunk.drain(..self.batch_images().min(chunk.len())).collect();
                done += batch.len() as u64;
                let place = Place {
                    file: &self.file,
                    images: self.hashes.len(),
                    target: self.job.target,
                    size: self.known_size(),
                };
                let piece = self.piece_images().min(batch.len().div_ceil(4 * rayon::current_num_threads()));
                let results: Vec<_> = batch.into_par_iter().chunks(piece).map(|piece| place.work(piece)).collect();
                for results in results {
                    self.note(results.map_err(|error| DatasetError::unwritten(self.file_path, error))?)?;
                }
                progress(Progress { stage: Stage::Pack, done, total });
            }
        }
        Ok(())
    }

    /// The size of the prepared images, as far as it is known.
    fn known_size(&self) -> Option<Size> {
        self.job.target.side.map(|side| Size { height: side, width: side }).or(self.size)
    }

    /// So many images make `bytes` of pixels, and never none.
    fn images_in(&self, bytes: usize) -> Option<usize> {
        self.known_size()
            .map(|size| bytes / (self.job.target.channels * size.pixels()).max(1))
            .map(|images| images.max(1))
    }

    /// So many images are noted at a time.
    fn batch_images(&self) -> usize {
        // The first image tells the size of all.
        self.images_in(PIXEL_BYTES).map_or(1, |images| images.max(rayon::current_num_threads()))
    }

    /// So many neighbours are for one worker.
    fn piece_images(&self) -> usize {
        self.images_in(RUN_BYTES).unwrap_or(1)
    }

    /// Notes what was written, in the order of the source.
    fn note(&mut self, results: Results) -> Result<(), DatasetError> {
        let mut written = Vec::new();
        for (position, result) in results {
            let entry = &self.job.survey.entries[position];
            let size = match result {
                Ok(Done { size, hash, sums }) => {
                    self.hashes[position] = Some(hash);
                    written.push((position, hash));
                    if entry.part == Part::Train {
                        self.sums.add(&sums);
                    }
                    size
                }
                Err(Failure::Broken(reason)) if self.job.on_broken == OnBroken::Skip => {
                    self.broken.push(broken(self.job.path, &entry.name, &reason));
                    continue;
                }
                Err(Failure::Broken(reason)) => return Err(refusal(&entry.name, &reason)),
                Err(Failure::Size(size)) => size,
            };
            let all = *self.size.get_or_insert(size);
            if size != all {
                return Err(DatasetError::setting(
                    "dataset.image_size",
                    format!(
                        "is needed, because the images differ in size: {} has {}×{} pixels, the first image {}×{}",
                        entry.name.display(),
                        size.width,
                        size.height,
                        all.width,
                        all.height
                    ),
                ));
            }
        }
        let Some(Size { height, width }) = self.size else { return Ok(()) };
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => {
                let head = Head { entries: self.hashes.len(), channels: self.job.target.channels, height, width };
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
        let Some(Size { height, width }) = self.size else {
            return Err(DatasetError::file(self.job.path, "holds no image that can be read"));
        };
        let kept: Vec<usize> = (0..entries.len()).filter(|&position| self.hashes[position].is_some()).collect();
        self.check_classes(&kept)?;
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let image_bytes = self.job.target.channels * height * width;
        let placement = Placement::new(kept.len(), image_bytes);
        if kept.len() < entries.len() {
            let old = Placement::new(entries.len(), image_bytes);
            let mut image = vec![0; image_bytes];
            // Images only ever move towards the front, so going forward overwrites none that is still needed.
            for (new, &position) in kept.iter().enumerate() {
                file.seek(SeekFrom::Start(old.images + (position * image_bytes) as u64)).map_err(failed)?;
                file.read_exact(&mut image).map_err(failed)?;
                file.seek(SeekFrom::Start(placement.images + (new * image_bytes) as u64)).map_err(failed)?;
                file.write_all(&image).map_err(failed)?;
            }
        }
        file.set_len(placement.end).map_err(failed)?;
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
            .map_err(|error| DatasetError::io("write", &self.folder.join(MANIFEST), io::Error::other(error)))?;
        let manifest_hash = blake3::hash(&json).to_hex();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(&header(&manifest, &manifest_hash, &labels)).map_err(failed)?;
        debug_assert_eq!(placement.labels, HEADER_BYTES);
        file.write_all(&labels).map_err(failed)?;
        // On the disk before the entry gets its name: a crash must not leave a whole name on half a file.
        file.sync_all().map_err(failed)?;
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
