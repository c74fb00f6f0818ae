//! Reading TOML that people write: dataset definitions and `shardlake.toml`.
//!
//! Owns: walking a parsed document with its line numbers, reporting unknown keys with the nearest known one, and collecting
//! **every** problem instead of stopping at the first. Does not own: what a key means.
//!
//! Invariant: reading never stops half-way. A value of the wrong kind is a [`Problem`] and reads as absent. At the end the
//! caller refuses the whole document unless [`Problems::is_empty`].

use std::cell::RefCell;
use std::fmt;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// One thing that is wrong in a document, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File name as the user knows it.
    pub file: String,
    /// Line, from 1; 0 if the problem has no line.
    pub line: usize,
    /// What is wrong and what to write instead; lower case, no final period.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{}: {}", self.file, line, self.message),
        }
    }
}

/// Every problem of one or more documents, in the order found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one, as one line. If a message contains several lines, only the first is kept: an unclosed quote turns the rest
    /// of the file into one string, which may contain secrets that must not be logged.
    pub fn push(&mut self, mut problem: Problem) {
        if let Some(end) = problem.message.find(['\n', '\r']) {
            problem.message.replace_range(end.., "…");
        }
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Adds all of another collection.
    pub fn extend(&mut self, other: Problems) {
        other.0.into_iter().for_each(|problem| self.push(problem));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems found so far.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The text of a document and the problems found in it.
pub struct Document<'t> {
    file: &'t str,
    text: &'t str,
    problems: RefCell<Problems>,
}

impl<'t> Document<'t> {
    /// A document that nobody has parsed yet. `file` is only for messages.
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Document { file, text, problems: RefCell::default() }
    }

    /// Parses the text. `None` if it is not TOML. Then every syntax error is a problem, and nothing else is reported: the
    /// apparent meaning of broken text would mislead, and an unclosed quote could put secrets into a message.
    pub fn parse(&self) -> Option<Spanned<DeTable<'t>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let well_formed = errors.is_empty();
        for error in errors {
            let line = error.span().map_or(0, |span| self.line(span.start));
            self.report(line, format!("not TOML: {}", error.message().trim().replace('\n', ", ")));
        }
        well_formed.then_some(table)
    }

    /// The root table as a section.
    pub fn root<'d>(&'d self, table: &'d Spanned<DeTable<'t>>) -> Section<'d> {
        Section { document: self, table: table.get_ref(), line: 1, path: String::new(), asked: RefCell::default() }
    }

    /// Adds a problem.
    pub fn report(&self, line: usize, message: impl Into<String>) {
        let problem = Problem { file: self.file.to_owned(), line, message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// Ends reading, and returns all problems found.
    pub fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }
}

/// A value and its line.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Line, from 1.
    pub line: usize,
}

/// A scalar as a user wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
}

/// One table of a document. Every key that was asked for is known; [`Section::finish`] reports the others.
pub struct Section<'d> {
    document: &'d Document<'d>,
    table: &'d DeTable<'d>,
    line: usize,
    path: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'d> Section<'d> {
    /// The line of the section's header.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Adds a problem at a line.
    pub fn report(&self, line: usize, message: impl Into<String>) {
        self.document.report(line, message);
    }

    /// Whether the key is present.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// A string.
    pub fn text(&self, key: &'static str) -> Option<At<String>> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A required string.
    pub fn required_text(&self, key: &'static str) -> Option<At<String>> {
        if !self.has(key) {
            self.report(self.line, format!("{} needs {key} = \"…\"", self.describe()));
        }
        self.text(key)
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str) -> Option<At<bool>> {
        self.read(key, "true or false", DeValue::as_bool)
    }

    /// A whole number.
    pub fn integer(&self, key: &'static str) -> Option<At<i64>> {
        self.read(key, "a whole number", integer)
    }

    /// Any number.
    pub fn number(&self, key: &'static str) -> Option<At<f64>> {
        self.read(key, "a number", |value| match scalar(value)? {
            #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 are not written by hand")]
            Scalar::Integer(number) => Some(number as f64),
            Scalar::Float(number) => Some(number),
            Scalar::Text(_) | Scalar::Bool(_) => None,
        })
    }

    /// Any scalar.
    pub fn scalar(&self, key: &'static str) -> Option<At<Scalar>> {
        self.read(key, "a string, a number or true/false", scalar)
    }

    /// A list of strings. A single string counts as a list of one.
    pub fn texts(&self, key: &'static str) -> Option<At<Vec<String>>> {
        self.read(key, "a list of strings", |value| match value {
            DeValue::Array(items) => {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            }
            other => other.as_str().map(|text| vec![text.to_owned()]),
        })
    }

    /// A list of whole numbers.
    pub fn integers(&self, key: &'static str) -> Option<At<Vec<i64>>> {
        self.read(key, "a list of whole numbers", |value| {
            value.as_array()?.iter().map(|item| integer(item.get_ref())).collect::<Option<Vec<_>>>()
        })
    }

    /// A list of scalars.
    pub fn scalars(&self, key: &'static str) -> Option<At<Vec<Scalar>>> {
        self.read(key, "a list of strings or numbers", |value| {
            value.as_array()?.iter().map(|item| scalar(item.get_ref())).collect::<Option<Vec<_>>>()
        })
    }

    /// A table.
    pub fn section(&self, key: &'static str) -> Option<Section<'d>> {
        let (value, line) = self.get(key)?;
        match value {
            DeValue::Table(table) => Some(self.child(key, table, line)),
            other => {
                self.wrong_kind(key, "a table", other, line);
                None
            }
        }
    }

    /// A list of tables (`[[key]]`); a single table counts as a list of one.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d>> {
        match self.get(key) {
            None => Vec::new(),
            Some((DeValue::Table(table), line)) => vec![self.child(key, table, line)],
            Some((DeValue::Array(items), line)) => {
                let mut sections = Vec::with_capacity(items.len());
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            sections.push(self.child(key, table, self.document.line(item.span().start)));
                        }
                        other => self.wrong_kind(key, "a list of tables", other, line),
                    }
                }
                sections
            }
            Some((other, line)) => {
                self.wrong_kind(key, "a list of tables", other, line);
                Vec::new()
            }
        }
    }

    /// A table whose keys the user chooses, each with a list of scalars (or one).
    pub fn free_table(&self, key: &'static str) -> Vec<(String, At<Vec<Scalar>>)> {
        let Some((value, line)) = self.get(key) else { return Vec::new() };
        let DeValue::Table(table) = value else {
            self.wrong_kind(key, "a table", value, line);
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (name, item) in table {
            let line = self.document.line(name.span().start);
            let values = match item.get_ref() {
                DeValue::Array(items) => items.iter().map(|item| scalar(item.get_ref())).collect(),
                other => scalar(other).map(|one| vec![one]),
            };
            match values {
                Some(value) => entries.push((name.get_ref().to_string(), At { value, line })),
                None => self.wrong_kind(key, "strings or numbers", item.get_ref(), line),
            }
        }
        entries
    }

    /// Reports every key that was not asked for.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table {
            let name: &Spanned<DeString<'_>> = name;
            let key = name.get_ref().as_ref();
            if asked.contains(&key) {
                continue;
            }
            let line = self.document.line(name.span().start);
            let hint = nearest(key, asked.iter().copied()).map_or_else(
                || format!("known here: {}", asked.join(", ")),
                |known| format!("did you mean '{known}'?"),
            );
            self.report(line, format!("unknown key '{key}' in {}; {hint}", self.describe()));
        }
    }

    fn describe(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) }
    }

    fn child(&self, key: &str, table: &'d DeTable<'d>, line: usize) -> Section<'d> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Section { document: self.document, table, line, path, asked: RefCell::default() }
    }

    fn get(&self, key: &'static str) -> Option<(&'d DeValue<'d>, usize)> {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
        }
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some((value.get_ref(), self.document.line(name.span().start)))
    }

    fn read<T>(
        &self,
        key: &'static str,
        wanted: &str,
        convert: impl FnOnce(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<At<T>> {
        let (value, line) = self.get(key)?;
        let converted = convert(value);
        if converted.is_none() {
            self.wrong_kind(key, wanted, value, line);
        }
        converted.map(|value| At { value, line })
    }

    fn wrong_kind(&self, key: &str, wanted: &str, found: &DeValue<'_>, line: usize) {
        self.report(line, format!("{key} in {} must be {wanted}, not {}", self.describe(), found.type_str()));
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn scalar(value: &DeValue<'_>) -> Option<Scalar> {
    match value {
        DeValue::String(text) => Some(Scalar::Text(text.to_string())),
        DeValue::Boolean(flag) => Some(Scalar::Bool(*flag)),
        DeValue::Integer(_) => integer(value).map(Scalar::Integer),
        DeValue::Float(number) => number.as_str().parse().ok().map(Scalar::Float),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// The known name that is most similar to `name`, if one is similar.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_at_once_with_its_line() {
        let text = "name = 3\nspeeed = 1\n[inner]\nflag = \"x\"\nzzz = 1\n";
        let document = Document::new("f.toml", text);
        let table = document.parse().unwrap();
        let root = document.root(&table);
        assert_eq!(root.text("name"), None);
        assert_eq!(root.integer("speed"), None);
        let inner = root.section("inner").unwrap();
        assert_eq!(inner.flag("flag"), None);
        inner.finish();
        root.finish();
        drop(table);
        let message = document.into_problems().to_string();
        assert_eq!(
            message,
            "f.toml:1: name in the file must be a string, not integer\n\
             f.toml:4: flag in [inner] must be true or false, not string\n\
             f.toml:5: unknown key 'zzz' in [inner]; known here: flag\n\
             f.toml:2: unknown key 'speeed' in the file; did you mean 'speed'?"
        );
    }

    #[test]
    fn an_unclosed_quote_puts_nothing_after_it_into_a_message() {
        let document = Document::new("f.toml", "x = 1\n[a\n'''\n[anonymize]\nkey = s3cr3t\n");
        assert!(document.parse().is_none());
        document.report(1, "'a\r\ns3cr3t' is not a size");
        let problems = document.into_problems();
        let message = problems.to_string();
        assert!(message.starts_with("f.toml:2: not TOML: ") && !message.contains("anonymize"), "{message}");
        assert!(message.ends_with("f.toml:1: 'a…"), "{message}");
        assert!(!message.contains("s3cr3t") && message.lines().count() == problems.iter().count(), "{message}");
    }

    #[test]
    fn syntax_errors_have_their_line() {
        let document = Document::new("f.toml", "a = 1\nb = = 2\n");
        let _ = document.parse();
        let message = document.into_problems().to_string();
        assert!(message.starts_with("f.toml:2: not TOML"), "{message}");
    }
}
