//! Compares what went in with what came out.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// What differs between the lines that went in and those that came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Lines that went in.
    pub(super) lines: u64,
    /// Lines that did not come out, or not as often as they went in.
    pub(super) missing: u64,
    /// Lines that came out more often than they went in.
    pub(super) doubled: u64,
    /// Lines that came out and never went in.
    pub(super) foreign: u64,
}

/// Whether two files are the same, byte for byte. Otherwise the first byte that differs.
pub(super) fn identical(a: &Path, b: &Path) -> std::io::Result<Result<u64, u64>> {
    let (mut a, mut b) = (
        BufReader::with_capacity(1 << 20, File::open(a)?),
        BufReader::with_capacity(1 << 20, File::open(b)?),
    );
    let mut at = 0;
    let (mut x, mut y) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = fill(&mut a, &mut x)?;
        let m = fill(&mut b, &mut y)?;
        if let Some(i) = x[..n].iter().zip(&y[..m]).position(|(p, q)| p != q) {
            return Ok(Err(at + i as u64));
        }
        if n != m {
            return Ok(Err(at + n.min(m) as u64));
        }
        if n == 0 {
            return Ok(Ok(at));
        }
        at += n as u64;
    }
}

fn fill(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < into.len() {
        match from.read(&mut into[n..])? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// Compares two sets of files as multisets of lines.
pub(super) fn multiset(sources: &[PathBuf], results: &[PathBuf]) -> std::io::Result<Difference> {
    // Counts by line hash of 128 bits: the text itself would not fit into memory for large inputs.
    let mut counts: HashMap<u128, (u64, u64)> = HashMap::new();
    let mut difference = Difference::default();
    for path in sources {
        difference.lines += each_line(path, |line| counts.entry(hash(line)).or_default().0 += 1)?;
    }
    for path in results {
        each_line(path, |line| counts.entry(hash(line)).or_default().1 += 1)?;
    }
    for (went_in, came_out) in counts.into_values() {
        difference.missing += went_in.saturating_sub(came_out);
        match went_in {
            0 => difference.foreign += came_out,
            _ => difference.doubled += came_out.saturating_sub(went_in),
        }
    }
    Ok(difference)
}

/// Number of lines; a last line without newline counts.
pub(super) fn count_lines(path: &Path) -> std::io::Result<u64> {
    each_line(path, |_| {})
}

fn each_line(path: &Path, mut each: impl FnMut(&[u8])) -> std::io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    let mut n = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        each(&line);
        line.clear();
        n += 1;
    }
    Ok(n)
}

fn hash(line: &[u8]) -> u128 {
    use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hasher as _};
    let one = BuildHasherDefault::<DefaultHasher>::default().hash_one(line);
    let mut other = DefaultHasher::new();
    other.write_u8(1);
    other.write(line);
    u128::from(one) << 64 | u128::from(other.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let paths = texts
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let path = dir.path().join(i.to_string());
                std::fs::write(&path, text).unwrap();
                path
            })
            .collect();
        (dir, paths)
    }

    #[test]
    fn lines_are_compared_as_a_multiset() {
        let (_dir, paths) = files(&["a\nb\nb\n", "c", "b\nc\na\n", "b\n"]);
        assert_eq!(
            multiset(&paths[..2], &paths[2..]).unwrap(),
            Difference {
                lines: 4,
                ..Difference::default()
            }
        );
        let (_dir, paths) = files(&["a\nb\n", "a\na\nc\n"]);
        assert_eq!(
            multiset(&paths[..1], &paths[1..]).unwrap(),
            Difference {
                lines: 2,
                missing: 1,
                doubled: 1,
                foreign: 1,
            }
        );
    }

    #[test]
    fn the_first_differing_byte_is_found() {
        let (_dir, paths) = files(&["same\n", "same\n", "sama\n", "same"]);
        assert_eq!(identical(&paths[0], &paths[1]).unwrap(), Ok(5));
        assert_eq!(identical(&paths[0], &paths[2]).unwrap(), Err(3));
        assert_eq!(identical(&paths[0], &paths[3]).unwrap(), Err(4));
    }
}
