//! Sizes and times as people write them: `128 MiB`, `5m`.
//!
//! Owns: reading them, and writing a value so that it reads back as the same. Does not own: rounded figures in reports
//! (`cli::output`).

use std::time::Duration;

/// Units of sizes that a value is written in, the largest first.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
/// Units of times that a value is written in, in milliseconds, the largest first.
const TIMES: [(&str, u128); 3] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// Bytes: a whole number, or a number with `B`, `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB` (powers of 1024).
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size '{text}': expected a number and a unit, such as 64MiB");
    let (number, unit) = split(text).ok_or_else(invalid)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(invalid()),
    };
    scaled(number, factor).ok_or_else(invalid)
}

/// A time: a number with `ms`, `s`, `m` or `h`.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid time '{text}': expected a number and a unit, such as 500ms, 10s, 5m or 1h");
    let (number, unit) = split(text).ok_or_else(invalid)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(invalid()),
    };
    scaled(number, factor).map(Duration::from_millis).ok_or_else(invalid)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

fn scaled(number: f64, factor: u64) -> Option<u64> {
    #[expect(clippy::cast_precision_loss, reason = "factors are small")]
    let value = number * factor as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just before")]
    (0.0..=9e15).contains(&value).then_some(value as u64)
}

/// A size in the largest unit that divides it: `512 MiB`.
pub(crate) fn write_bytes(bytes: u64) -> String {
    match SIZES.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} B"),
    }
}

/// A time in the largest unit that divides it: `5m`.
pub(crate) fn write_duration(time: Duration) -> String {
    let ms = time.as_millis();
    match TIMES.iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("1024", 1024), ("64 MiB", 64 << 20), ("1GB", 1_000_000_000), ("1.5 KiB", 1536), ("2g", 2 << 30)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1.5h", 5_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(
            parse_bytes("64 Mega").unwrap_err(),
            "invalid size '64 Mega': expected a number and a unit, such as 64MiB"
        );
        for text in ["", "-1", "s", "10", "1 day"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_written_size_or_time_reads_back_as_the_same_value() {
        for (bytes, text) in [
            (0, "0 B"),
            (1000, "1000 B"),
            (1536, "1536 B"),
            (512 << 20, "512 MiB"),
            (1025 << 10, "1025 KiB"),
            (2 << 30, "2 GiB"),
        ] {
            assert_eq!(write_bytes(bytes), text);
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for (ms, text) in
            [(0, "0ms"), (500, "500ms"), (25_000, "25s"), (90_000, "90s"), (300_000, "5m"), (7_200_000, "2h")]
        {
            assert_eq!(write_duration(Duration::from_millis(ms)), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
    }
}
