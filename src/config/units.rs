//! Sizes and times as people write them: `128 MiB`, `5m`.

use std::time::Duration;

/// Bytes: a whole number, or a number with `B`, `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB` (powers of 1024).
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size: write '64 MiB', '1 GB' or a number of bytes");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    scaled(number, factor).ok_or_else(wrong)
}

/// A time: a number with `ms`, `s`, `m` or `h`.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time: write '500ms', '10s', '5m' or '1h'");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    scaled(number, factor).map(Duration::from_millis).ok_or_else(wrong)
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
            "'64 Mega' is no size: write '64 MiB', '1 GB' or a number of bytes"
        );
        for text in ["", "-1", "s", "10", "1 day"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
