//! Regular expressions of definitions.
//!
//! Owns: compiling them. Does not own: where they are used (`check`, `rule`).
//!
//! One form is compiled differently: `^[class]{m,n}$`, which says how long a code may be and which characters it has. The
//! regular expression of a class such as `\w`, repeated sixty-four times, takes megabytes, and longer to build than
//! everything else at start. A class and a count of characters have the same meaning.

use regex::bytes::Regex;

/// A compiled pattern; cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    /// The fewest and the most characters of a value, if the regular expression does not limit them.
    chars: Option<(usize, usize)>,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with the pattern, in one line.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let (text, chars) = match counted_class(text) {
            Some((class, min, max)) => (format!("^{class}*$"), Some((min, max))),
            None => (text.to_owned(), None),
        };
        match Regex::new(&text) {
            Ok(regex) => Ok(Pattern { regex, chars }),
            Err(error) => Err(error.to_string().lines().last().unwrap_or_default().trim().to_owned()),
        }
    }

    /// Whether a text (UTF-8) matches.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        let long_enough = self.chars.is_none_or(|(min, max)| {
            // Bytes of UTF-8 that begin a character.
            let chars = || text.iter().filter(|byte| (**byte).cast_signed() >= -64).count();
            // A character is one to four bytes.
            text.len() >= min && text.len() <= max.saturating_mul(4) && (min..=max).contains(&chars())
        });
        long_enough && self.regex.is_match(text)
    }
}

/// The class, `m` and `n` of `^[class]{m,n}$`. A class with brackets in it, escaped or not, is left to the regular
/// expression.
fn counted_class(text: &str) -> Option<(&str, usize, usize)> {
    let (class, counts) = text.strip_prefix('^')?.strip_suffix("}$")?.split_once(']')?;
    let inside = class.strip_prefix('[')?;
    if inside.is_empty() || inside == "^" || inside.contains('[') || inside.ends_with('\\') {
        return None;
    }
    let (min, max) = counts.strip_prefix('{')?.split_once(',')?;
    let (min, max) = (min.parse().ok()?, max.parse().ok()?);
    let class = &text[1..class.len() + 2];
    (min <= max).then_some((class, min, max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counted_class_is_distinguished_from_other_patterns() {
        assert_eq!(counted_class("^[a-z_]{1,32}$"), Some(("[a-z_]", 1, 32)));
        assert_eq!(counted_class(r"^[\w .:/+-]{0,64}$"), Some((r"[\w .:/+-]", 0, 64)));
        for other in
            ["^[a-z]+$", "^[a-z]{3}$", "[a-z]{1,3}", "^[a]{1,3}[b]{1,3}$", "^[[:alpha:]]{1,3}$", r"^[a\]b]{1,3}$"]
        {
            assert_eq!(counted_class(other), None, "{other}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_described_in_one_line() {
        assert_eq!(Pattern::new("(a").unwrap_err(), "error: unclosed group");
        assert_eq!(Pattern::new("^[z-a]{1,2}$").unwrap_err().lines().count(), 1);
    }

    proptest! {
        #[test]
        fn a_counted_class_matches_what_the_regex_does(
            class in prop::sample::select(vec![r"[\w .:/+-]", "[a-c]", "[^a-c]", "[é-ü0-9]", r"[\d\n]"]),
            (min, more) in (0_usize..4, 0_usize..4),
            text in "[a-d0-3 é😀\n.]{0,8}",
        ) {
            let written = format!("^{class}{{{min},{}}}$", min + more);
            let pattern = Pattern::new(&written).unwrap();
            prop_assert!(pattern.chars.is_some());
            prop_assert_eq!(pattern.is_match(text.as_bytes()), Regex::new(&written).unwrap().is_match(text.as_bytes()));
        }
    }
}
