//! A key of `shardlake.toml`: how it is read, checked, shown and documented, in one place.
//!
//! Owns: the kinds of values and their rules. Does not own: which keys there are (`config::keys`, and the backends of sources
//! and lakes for their own), or walking the document (`pipeline::toml_reader`).
//!
//! A key belongs to a structure `S`, which holds the values of its section. Everything that knows a key uses its entry: reading
//! a file, a flag of the command line, the default, `config check` and the table in `docs/configuration.md`.

pub(crate) mod units;
pub(crate) mod url;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use pipeline::toml_reader::{At, Scalar, Section};
use serde_json::Value;

use crate::settings::units::{parse_bytes, parse_duration, write_bytes, write_duration};

/// One key of a section.
pub struct Key<S: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind<S>,
    /// The value if the key is absent.
    pub default: Fallback,
    /// What it means, in one sentence or two.
    pub doc: &'static str,
}

/// The values of a key.
pub enum Kind<S: 'static> {
    /// Bytes, within a range.
    Size(fn(&mut S) -> &mut u64, RangeInclusive<u64>),
    /// A time, of at least this.
    Time(fn(&mut S) -> &mut Duration, Duration),
    /// A whole number, within a range.
    Count(fn(&mut S) -> &mut usize, RangeInclusive<usize>),
    /// `true` or `false`.
    Flag {
        /// Keeps a value.
        read: fn(&mut S, bool),
        /// The value; `None` if it means nothing beside the other keys.
        show: fn(&S) -> Option<bool>,
    },
    /// A whole number with a rule of its own.
    Level {
        /// Checks and keeps a value.
        read: fn(&mut S, i64) -> Result<(), String>,
        /// The value; `None` if it means nothing beside the other keys.
        show: fn(&S) -> Option<i64>,
    },
    /// A text with a rule of its own.
    Text {
        /// What it looks like, for the documentation.
        form: &'static str,
        /// Checks and keeps a value.
        read: fn(&mut S, &str) -> Result<(), String>,
        /// The value; `None` if there is none.
        show: fn(&S) -> Option<String>,
    },
    /// A table of texts.
    Texts(fn(&mut S) -> &mut BTreeMap<String, String>),
}

/// The value if a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This one.
    Is(&'static str),
    /// None: its section needs the key.
    Required,
    /// It depends on something else, as this text says.
    Depends(&'static str),
}

/// A key as the documentation has it, in Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub value: String,
    /// The value if it is absent.
    pub default: String,
    /// What it means.
    pub meaning: String,
}

/// A key, whatever structure its values are in.
pub trait Setting<S>: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Reads the key of a section, if it is there, and reports what is wrong with it.
    fn read(&self, section: &Section<'_>, into: &mut S);

    /// Keeps a value that is a text, as a flag of the command line or a default.
    ///
    /// # Errors
    /// A sentence for the user.
    fn set(&self, into: &mut S, text: &str) -> Result<(), String>;

    /// Keeps the default, if there is one.
    fn set_default(&self, into: &mut S);

    /// The value as TOML; `None` if there is none to be shown.
    fn show(&self, from: &mut S) -> Option<String>;

    /// The key for the documentation.
    fn document(&self) -> KeyDoc;

    /// The backend that the key is for, if another one is chosen.
    fn misplaced(&self, _: &S) -> Option<&'static str> {
        None
    }
}

impl<S> Setting<S> for Key<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn read(&self, section: &Section<'_>, into: &mut S) {
        let name = self.name;
        if self.default == Fallback::Required && !section.has(name) {
            // Reports that the key is missing.
            section.required_text(name);
            return;
        }
        let result = match &self.kind {
            Kind::Size(field, range) => read_at(section.scalar(name), |value| {
                let bytes = match value {
                    Scalar::Text(text) => parse_bytes(&text),
                    Scalar::Integer(number) => {
                        u64::try_from(number).map_err(|_| format!("{name} must not be negative"))
                    }
                    Scalar::Float(_) | Scalar::Bool(_) => Err(format!("{name} must be a size such as \"64 MiB\"")),
                };
                keep(name, field(into), bytes?, range, |bytes| write_bytes(*bytes))
            }),
            Kind::Count(field, range) => read_at(section.integer(name), |number| {
                let number = usize::try_from(number).map_err(|_| format!("{name} must not be negative"))?;
                keep(name, field(into), number, range, ToString::to_string)
            }),
            Kind::Flag { read, .. } => read_at(section.flag(name), |value| {
                read(into, value);
                Ok(())
            }),
            Kind::Level { read, .. } => read_at(section.integer(name), |number| read(into, number)),
            Kind::Time(..) | Kind::Text { .. } => read_at(section.text(name), |text| self.set(into, &text)),
            Kind::Texts(field) => {
                for (key, At { value, line }) in section.free_table(name) {
                    match value.as_slice() {
                        [Scalar::Text(value)] => drop(field(into).insert(key, value.clone())),
                        _ => section.report(line, format!("'{key}' in {name} must be a text")),
                    }
                }
                Ok(())
            }
        };
        if let Err((line, message)) = result {
            section.report(line, message);
        }
    }

    fn set(&self, into: &mut S, text: &str) -> Result<(), String> {
        let name = self.name;
        let number = || text.parse::<i64>().map_err(|_| format!("{name} must be a whole number, not '{text}'"));
        match &self.kind {
            Kind::Size(field, range) => keep(name, field(into), parse_bytes(text)?, range, |bytes| write_bytes(*bytes)),
            Kind::Time(field, least) => {
                let range = *least..=Duration::MAX;
                keep(name, field(into), parse_duration(text)?, &range, |time| write_duration(*time))
            }
            Kind::Count(field, range) => {
                let number = usize::try_from(number()?).map_err(|_| format!("{name} must not be negative"))?;
                keep(name, field(into), number, range, ToString::to_string)
            }
            Kind::Flag { read, .. } => {
                read(into, text.parse().map_err(|_| format!("{name} must be true or false, not '{text}'"))?);
                Ok(())
            }
            Kind::Level { read, .. } => read(into, number()?),
            Kind::Text { read, .. } => read(into, text),
            Kind::Texts(_) => Err(format!("{name} is a table")),
        }
    }

    fn set_default(&self, into: &mut S) {
        if let Fallback::Is(text) = self.default {
            self.set(into, text).expect("a test reads every default");
        }
    }

    fn show(&self, from: &mut S) -> Option<String> {
        match &self.kind {
            Kind::Size(field, _) => Some(quoted(&write_bytes(*field(from)))),
            Kind::Time(field, _) => Some(quoted(&write_duration(*field(from)))),
            Kind::Count(field, _) => Some(field(from).to_string()),
            Kind::Flag { show, .. } => show(from).map(|flag| flag.to_string()),
            Kind::Level { show, .. } => show(from).map(|level| level.to_string()),
            Kind::Text { show, .. } => show(from).map(|text| quoted(&text)),
            Kind::Texts(field) => {
                let texts: Vec<String> =
                    field(from).iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
                (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
            }
        }
    }

    fn document(&self) -> KeyDoc {
        let value = match &self.kind {
            Kind::Size(_, range) => bounds("size", range, &[1, u64::MAX], |bytes| write_bytes(*bytes)),
            Kind::Time(_, least) => {
                bounds("time", &(*least..=Duration::MAX), &[Duration::ZERO, Duration::MAX], |time| {
                    write_duration(*time)
                })
            }
            Kind::Count(_, range) => bounds("number", range, &[0, usize::MAX], ToString::to_string),
            Kind::Flag { .. } => "`true` or `false`".to_owned(),
            Kind::Level { .. } => "number".to_owned(),
            Kind::Text { form, .. } => (*form).to_owned(),
            Kind::Texts(_) => "table of texts".to_owned(),
        };
        let default = match self.default {
            Fallback::Is(text) => format!("`{text}`"),
            Fallback::Required => "required".to_owned(),
            Fallback::Depends(text) => text.to_owned(),
        };
        KeyDoc { name: self.name, value, default, meaning: self.doc.to_owned() }
    }
}

/// Keys of a structure `T` that is a part of `S`.
pub struct Within<S: 'static, T> {
    /// The key.
    pub key: Box<dyn Setting<T>>,
    /// Where the part is.
    pub part: fn(&mut S) -> &mut T,
    /// The one backend that the key is for, and which one is chosen.
    pub only: Option<Only<S>>,
}

/// A backend's name, and the name of the chosen backend.
pub type Only<S> = (&'static str, fn(&S) -> Option<&'static str>);

impl<S, T> Setting<S> for Within<S, T> {
    fn name(&self) -> &'static str {
        self.key.name()
    }

    fn read(&self, section: &Section<'_>, into: &mut S) {
        self.key.read(section, (self.part)(into));
    }

    fn set(&self, into: &mut S, text: &str) -> Result<(), String> {
        self.key.set((self.part)(into), text)
    }

    fn set_default(&self, into: &mut S) {
        self.key.set_default((self.part)(into));
    }

    fn show(&self, from: &mut S) -> Option<String> {
        if self.misplaced(from).is_some() {
            return None;
        }
        self.key.show((self.part)(from))
    }

    fn document(&self) -> KeyDoc {
        let mut doc = self.key.document();
        if let Some((backend, _)) = self.only {
            doc.meaning = format!("{backend} only. {}", doc.meaning);
        }
        doc
    }

    fn misplaced(&self, of: &S) -> Option<&'static str> {
        let (backend, chosen) = self.only?;
        (chosen(of) != Some(backend)).then_some(backend)
    }
}

/// Checks a value and keeps it.
fn keep<T: PartialOrd>(
    name: &str,
    field: &mut T,
    value: T,
    range: &RangeInclusive<T>,
    write: impl Fn(&T) -> String,
) -> Result<(), String> {
    if value < *range.start() {
        return Err(format!("{name} must be at least {}, not {}", write(range.start()), write(&value)));
    }
    if value > *range.end() {
        return Err(format!("{name} must be at most {}, not {}", write(range.end()), write(&value)));
    }
    *field = value;
    Ok(())
}

/// A kind of value and its range in words. Ends that are not worth a word are given in `open`.
fn bounds<T: PartialEq>(kind: &str, range: &RangeInclusive<T>, open: &[T; 2], write: impl Fn(&T) -> String) -> String {
    let (least, most) = (write(range.start()), write(range.end()));
    match [*range.start() == open[0], *range.end() == open[1]] {
        [true, true] => kind.to_owned(),
        [false, true] => format!("{kind}, at least {least}"),
        [true, false] => format!("{kind}, at most {most}"),
        [false, false] => format!("{kind}, {least} to {most}"),
    }
}

/// Hands a value to `keep`, and adds its line to what is wrong with it.
fn read_at<T>(at: Option<At<T>>, keep: impl FnOnce(T) -> Result<(), String>) -> Result<(), (usize, String)> {
    let Some(At { value, line }) = at else { return Ok(()) };
    keep(value).map_err(|message| (line, message))
}

/// A text of TOML. JSON's escapes are a part of TOML's, which also wants DEL escaped.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
