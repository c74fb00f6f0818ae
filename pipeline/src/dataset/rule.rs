//! The rules for personal values: one list.
//!
//! Owns: which rules there are, how a definition writes each, which column type each needs, and what each does to a value.
//! Does not own: the arithmetic of a value (`anonymize`), applying a rule to a column (`columns::anonymize`).
//!
//! A new rule needs a variant and an arm in each method here, and its arithmetic in `anonymize`.

use crate::anonymize::{self, AgeBands, PseudonymKey};
use crate::dataset::input_kind::InputKind;
use crate::dataset::pattern::Pattern;
use crate::time::DAY_US;
use crate::toml_reader::{At, Section};

/// First ages of the bands, if a definition does not list them: 0–17, 18–24, 25–34, 35–44, 45–54, 55–64, 65–79, 80+.
const AGE_BANDS: [i64; 7] = [18, 25, 35, 45, 55, 65, 80];
/// Microseconds in an hour.
const HOUR_US: i64 = 3_600_000_000;

/// What becomes of a personal value before it is written.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    /// Keyed HMAC, the same for the same value everywhere.
    Pseudonym,
    /// An age in years becomes a band such as `25-34`.
    AgeBand(AgeBands),
    /// A region code becomes its country. Names (lower-case) are kept only if listed.
    Region(Vec<String>),
    /// The value is never written: the column is not in the file.
    Drop,
    /// An IP address becomes its /24 or /48 network.
    TruncateIp,
    /// A point in time becomes the start of a unit of this many microseconds.
    TruncateTime(i64),
    /// An e-mail address becomes its domain, in lower case; any other text becomes null.
    EmailDomain,
    /// A value that does not match becomes null: coded answers stay, free text goes. `Err`: why the pattern is not valid.
    Match(Result<Pattern, String>),
}

/// How a rule changes the values of a column.
#[derive(Debug)]
pub(crate) enum Effect<'r> {
    /// Each text becomes the result of [`Rule::text`].
    Texts,
    /// Each number is an age, and becomes the name of its band.
    Ages(&'r AgeBands),
    /// Each time becomes the start of a unit of this many microseconds.
    Times(i64),
}

impl Rule {
    /// The names of the rules in a definition.
    const NAMES: [&str; 8] =
        ["pseudonym", "age_band", "region", "drop", "truncate_ip", "truncate_time", "email_domain", "match"];

    /// Reads a rule from the table `anonymize` of a definition.
    pub(crate) fn read(section: &Section<'_>) -> Option<At<Rule>> {
        let at = section.required_text("rule")?;
        let value = match at.value.as_str() {
            "pseudonym" => Rule::Pseudonym,
            "age_band" => {
                let bands = section.integers("bands").map_or_else(|| AGE_BANDS.to_vec(), |bands| bands.value);
                Rule::AgeBand(AgeBands::new(bands))
            }
            "region" => {
                let keep = section.texts("keep").map_or_else(Vec::new, |keep| keep.value);
                Rule::Region(keep.iter().map(|name| name.to_lowercase()).collect())
            }
            "drop" => Rule::Drop,
            "truncate_ip" => Rule::TruncateIp,
            "truncate_time" => match section.text("to").map(|to| to.value).as_deref() {
                None | Some("hour") => Rule::TruncateTime(HOUR_US),
                Some("day") => Rule::TruncateTime(DAY_US),
                Some(other) => {
                    section.report(at.line, format!("truncate_time goes to \"hour\" or \"day\", not \"{other}\""));
                    return None;
                }
            },
            "email_domain" => Rule::EmailDomain,
            "match" => {
                let pattern = section.required_text("pattern")?.value;
                Rule::Match(Pattern::new(&pattern).map_err(|problem| invalid_pattern(&pattern, &problem)))
            }
            other => {
                section.report(at.line, format!("unknown rule '{other}'; known: {}", Rule::NAMES.join(", ")));
                return None;
            }
        };
        Some(At { value, line: at.line })
    }

    /// What is wrong with the rule's parameters.
    pub(crate) fn problem(&self) -> Option<&str> {
        match self {
            Rule::AgeBand(bands) if !bands.is_valid() => Some("bands are rising ages, such as [18, 25, 35]"),
            Rule::Match(pattern) => pattern.as_ref().err().map(String::as_str),
            _ => None,
        }
    }

    /// The name of the column type that the rule needs; `None`: any.
    pub(crate) fn applies_to(&self) -> Option<&'static str> {
        match self {
            Rule::Drop => None,
            Rule::TruncateTime(_) => Some("timestamp"),
            Rule::Pseudonym
            | Rule::AgeBand(_)
            | Rule::Region(_)
            | Rule::TruncateIp
            | Rule::EmailDomain
            | Rule::Match(_) => Some("string"),
        }
    }

    /// What the scanner reads, if it is not what the column's type says.
    pub(crate) fn input(&self) -> Option<InputKind> {
        matches!(self, Rule::AgeBand(_)).then_some(InputKind::Int)
    }

    /// What it makes, in a word or two, for the graph.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Rule::Pseudonym => "pseudonyms",
            Rule::AgeBand(_) => "age bands",
            Rule::Region(_) => "regions",
            Rule::Drop => "dropped columns",
            Rule::TruncateIp => "networks",
            Rule::TruncateTime(_) => "coarser times",
            Rule::EmailDomain => "e-mail domains",
            Rule::Match(_) => "coded answers",
        }
    }

    /// How the rule changes the values of a column.
    pub(crate) fn effect(&self) -> Effect<'_> {
        match self {
            Rule::AgeBand(bands) => Effect::Ages(bands),
            Rule::TruncateTime(unit) => Effect::Times(*unit),
            Rule::Pseudonym | Rule::Region(_) | Rule::Drop | Rule::TruncateIp | Rule::EmailDomain | Rule::Match(_) => {
                Effect::Texts
            }
        }
    }

    /// What is written of a text; `None`: null. It runs once for each distinct value of a column that has a dictionary.
    pub(crate) fn text(&self, value: &[u8], key: Option<&PseudonymKey>) -> Option<Vec<u8>> {
        match self {
            Rule::Pseudonym => key.map(|key| key.pseudonym(value).to_vec()),
            Rule::Region(keep) => anonymize::region(value, keep).map(String::into_bytes),
            Rule::TruncateIp => anonymize::network(value).map(String::into_bytes),
            Rule::EmailDomain => anonymize::email_domain(value).map(String::into_bytes),
            Rule::Match(Ok(pattern)) => pattern.is_match(value).then(|| value.to_vec()),
            Rule::Match(Err(_)) | Rule::Drop | Rule::AgeBand(_) | Rule::TruncateTime(_) => None,
        }
    }
}

/// What is wrong with a regular expression of a definition.
pub(crate) fn invalid_pattern(pattern: &str, problem: &str) -> String {
    format!("'{pattern}' is not a valid regular expression ({problem})")
}
