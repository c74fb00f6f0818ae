//! JSON Pointers (RFC 6901) as dataset definitions use them: paths through objects, never into arrays by index.
//!
//! Limits: 30 keys. Two pointers are joined where a struct's fields are read, and the JSON Schema has two levels for each
//! key: so it stays within the 128 levels at which many readers of JSON stop, as records do.

use std::fmt;

/// Keys of a pointer at most.
const KEYS_MAX: usize = 30;

/// A path from the top of a record to a field, by object keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// Parses `/a/b`; `~1` stands for `/` and `~0` for `~` in a key, as RFC 6901 has it.
    ///
    /// # Errors
    /// A sentence for the user: the empty pointer, a missing leading slash, a stray `~`, too many keys.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("'{text}' is no JSON Pointer: write '/{}'", text.trim_start_matches(['$', '.'])));
        };
        let mut keys = Vec::new();
        for token in rest.split('/') {
            let bare = token.replace("~1", "").replace("~0", "");
            if bare.contains('~') {
                return Err(format!("'{text}': in a JSON Pointer write '~0' for '~' and '~1' for '/'"));
            }
            keys.push(token.replace("~1", "/").replace("~0", "~"));
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("a pointer of {} keys: it may have {KEYS_MAX}", keys.len()));
        }
        Ok(Pointer(keys))
    }

    /// The pointer to a field of the record itself.
    pub(crate) fn of_key(key: &str) -> Self {
        Pointer(vec![key.to_owned()])
    }

    /// The keys from the top down; at least one.
    pub(crate) fn keys(&self) -> &[String] {
        &self.0
    }

    /// Whether it leads to something inside the value that another one leads to.
    pub(crate) fn is_below(&self, other: &Pointer) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// This pointer with another below it.
    #[must_use]
    pub(crate) fn join(&self, below: &Pointer) -> Pointer {
        Pointer(self.0.iter().chain(&below.0).cloned().collect())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|key| write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_read_and_written_as_rfc_6901_has_it() {
        for text in ["/a", "/a/b", "/a~1b/c~0d", "/"] {
            assert_eq!(Pointer::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pointer::parse("/a~1b").unwrap().keys(), ["a/b"]);
    }

    #[test]
    fn a_path_in_another_notation_is_refused_with_what_to_write() {
        assert_eq!(Pointer::parse("$.score").unwrap_err(), "'$.score' is no JSON Pointer: write '/score'");
        assert!(Pointer::parse("/a~").is_err());
    }

    #[test]
    fn a_pointer_has_thirty_keys_at_most() {
        assert!(Pointer::parse(&"/a".repeat(30)).is_ok());
        assert_eq!(Pointer::parse(&"/a".repeat(31)).unwrap_err(), "a pointer of 31 keys: it may have 30");
    }
}
