//! How commands print: tables that fit a terminal, sizes and counts for people.
//!
//! Owns: layout and number formats of text output. Does not own: what is printed (the commands), JSON output (the types that
//! are serialized).

use checkpoints::LeaseOwner;

use crate::inspect::AtVersion;

/// A table: columns are as wide as their widest cell, numbers stand right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a name that begins with `>` is of a column of numbers.
    pub(crate) fn new(header: &[&str]) -> Self {
        Table {
            header: header.iter().map(|name| name.trim_start_matches('>').to_owned()).collect(),
            right: header.iter().map(|name| name.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line after `indent`.
    pub(crate) fn render(&self, indent: &str) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.header[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    let width = widths[column];
                    if self.right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
            format!("{indent}{}", padded.join("  ")).trim_end().to_owned() + "\n"
        };
        let mut text = line(&self.header);
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// A text cut in its middle, so that begin and end stay readable.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let keep = width.saturating_sub(1);
    let head: String = text.chars().take(keep / 2).collect();
    let tail: String = text.chars().skip(length - (keep - keep / 2)).collect();
    format!("{head}…{tail}")
}

/// A version of the lake log, for people.
pub(crate) fn show_version(at: &AtVersion) -> String {
    let entered = at.entered_at.as_ref().map_or_else(String::new, |time| format!(", entered at {time}"));
    format!("the lake at version {}{entered}", at.version)
}

/// Bytes for people: three digits and a unit.
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

/// The holder of a lease: the first characters of its name, and of the one who asked for the lease.
pub(crate) fn show_holder(owner: Option<&LeaseOwner>, handed_to: Option<&LeaseOwner>) -> String {
    let short = |owner: &LeaseOwner| owner.as_str().chars().take(8).collect::<String>();
    match (owner, handed_to) {
        (None, _) => "-".to_owned(),
        (Some(owner), None) => short(owner),
        (Some(owner), Some(to)) => format!("{} to {}", short(owner), short(to)),
    }
}

/// A count for people: digits in groups of three.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number for people that need not be whole: digits in groups of three, or up to three decimals; billions as such.
pub(crate) fn show_number(number: f64) -> String {
    if number >= 1e9 {
        return format!("{} billion", show_number(number / 1e9));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people; a cast saturates")]
    let whole = number.abs().round() as u64;
    let sign = if number < 0.0 { "-" } else { "" };
    if whole >= 1000 || (number.abs() - number.abs().round()).abs() < 1e-9 {
        return format!("{sign}{}", show_count(whole));
    }
    let decimals = if whole >= 100 {
        1
    } else if whole >= 10 {
        2
    } else {
        3
    };
    let shown = format!("{:.decimals$}", number.abs());
    format!("{sign}{}", shown.trim_end_matches('0').trim_end_matches('.'))
}

/// US dollars for people: cents, and digits in groups of three.
pub(crate) fn show_usd(usd: f64) -> String {
    if usd != 0.0 && usd.abs() < 0.005 {
        return if usd > 0.0 { "<0.01".to_owned() } else { "-<0.01".to_owned() };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people; a cast saturates")]
    let cents = (usd.abs() * 100.0).round() as u64;
    format!("{}{}.{:02}", if usd < 0.0 { "-" } else { "" }, show_count(cents / 100), cents % 100)
}

/// A number of things: `1 epoch`, `2,000 epochs`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", show_count(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">rows"]);
        table.row(["events".into(), "7".into()]);
        table.row(["a".into(), "1,234".into()]);
        assert_eq!(table.render("  "), "  name     rows\n  events      7\n  a       1,234\n");
    }

    #[test]
    fn long_texts_keep_their_ends() {
        assert_eq!(shorten("abcdefghij", 5), "ab…ij");
        assert_eq!(shorten("abc", 5), "abc");
    }

    #[test]
    fn numbers_are_shown_short() {
        assert_eq!([show_bytes(999), show_bytes(1_234), show_bytes(12_345_678)], ["999 B", "1.23 KB", "12.3 MB"]);
        assert_eq!([show_count(7), show_count(1_234), show_count(1_234_567)], ["7", "1,234", "1,234,567"]);
        let shown = [0.0, 0.25, 12.344, 123.44, 1234.5, 3e6, -7.0, 54.75e12].map(show_number);
        assert_eq!(shown, ["0", "0.25", "12.34", "123.4", "1,235", "3,000,000", "-7", "54,750 billion"]);
        let shown = [0.0, 0.004, 0.005, 10.95, 1_234_567.891, -3.0].map(show_usd);
        assert_eq!(shown, ["0.00", "<0.01", "0.01", "10.95", "1,234,567.89", "-3.00"]);
        assert_eq!(
            [counted(1, "epoch"), counted(0, "epoch"), counted(2_000, "row")],
            ["1 epoch", "0 epochs", "2,000 rows"]
        );
    }
}
