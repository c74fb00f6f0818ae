//! Figures for people: rounded sizes, counts with separators, numbers of things.
//!
//! Owns: how reports, tables and the progress bar show figures. Does not own: sizes and times that users write
//! (`settings::units`).

/// A size: three digits and a unit.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn show_bytes(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    match units.iter().find(|(_, size)| bytes as f64 >= *size) {
        Some((unit, size)) => {
            let value = bytes as f64 / size;
            format!("{value:.0$} {unit}", if value < 10.0 { 2 } else { usize::from(value < 100.0) })
        }
        None => format!("{bytes} B"),
    }
}

/// A count: digits in groups of three.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number of things: `1 epoch`, `2,000 epochs`.
#[must_use]
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", show_count(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([show_bytes(999), show_bytes(1_234), show_bytes(12_345_678)], ["999 B", "1.23 KB", "12.3 MB"]);
        assert_eq!([show_count(7), show_count(1_234), show_count(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!(
            [counted(1, "epoch"), counted(0, "epoch"), counted(2_000, "row")],
            ["1 epoch", "0 epochs", "2,000 rows"]
        );
    }
}
