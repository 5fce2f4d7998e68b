//! The records: numbered lines of one length, and the account of what became of them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const DIGITS: usize = 8;
const FILL: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789 the rest of a record says nothing, but differs; ";

/// Replaces `line` by the line of a number, without newline: the number in eight digits, and what follows from it.
pub fn line(number: u64, bytes: usize, line: &mut Vec<u8>) {
    line.clear();
    // Writing to a Vec does not fail.
    let _ = write!(line, "{number:08} ");
    let fill = FILL.iter().cycle().skip(number as usize % FILL.len());
    line.extend(fill.take(bytes.saturating_sub(line.len())));
}

/// Writes the lines of `0..records` to as many files, each a stretch of them.
pub fn write(dir: &Path, files: u64, records: u64, bytes: usize) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let mut paths = Vec::new();
    let mut text = Vec::with_capacity(bytes + 1);
    for file in 0..files {
        let path = dir.join(format!("{bytes}-{files}-{file}.txt"));
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        for number in records * file / files..records * (file + 1) / files {
            line(number, bytes, &mut text);
            text.push(b'\n');
            out.write_all(&text)?;
        }
        out.flush()?;
        paths.push(path);
    }
    Ok(paths)
}

/// Which of the lines of `0..records` were seen. One that is seen twice, or is not whole, is an error at once.
#[derive(Debug)]
pub struct Account {
    seen: Vec<bool>,
    bytes: usize,
    expected: Vec<u8>,
}

impl Account {
    pub fn new(records: u64, bytes: usize) -> Self {
        Self {
            seen: vec![false; records as usize],
            bytes,
            expected: Vec::new(),
        }
    }

    /// Notes a line, without its newline.
    pub fn add(&mut self, found: &[u8]) -> Result<()> {
        let shown = || String::from_utf8_lossy(&found[..found.len().min(60)]).into_owned();
        let number = found
            .get(..DIGITS)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u64>().ok())
            .with_context(|| format!("a record without a number: {:?}", shown()))?;
        line(number, self.bytes, &mut self.expected);
        ensure!(found == self.expected, "a record is not whole: {:?}", shown());
        let seen = self.seen.get_mut(number as usize);
        let seen = seen.with_context(|| format!("record {number} was never sent"))?;
        ensure!(!*seen, "record {number} is there twice");
        *seen = true;
        Ok(())
    }

    /// All were seen.
    pub fn close(&self) -> Result<()> {
        let missing: Vec<usize> = (0..self.seen.len()).filter(|n| !self.seen[*n]).collect();
        ensure!(
            missing.is_empty(),
            "{} of {} records are missing, such as {:?}",
            missing.len(),
            self.seen.len(),
            &missing[..missing.len().min(5)]
        );
        Ok(())
    }
}

/// The files of a directory have each line of `0..records` exactly once.
pub fn check(dir: &Path, records: u64, bytes: usize) -> Result<()> {
    let mut account = Account::new(records, bytes);
    let mut text = Vec::new();
    for entry in fs::read_dir(dir)? {
        let mut file = BufReader::with_capacity(1 << 20, File::open(entry?.path())?);
        while file.read_until(b'\n', &mut text)? > 0 {
            account.add(text.strip_suffix(b"\n").unwrap_or(&text))?;
            text.clear();
        }
    }
    account
        .close()
        .with_context(|| format!("in the files of {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_length_and_are_accounted_for() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [100, 1024] {
            let dir = dir.path().join(bytes.to_string());
            let paths = write(&dir, 3, 50, bytes).unwrap();
            let size: u64 = paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
            assert_eq!((paths.len(), size), (3, 50 * (bytes as u64 + 1)));
            check(&dir, 50, bytes).unwrap();
            assert!(
                check(&dir, 51, bytes)
                    .unwrap_err()
                    .to_string()
                    .contains("files of")
            );
            assert!(check(&dir, 49, bytes).is_err());
            assert!(check(&dir, 50, bytes - 1).is_err());
            fs::copy(&paths[0], dir.join("again")).unwrap();
            assert!(check(&dir, 50, bytes).unwrap_err().to_string().contains("twice"));
        }
    }
}
