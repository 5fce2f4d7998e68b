//! UNIQ_KEYs for a batch. One of the client's costs two allocations, so a batch takes one and counts on in its last four
//! digits: host, process and millisecond, then a number, as every client of RocketMQ makes them.

use std::sync::atomic::{AtomicU32, Ordering};

const DIGITS: usize = 4;

/// The keys of one batch.
pub(super) struct Ids {
    text: Vec<u8>,
    next: u16,
}

impl Ids {
    /// So many keys that this process makes only once, if it makes fewer than 65,536 in a millisecond. `first` is a
    /// key of the client, made now.
    pub(super) fn reserve(count: usize, first: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::starting_at(NEXT.fetch_add(count as u32, Ordering::Relaxed) as u16, first)
    }

    /// Keys with the numbers from `next` on.
    pub(super) fn starting_at(next: u16, first: String) -> Self {
        Self {
            text: first.into_bytes(),
            next,
        }
    }

    pub(super) fn next(&mut self) -> &[u8] {
        let digits = self.text.len().saturating_sub(DIGITS);
        for (at, digit) in self.text[digits..].iter_mut().enumerate() {
            let nibble = (self.next >> (4 * (DIGITS - 1 - at))) & 15;
            *digit = b"0123456789ABCDEF"[usize::from(nibble)];
        }
        self.next = self.next.wrapping_add(1);
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_count_on_over_batches_and_keep_what_is_before_the_number() {
        let first = "7F00000100010002000300040000FFFF";
        let mut seen = HashSet::new();
        for count in [1, 300, 20_000, 2] {
            let mut ids = Ids::reserve(count, first.into());
            for _ in 0..count {
                let id = String::from_utf8(ids.next().to_vec()).unwrap();
                assert!(id.starts_with(&first[..28]) && id.len() == 32);
                assert!(id[28..].bytes().all(|digit| digit.is_ascii_hexdigit()));
                assert!(seen.insert(id));
            }
        }
    }
}
