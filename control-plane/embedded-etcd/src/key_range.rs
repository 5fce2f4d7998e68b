use std::ops::Bound;

/// A range of keys as etcd's requests write it.
///
/// `range_end` empty: the one key. `range_end` a single zero byte: every key from `key` on.
/// Otherwise the keys in `[key, range_end)`, which may be none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRange<'a> {
    start: &'a [u8],
    end: Bound<&'a [u8]>,
}

impl<'a> KeyRange<'a> {
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let end = match range_end {
            [] => Bound::Included(key),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        Self { start: key, end }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.start
            && match self.end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            }
    }

    /// True when no key can be in it; [`bounds`](Self::bounds) of such a range are not valid for a map.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.end, Bound::Excluded(end) if end <= self.start)
    }

    pub(crate) fn bounds(&self) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
        (Bound::Included(self.start), self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    #[test]
    fn an_empty_end_is_the_key_alone() {
        let range = KeyRange::new(b"a", b"");
        assert!(range.contains(b"a"));
        assert!(!range.contains(b"aa"));
    }

    #[test]
    fn a_zero_byte_end_is_everything_from_the_key_on() {
        let range = KeyRange::new(b"b", b"\0");
        assert!(!range.contains(b"a"));
        assert!(range.contains(b"b"));
        assert!(range.contains(b"\xff\xff"));
        assert!(!range.is_empty());
    }

    #[test]
    fn an_end_at_or_below_the_key_is_nothing() {
        assert!(KeyRange::new(b"b", b"a").is_empty());
        assert!(KeyRange::new(b"b", b"b").is_empty());
        assert!(!KeyRange::new(b"b", b"b").contains(b"b"));
    }
}
