//! Texts with units: `500ms`, `64KiB`.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// A time span: whole number and unit (`ms`, `s`, `m`, `h`, `d`), or `0`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let factor = if unit.is_empty() && number == 0 {
        1
    } else {
        factor(&DURATIONS, unit)?
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

/// A number of bytes: whole number and unit (`B`, `KB`, `KiB`, ...; case does not matter), or without unit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = if unit.is_empty() {
        1
    } else {
        factor(&SIZES, &unit.to_ascii_lowercase())?
    };
    number.checked_mul(factor)
}

/// The shortest text that [`parse_duration`] reads as so many milliseconds.
pub(crate) fn show_duration(millis: u64) -> String {
    show(millis, &DURATIONS, "ms")
}

/// The shortest text that [`parse_size`] reads as so many bytes, in powers of 1024.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [
        ("", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    show(bytes, &units, "")
}

fn show(number: u64, units: &[(&str, u64)], zero: &str) -> String {
    match units
        .iter()
        .rev()
        .find(|(_, factor)| number > 0 && number.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => format!("0{zero}"),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("5s"), Some(5_000));
        assert_eq!(ms(" 2 m "), Some(120_000));
        assert_eq!(ms("1h"), Some(3_600_000));
        assert_eq!(ms("1d"), Some(86_400_000));
        assert_eq!(ms("0"), Some(0));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5S",
            "1h30m",
            "99999999999999999999s",
            "18446744073709551615h",
            "é",
        ] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_know_both_kinds_of_units() {
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("10MB"), Some(10_000_000));
        assert_eq!(parse_size("1 gib"), Some(1 << 30));
        for bad in ["", "KiB", "-1", "1.5MB", "1PB", "18446744073709551615KB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for n in [
            0,
            1,
            999,
            1_000,
            1_024,
            60_000,
            90_000,
            1 << 20,
            3 << 30,
            u64::MAX,
        ] {
            assert_eq!(parse_duration(&show_duration(n)), Some(Duration::from_millis(n)));
            assert_eq!(parse_size(&show_size(n)), Some(n));
        }
    }
}
