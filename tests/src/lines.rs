//! Numbered lines, of which each shows whether it is whole, and what came out of them.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Makes the line of a number, without newline. It begins with the number in eight digits, and the same number gives
/// the same line.
pub type Make = fn(u64) -> String;

const WORDS: [&str; 4] = [
    "order",
    "shipment of several boxes",
    "x",
    "a longer remark on what was ordered and when",
];
const TEXTS: [&str; 5] = [
    "Grüße aus Köln",
    "日本語のテキスト",
    "Ωμέγα и кириллица",
    "🦀🚀 emoji",
    "zażółć gęślą jaźń",
];

/// A line of ASCII. The lengths differ.
pub fn ascii(number: u64) -> String {
    format!(
        "{number:08} {} {:x}.",
        WORDS[number as usize % WORDS.len()],
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

/// A line with characters of two, three and four bytes.
pub fn unicode(number: u64) -> String {
    let text = TEXTS[number as usize % TEXTS.len()];
    format!(
        "{number:08} {text} {:x} {text}。",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

/// Appends these lines to a file, and gives the file's length.
pub fn append(path: &Path, numbers: Range<u64>, make: Make) -> Result<u64> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = BufWriter::with_capacity(
        1 << 20,
        file.with_context(|| format!("opening {}", path.display()))?,
    );
    for number in numbers {
        writeln!(file, "{}", make(number))?;
    }
    file.flush()?;
    Ok(file.get_ref().metadata()?.len())
}

/// All lines of the files in a directory, file by file, each without its newline. Nothing, if it does not exist.
pub fn read_dir(dir: &Path) -> Result<Vec<(String, Vec<Vec<u8>>)>> {
    let mut files = Vec::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        files.push((name, split(&bytes)));
    }
    files.sort();
    Ok(files)
}

/// Lines without their newline. What follows the last newline is a line, unless it is empty.
pub fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

/// How many bytes the files of a directory have.
pub fn size(dir: &Path) -> Result<u64> {
    if !dir.exists() {
        return Ok(0);
    }
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        total += File::open(entry?.path())?.metadata()?.len();
    }
    Ok(total)
}

/// What became of numbered lines.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// How often each number was seen.
    seen: Vec<u32>,
    /// What is not a whole line of these: cut, joined, or something else. Some of them, as text.
    pub damaged: Vec<String>,
}

impl Tally {
    /// Counts lines that should be those of `0..total`.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a [u8]>, total: u64, make: Make) -> Self {
        let mut tally = Self {
            seen: vec![0; total as usize],
            damaged: Vec::new(),
        };
        for line in lines {
            match number(line).filter(|n| make(*n).as_bytes() == line) {
                Some(number) if number < total => tally.seen[number as usize] += 1,
                _ => tally.damaged.push(String::from_utf8_lossy(line).into_owned()),
            }
        }
        tally
    }

    /// How many different lines were seen.
    pub fn distinct(&self) -> usize {
        self.seen.iter().filter(|seen| **seen > 0).count()
    }

    /// Numbers that were never seen.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.seen.len())
            .filter(|number| self.seen[*number] == 0)
            .collect()
    }

    /// How many lines were seen beyond the first time.
    pub fn repeated(&self) -> u64 {
        self.seen
            .iter()
            .map(|seen| u64::from(seen.saturating_sub(1)))
            .sum()
    }

    /// Every line is there, and each is whole.
    pub fn complete(&self) -> Result<()> {
        let missing = self.missing();
        let some = &missing[..missing.len().min(10)];
        ensure!(
            missing.is_empty(),
            "{} of {} lines are missing, such as {some:?}",
            missing.len(),
            self.seen.len()
        );
        let damaged = &self.damaged[..self.damaged.len().min(5)];
        ensure!(
            damaged.is_empty(),
            "{} lines are not whole, such as {damaged:?}",
            self.damaged.len()
        );
        Ok(())
    }

    /// Every line is there once, and each is whole.
    pub fn exact(&self) -> Result<()> {
        self.complete()?;
        let repeated = self.repeated();
        let some: Vec<usize> = (0..self.seen.len())
            .filter(|n| self.seen[*n] > 1)
            .take(10)
            .collect();
        ensure!(
            repeated == 0,
            "{repeated} lines are there more than once, such as {some:?}"
        );
        Ok(())
    }
}

/// Counts what is in a directory.
pub fn tally(dir: &Path, total: u64, make: Make) -> Result<Tally> {
    let files = read_dir(dir)?;
    Ok(Tally::of(
        files.iter().flat_map(|(_, lines)| lines).map(Vec::as_slice),
        total,
        make,
    ))
}

/// The number that a line begins with.
pub fn number(line: &[u8]) -> Option<u64> {
    std::str::from_utf8(line.get(..8)?).ok()?.parse().ok()
}

/// The numbers of these lines only grow.
pub fn ascending<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
    let mut last = None;
    for line in lines {
        let next = number(line);
        ensure!(next > last, "line {next:?} follows line {last:?}");
        last = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_doubled_and_cut_is_found() {
        for make in [ascii as Make, unicode] {
            let lines: Vec<String> = (0..10).map(make).collect();
            let all: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            Tally::of(all.iter().copied(), 10, make).exact().unwrap();
            ascending(all.iter().copied()).unwrap();

            let twice = Tally::of(all.iter().copied().chain([all[3]]), 10, make);
            twice.complete().unwrap();
            assert_eq!((twice.repeated(), twice.exact().is_err()), (1, true));

            let missing = Tally::of(all[1..].iter().copied(), 10, make);
            assert_eq!((missing.missing(), missing.distinct()), (vec![0], 9));

            let cut = &all[4][..all[4].len() - 1];
            assert!(
                Tally::of(all.iter().copied().chain([cut]), 10, make)
                    .complete()
                    .is_err()
            );
            assert!(ascending([all[1], all[1]]).is_err());
        }
    }

    #[test]
    fn lines_are_split_at_newlines_alone() {
        assert_eq!(split(b"a\r\n\nb"), [b"a\r".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(split(b"a\n"), [b"a".to_vec()]);
        assert!(split(b"").is_empty());
    }
}
