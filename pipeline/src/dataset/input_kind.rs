//! What the scanner reads in a field, and how it stores the value in a slot.
//!
//! Owns: the kinds, and which of them one field can be read as at once. Does not own: scanning (`decode`), which kind a type
//! has (`types`, `time_format`, `rule`).

/// How the scanner stores a value in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKind {
    /// A string: its place in the record.
    Text,
    /// A whole number, as i64.
    Int,
    /// A number, as the bits of a double.
    Float,
    /// An exact number or its text, as i64: a whole number of 10^-scale, with at most this many digits.
    Decimal { precision: u8, scale: u8 },
    /// 0 or 1.
    Bool,
    /// Any value: the place of its JSON text.
    Json,
    /// Unknown fields: places of key and value, two slots each.
    Unknown,
}

/// Which other JSON values the scanner accepts, and what becomes of a value that it does not accept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// A number or boolean may come as a string.
    pub(crate) accept_text: bool,
    /// A string may come as a number.
    pub(crate) accept_number: bool,
    /// A string may come as a boolean.
    pub(crate) accept_bool: bool,
    /// A decimal may have more digits after its point than its type: it is rounded.
    pub(crate) round: bool,
    /// A value that does not fit is null, and does not reject the record.
    pub(crate) is_lenient: bool,
}

impl InputKind {
    /// The values that it reads, in words.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            InputKind::Text => "a string",
            InputKind::Int | InputKind::Float | InputKind::Decimal { .. } => "a number",
            InputKind::Bool => "a boolean",
            InputKind::Json | InputKind::Unknown => "any value",
        }
    }

    /// Whether one field can be read as this kind and as another one.
    pub(crate) fn goes_with(self, other: InputKind) -> bool {
        let number = |kind| matches!(kind, InputKind::Int | InputKind::Float | InputKind::Decimal { .. });
        let text = |kind| matches!(kind, InputKind::Text | InputKind::Decimal { .. });
        let any = |kind| matches!(kind, InputKind::Json | InputKind::Unknown);
        let both = |is: fn(InputKind) -> bool| is(self) && is(other);
        self == other || both(number) || both(text) || any(self) || any(other)
    }
}
