//! What a preparation has done so far: beside the unfinished file, so that a process that is killed is gone on from.
//!
//! A head (magic, number of entries, channels, height, width), then a record for each image that was written: its position and
//! the BLAKE3 of its pixels. A record is written after the pixels, but nothing relies on it: what is gone on from is read and
//! hashed once more, so that neither a lost write nor a half one can be taken for an image.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Name of the file.
pub(crate) const JOURNAL: &str = "journal";

const MAGIC: &[u8; 16] = b"pipeline pack 1\n";
const HEAD_BYTES: usize = 48;
const RECORD_BYTES: usize = 40;

/// BLAKE3 of an image's pixels.
pub(crate) type Hash = [u8; 32];

/// What all images of a journal have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Images of the source.
    pub entries: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Head {
    fn to_bytes(self) -> Vec<u8> {
        let sizes = [self.entries, self.channels, self.height, self.width];
        MAGIC.iter().copied().chain(sizes.into_iter().flat_map(|size| (size as u64).to_le_bytes())).collect()
    }

    fn from_bytes(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let size = |index: usize| {
            let start = MAGIC.len() + 8 * index;
            usize::try_from(u64::from_le_bytes(bytes[start..start + 8].try_into().ok()?)).ok()
        };
        let head = Self { entries: size(0)?, channels: size(1)?, height: size(2)?, width: size(3)? };
        bytes.starts_with(MAGIC).then_some(head)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    pub path: PathBuf,
}

impl Journal {
    /// Begins one in `folder`, in place of what may be there.
    pub fn create(folder: &Path, head: Head) -> Result<Self, (PathBuf, io::Error)> {
        let path = folder.join(JOURNAL);
        let created = File::create(&path).and_then(|mut file| file.write_all(&head.to_bytes()).map(|()| file));
        match created {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err((path, error)),
        }
    }

    /// Opens the one in `folder` of a source of so many `entries`, behind its last whole record: the head, and the hash that each
    /// position has by its last record. `None` where there is none that can be used.
    pub fn open(folder: &Path, entries: usize) -> Option<(Self, Head, Vec<Option<Hash>>)> {
        let path = folder.join(JOURNAL);
        let mut file = File::options().read(true).write(true).open(&path).ok()?;
        let records = file.metadata().ok()?.len().checked_sub(HEAD_BYTES as u64)? / RECORD_BYTES as u64;
        let mut reader = BufReader::new(&mut file);
        let mut head = [0; HEAD_BYTES];
        reader.read_exact(&mut head).ok()?;
        // A corrupt head must not ask for all memory: there are no more images than the caller knows of.
        let head = Head::from_bytes(&head).filter(|head| head.entries == entries)?;
        let mut hashes = Vec::new();
        for _ in 0..records {
            let mut record = [0; RECORD_BYTES];
            reader.read_exact(&mut record).ok()?;
            let (position, hash) = record.split_at(8);
            let position = usize::try_from(u64::from_le_bytes(position.try_into().ok()?)).ok()?;
            if position >= head.entries {
                return None;
            }
            if position >= hashes.len() {
                hashes.resize(position + 1, None);
            }
            hashes[position] = Some(hash.try_into().ok()?);
        }
        drop(reader);
        let end = HEAD_BYTES as u64 + records * RECORD_BYTES as u64;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).ok()?;
        Some((Self { file, path }, head, hashes))
    }

    /// Adds images whose pixels are written.
    pub fn add(&mut self, written: &[(usize, Hash)]) -> io::Result<()> {
        let mut records = Vec::with_capacity(written.len() * RECORD_BYTES);
        for (position, hash) in written {
            records.extend((*position as u64).to_le_bytes());
            records.extend(hash);
        }
        self.file.write_all(&records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { entries: 5, channels: 3, height: 2, width: 4 };

    #[test]
    fn a_journal_is_read_as_it_was_written_up_to_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Journal::open(folder.path(), 5).is_none());
        let mut journal = Journal::create(folder.path(), HEAD).unwrap();
        journal.add(&[(3, [7; 32]), (0, [1; 32])]).unwrap();
        journal.add(&[(0, [2; 32])]).unwrap();
        journal.file.write_all(&[9; RECORD_BYTES - 1]).unwrap();
        drop(journal);
        let (mut journal, head, hashes) = Journal::open(folder.path(), 5).unwrap();
        assert_eq!((head, hashes), (HEAD, vec![Some([2; 32]), None, None, Some([7; 32])]));
        journal.add(&[(1, [4; 32])]).unwrap();
        drop(journal);
        let (_, _, hashes) = Journal::open(folder.path(), 5).unwrap();
        assert_eq!(hashes, [Some([2; 32]), Some([4; 32]), None, Some([7; 32])]);
    }

    #[test]
    fn what_is_no_journal_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = HEAD.to_bytes();
        let open = |bytes: &[u8]| {
            std::fs::write(folder.path().join(JOURNAL), bytes).unwrap();
            Journal::open(folder.path(), 5).is_some()
        };
        assert!(open(&bytes) && !open(&bytes[..47]) && !open(b"") && !open(&[0; 48]));
        bytes.extend(5u64.to_le_bytes());
        bytes.extend([0; 32]);
        assert!(!open(&bytes), "there is no image 5 of 5");
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(!open(&bytes), "the source has 5 images, whatever a head says");
    }
}
