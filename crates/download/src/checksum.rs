//! Whether a file on the disk is the published one.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use ring::digest::{Context, SHA256};

use crate::{Contents, DownloadError, PublicFile};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// SHA-256 in hex digits, and the number of bytes; of no more than `most` bytes and one.
fn sha256(reader: impl Read, most: u64) -> io::Result<(String, u64)> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut reader = reader.take(most.saturating_add(1));
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                context.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let digits = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((digits, bytes))
}

/// `None` where the file at `path` is `file`, or the same contents in another compression; else what is different.
pub(crate) fn difference(path: &Path, file: &PublicFile<'_>) -> Result<Option<String>, DownloadError> {
    let open = || File::open(path).map_err(|error| DownloadError::io("read", path, error));
    let (found, bytes) = sha256(open()?, u64::MAX).map_err(|error| DownloadError::io("read", path, error))?;
    if found == file.sha256 {
        return Ok(None);
    }
    if let Some(contents) = file.contents {
        // What is no gzip file has no such contents.
        let unpacked = sha256(MultiGzDecoder::new(BufReader::new(open()?)), contents.bytes);
        if unpacked.is_ok_and(|(found, _)| found == contents.sha256) {
            return Ok(None);
        }
    }
    Ok(Some(told(&found, bytes, file.sha256, file.bytes)))
}

/// The same of a file that is not compressed.
pub(crate) fn plain_difference(path: &Path, contents: &Contents<'_>) -> Result<Option<String>, DownloadError> {
    let file = File::open(path).map_err(|error| DownloadError::io("read", path, error))?;
    let (found, bytes) = sha256(file, u64::MAX).map_err(|error| DownloadError::io("read", path, error))?;
    Ok((found != contents.sha256).then(|| told(&found, bytes, contents.sha256, contents.bytes)))
}

fn told(found: &str, bytes: u64, wanted: &str, wanted_bytes: u64) -> String {
    format!("{bytes} bytes with SHA-256 {found} instead of {wanted_bytes} with {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_that_of_the_standard() {
        // FIPS 180-4, examples of one and of no block of data.
        let (abc, bytes) = sha256(&b"abc"[..], 100).unwrap();
        assert_eq!(abc, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(bytes, 3);
        let (none, bytes) = sha256(&b""[..], 100).unwrap();
        assert_eq!(none, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(bytes, 0);
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        assert_eq!(sha256(io::repeat(0), 1_000_000).unwrap().1, 1_000_001);
    }
}
