//! What the records hold. The same for every version of this program.

use bytes::{Bytes, BytesMut};

const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
const FILLER: usize = 1 << 16;

/// Makes values and keys of one seed.
pub(super) struct Content {
    seed: u64,
    size: usize,
    keys: u64,
    filler: Vec<u8>,
}

impl Content {
    pub(super) fn new(seed: u64, size: usize, keys: u64) -> Self {
        let words = (0..FILLER as u64 / 8).map(|i| mix(seed ^ mix(i)));
        let filler = words
            .flat_map(u64::to_le_bytes)
            .map(|b| LETTERS[usize::from(b % 64)])
            .collect();
        Self {
            seed,
            size,
            keys,
            filler,
        }
    }

    /// Values of these records, in one block.
    pub(super) fn values(&self, partition: u32, sequences: std::ops::Range<u64>) -> Vec<Bytes> {
        let n = sequences.clone().count();
        let mut block = BytesMut::with_capacity(n * self.size);
        for sequence in sequences {
            let end = block.len() + self.size;
            let name = format!("{partition}-{sequence} ");
            block.extend_from_slice(&name.as_bytes()[..name.len().min(self.size)]);
            let mut from = self.hash(partition, sequence) as usize % FILLER;
            while block.len() < end {
                let part = (end - block.len()).min(FILLER - from);
                block.extend_from_slice(&self.filler[from..from + part]);
                from = 0;
            }
        }
        let block = block.freeze();
        (0..n)
            .map(|i| block.slice(i * self.size..(i + 1) * self.size))
            .collect()
    }

    /// Key of the record, if records have keys.
    pub(super) fn key(&self, partition: u32, sequence: u64) -> Option<Box<str>> {
        (self.keys > 0).then(|| format!("key-{}", self.hash(partition, sequence) % self.keys).into())
    }

    fn hash(&self, partition: u32, sequence: u64) -> u64 {
        mix(self.seed ^ mix(sequence ^ (u64::from(partition) << 40)))
    }
}

fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_they_always_were() {
        let content = Content::new(7, 40, 10);
        let values = content.values(3, 41..43);
        assert_eq!(values[0], "3-41 sqHduHLPjPdWzrcdkNQH3-2CRPViKwvGB7j");
        assert_eq!(values[1], "3-42 7-ZUJKK_wU7TNN7-ZqExCZmthYazGB1GNvc");
        assert_eq!(content.key(3, 42).as_deref(), Some("key-8"));
    }

    #[test]
    fn any_size_can_be_made() {
        for size in [0, 1, 5, 100, FILLER - 1, FILLER * 2 + 7] {
            let values = Content::new(0, size, 0).values(0, 5..8);
            assert!(
                values.len() == 3 && values.iter().all(|v| v.len() == size),
                "{size}"
            );
        }
        assert_eq!(Content::new(0, 10, 0).key(0, 0), None);
    }
}
