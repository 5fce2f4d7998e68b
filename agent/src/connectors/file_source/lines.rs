use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};

/// Cuts a byte stream into lines at `\n`, without copying a line.
///
/// Reads go into large blocks; a line is a slice of its block. Only the unfinished end of a block is copied, once, into
/// the next one. Positions are counted in bytes of the stream.
#[derive(Debug)]
pub(super) struct LineBuffer {
    max_line: usize,
    /// Whole lines that have not been handed out, each with its `\n`.
    block: Bytes,
    cursor: usize,
    /// Stream position of `block[cursor]`.
    next: u64,
    /// What has been read of the line after `block`. It holds no `\n`, except between `filled` and `cut`.
    rest: BytesMut,
    /// Bytes of an overlong line that have been dropped so far.
    dropped: u64,
}

/// What the stream consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, without its `\n`.
    Line {
        /// Its bytes.
        bytes: Bytes,
        /// Position after it.
        next: u64,
        /// Whether it ended with `\n`.
        ended: bool,
    },
    /// A line longer than allowed: so many bytes, with its `\n`, are dropped.
    TooLong(u64),
}

impl LineBuffer {
    /// Begins at this position of the stream; lines of more than `max_line` bytes are dropped.
    pub(super) fn new(at: u64, max_line: usize) -> Self {
        Self {
            max_line,
            block: Bytes::new(),
            cursor: 0,
            next: at,
            rest: BytesMut::new(),
            dropped: 0,
        }
    }

    /// Begins again at another position; what has not been handed out is thrown away.
    pub(super) fn restart(&mut self, at: u64) {
        *self = Self::new(at, self.max_line);
    }

    /// Position after everything that was read.
    pub(super) fn read_to(&self) -> u64 {
        self.next + (self.block.len() - self.cursor) as u64 + self.rest.len() as u64 + self.dropped
    }

    /// Position after what was handed out: where to begin again if the rest is thrown away.
    pub(super) fn handed_out(&self) -> u64 {
        self.next
    }

    /// Whether there is a beginning of a line.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty() || self.dropped > 0
    }

    /// Lets `read` put up to `want` bytes behind what there is, and returns how many it did. To be called when
    /// [`LineBuffer::next_line`] has nothing left.
    pub(super) fn fill<E>(
        &mut self,
        want: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let before = self.rest.len();
        self.rest.resize(before + want, 0);
        let got = read(&mut self.rest[before..]);
        self.rest.truncate(before + *got.as_ref().unwrap_or(&0));
        if let Some(last) = memrchr(b'\n', &self.rest[before..]) {
            self.block = self.rest.split_to(before + last + 1).freeze();
            self.cursor = 0;
        }
        got
    }

    /// The next whole line, if there is one.
    pub(super) fn next_line(&mut self) -> Option<Piece> {
        if let Some(len) = memchr(b'\n', &self.block[self.cursor..]) {
            let start = self.cursor;
            let dropped = std::mem::take(&mut self.dropped);
            self.cursor += len + 1;
            self.next += len as u64 + 1 + dropped;
            if dropped > 0 || len > self.max_line {
                return Some(Piece::TooLong(len as u64 + 1 + dropped));
            }
            return Some(Piece::Line {
                bytes: self.block.slice(start..start + len),
                next: self.next,
                ended: true,
            });
        }
        self.block = Bytes::new();
        self.cursor = 0;
        if self.dropped > 0 || self.rest.len() > self.max_line {
            self.dropped += self.rest.len() as u64;
            self.rest.clear();
        }
        None
    }

    /// Ends the stream, for now: what there is of the last line. What follows later is a line of its own.
    pub(super) fn take_rest(&mut self) -> Option<Piece> {
        let bytes = self.rest.split().freeze();
        let dropped = std::mem::take(&mut self.dropped);
        let amount = bytes.len() as u64 + dropped;
        self.next += amount;
        match (amount, dropped) {
            (0, _) => None,
            (_, 0) => Some(Piece::Line {
                bytes,
                next: self.next,
                ended: false,
            }),
            _ => Some(Piece::TooLong(amount)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `data` from `at` in chunks of these sizes, over and over.
    fn split(data: &[u8], at: usize, chunks: &[usize], max_line: usize) -> Vec<Piece> {
        let mut lines = LineBuffer::new(at as u64, max_line);
        let (mut pieces, mut offset, mut i) = (Vec::new(), at, 0);
        loop {
            while let Some(piece) = lines.next_line() {
                pieces.push(piece);
            }
            assert_eq!(lines.read_to(), offset as u64);
            let want = chunks[i % chunks.len()];
            i += 1;
            let read = |room: &mut [u8]| {
                let n = want.min(data.len() - offset).min(room.len());
                room[..n].copy_from_slice(&data[offset..offset + n]);
                Ok::<_, ()>(n)
            };
            match lines.fill(want, read).unwrap() {
                0 => break,
                n => offset += n,
            }
        }
        pieces.extend(lines.take_rest());
        assert_eq!(lines.read_to(), data.len() as u64);
        pieces
    }

    fn naive(data: &[u8], at: usize) -> Vec<Piece> {
        let mut next = at as u64;
        let each = data[at..].split_inclusive(|b| *b == b'\n').map(|line| {
            next += line.len() as u64;
            let ended = line.ends_with(b"\n");
            let bytes = Bytes::copy_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            Piece::Line { bytes, next, ended }
        });
        each.collect()
    }

    /// Few values, so that newlines are frequent; some are not UTF-8, some are parts of characters.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"\n\n\ra\xc3\xa9\xff\0".to_vec()), 0..200)
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(data in data(), chunks in prop::collection::vec(1usize..40, 1..6)) {
            prop_assert_eq!(split(&data, 0, &chunks, 1000), naive(&data, 0));
        }

        #[test]
        fn a_restart_at_any_byte_gives_the_rest(data in data(), chunks in prop::collection::vec(1usize..9, 1..4)) {
            for at in 0..=data.len() {
                prop_assert_eq!(split(&data, at, &chunks, 1000), naive(&data, at));
            }
        }

        #[test]
        fn overlong_lines_are_counted_and_nothing_else_suffers(
            data in data(), chunks in prop::collection::vec(1usize..40, 1..6), max in 0usize..8,
        ) {
            let wanted: Vec<_> = naive(&data, 0)
                .into_iter()
                .map(|piece| match piece {
                    Piece::Line { bytes, ended, .. } if bytes.len() > max => {
                        Piece::TooLong(bytes.len() as u64 + u64::from(ended))
                    }
                    other => other,
                })
                .collect();
            prop_assert_eq!(split(&data, 0, &chunks, max), wanted);
        }
    }

    #[test]
    fn a_failed_read_changes_nothing() {
        let mut lines = LineBuffer::new(0, 100);
        lines
            .fill(3, |room| Ok::<_, ()>(room.write_bytes(b"ab")))
            .unwrap();
        lines.fill(3, |_| Err(())).unwrap_err();
        lines
            .fill(3, |room| Ok::<_, ()>(room.write_bytes(b"c\n")))
            .unwrap();
        let Some(Piece::Line { bytes, next, .. }) = lines.next_line() else {
            panic!("no line")
        };
        assert_eq!((&bytes[..], next), (&b"abc"[..], 4));
    }

    trait WriteBytes {
        fn write_bytes(&mut self, bytes: &[u8]) -> usize;
    }

    impl WriteBytes for [u8] {
        fn write_bytes(&mut self, bytes: &[u8]) -> usize {
            self[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }
    }
}
