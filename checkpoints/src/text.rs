//! Names as types: the macro that defines a text newtype, and the error for a text that is not valid.
//!
//! Every name of this crate (stream, shard, owner, manifest) is defined by [`text_newtype!`]. So each of them is checked by one
//! constructor, is cheap to clone, and has the same form in JSON and on screen.
//!
//! It does not own what each name means or how long it may be: each name's definition says so.

/// A text that is not valid: a name that is too long, a sequence number with a letter in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {problem}")]
pub struct InvalidText {
    /// What the text should be, as in "shard id".
    pub what: &'static str,
    /// The text, or its beginning if it is long.
    pub text: String,
    /// What is wrong with it, as in "is empty".
    pub problem: String,
}

/// How many characters of an invalid text its error shows.
const SHOWN_CHARS_MAX: usize = 200;

impl InvalidText {
    pub(crate) fn new(what: &'static str, text: &str, problem: impl Into<String>) -> Self {
        Self { what, text: text.chars().take(SHOWN_CHARS_MAX).collect(), problem: problem.into() }
    }
}

/// The rule that all names share: not empty, at most `bytes_max` bytes, no control characters.
pub(crate) fn check_name(what: &'static str, text: &str, bytes_max: usize) -> Result<(), InvalidText> {
    if text.is_empty() {
        Err(InvalidText::new(what, text, "is empty"))
    } else if text.len() > bytes_max {
        Err(InvalidText::new(what, text, format!("has {} bytes, at most {bytes_max} are allowed", text.len())))
    } else if text.chars().any(char::is_control) {
        Err(InvalidText::new(what, text, "has a control character"))
    } else {
        Ok(())
    }
}

/// Defines a text newtype: `text_newtype!(/// docs. Name, "name in messages", bytes_max)`.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            #[doc = concat!("Checks a ", $what, ".\n\n# Errors\n\nThe text breaks the rule in the type's description.")]
            pub fn new(text: impl AsRef<str>) -> Result<Self, $crate::text::InvalidText> {
                let text = text.as_ref();
                $crate::text::check_name($what, text, $bytes_max)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::text::InvalidText;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}
pub(crate) use text_newtype;
