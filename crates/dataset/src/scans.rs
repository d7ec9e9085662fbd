//! Whether a progressive file has all of its scans: one that was cut between two of them decodes, but coarsely.

/// Whether the scans bring every coefficient of every component in full (ITU-T T.81, section G.1.1.1); true for files that are not
/// progressive.
pub(crate) fn are_complete(bytes: &[u8]) -> bool {
    // By component's id: by coefficient, the bits that are still missing.
    let mut missing: Vec<(u8, [u8; 64])> = Vec::new();
    let mut at = 2;
    while let Some([0xff, marker, ..]) = bytes.get(at..) {
        let length = match bytes.get(at + 2..at + 4) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => break,
        };
        let Some(segment) = bytes.get(at + 4..at + 2 + length) else { break };
        match marker {
            // Sequential: one scan of each component, in full.
            0xc0 | 0xc1 => return true,
            0xc2 => {
                let components = segment.get(6..).unwrap_or_default().as_chunks::<3>().0;
                missing = components.iter().map(|component| (component[0], [u8::MAX; 64])).collect();
            }
            0xda => {
                let count = usize::from(segment.first().copied().unwrap_or(0));
                let Some(&[first, last, bits]) = segment.get(1 + 2 * count..) else { break };
                for [id, _] in segment[1..1 + 2 * count].as_chunks::<2>().0 {
                    let component = missing.iter_mut().filter(|(component, _)| component == id);
                    let coefficients = usize::from(first)..=usize::from(last);
                    component
                        .filter_map(|(_, bits)| bits.get_mut(coefficients.clone()))
                        .for_each(|part| part.fill(bits & 15));
                }
            }
            _ => {}
        }
        // Data follow a scan's head, and sometimes a few odd bytes another segment.
        at += 2 + length;
        let data = bytes.get(at..).unwrap_or_default();
        at += data
            .windows(2)
            .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7))
            .unwrap_or(data.len());
        if bytes.get(at + 1) == Some(&0xd9) {
            break;
        }
    }
    missing.iter().all(|(_, bits)| bits.iter().all(|&bits| bits == 0))
}
