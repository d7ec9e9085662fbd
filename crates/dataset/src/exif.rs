//! The one thing that is read out of EXIF: how the camera was held (tag 0x0112 of Exif 2.32, section 4.6.4 A).

/// Where a picture's first row and column lie; 1 is upright.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation(u16);

impl Orientation {
    pub fn is_upright(self) -> bool {
        self.0 == 1
    }

    /// Whether the picture is to be seen with its width and height exchanged.
    pub fn swaps_sides(self) -> bool {
        self.0 >= 5
    }

    /// Row and column in a stored picture of `height` × `width` of what is to be seen at `row` and `column`.
    pub fn source(self, row: usize, column: usize, height: usize, width: usize) -> (usize, usize) {
        match self.0 {
            2 => (row, width - 1 - column),
            3 => (height - 1 - row, width - 1 - column),
            4 => (height - 1 - row, column),
            5 => (column, row),
            6 => (height - 1 - column, row),
            7 => (height - 1 - column, width - 1 - row),
            8 => (column, width - 1 - row),
            _ => (row, column),
        }
    }
}

/// The orientation that a block of EXIF states, if it is sound and states one. The block is a TIFF file, in some containers
/// after `Exif\0\0`.
pub(crate) fn orientation(block: &[u8]) -> Option<Orientation> {
    let tiff = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    let big = match tiff.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let bytes = tiff.get(4..8)?.try_into().ok()?;
    let directory = if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) } as usize;
    let entries = usize::from(short(directory)?);
    let first = directory + 2;
    // Tag, type (3: a short), count, value: 12 bytes.
    let entry =
        (0..entries).map(|n| first + 12 * n).take_while(|&at| at < tiff.len()).find(|&at| short(at) == Some(0x0112))?;
    (short(entry + 2)? == 3).then_some(())?;
    let value = short(entry + 8)?;
    (1..=8).contains(&value).then_some(Orientation(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of one other tag and the orientation.
    fn block(big: bool, value: u16) -> Vec<u8> {
        let short = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let long = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut bytes = if big { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, value) in [(0x0100, 7), (0x0112, value)] {
            bytes.extend([short(tag), short(3)].concat());
            bytes.extend(long(1));
            bytes.extend([short(value), short(0)].concat());
        }
        bytes
    }

    #[test]
    fn both_byte_orders_are_read_and_nonsense_is_not() {
        for big in [false, true] {
            assert_eq!(orientation(&block(big, 6)), Some(Orientation(6)));
            assert_eq!(orientation(&[b"Exif\0\0".to_vec(), block(big, 8)].concat()), Some(Orientation(8)));
            assert_eq!((orientation(&block(big, 0)), orientation(&block(big, 9))), (None, None));
            let whole = block(big, 3);
            // The value's last two bytes are padding.
            assert!((0..whole.len() - 2).all(|length| orientation(&whole[..length]).is_none()));
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), None);
        assert_eq!(orientation(b""), None);
    }
}
