//! How commands print: tables that fit a terminal, sizes and counts for people.
//!
//! Owns: layout and number formats of text output. Does not own: what is printed (the commands), JSON output (the types that
//! are serialized).

use checkpoints::LeaseOwner;

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
        assert_eq!(
            [counted(1, "epoch"), counted(0, "epoch"), counted(2_000, "row")],
            ["1 epoch", "0 epochs", "2,000 rows"]
        );
    }
}
