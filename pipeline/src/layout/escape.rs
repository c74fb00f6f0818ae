//! Values of partition columns as Hive writes them into a path.
//!
//! Owns: the escaping, in both directions, and the value that means null. Does not own: the path (`hive`, which also tests
//! this file).
//!
//! Text values are percent-encoded as Hive's `FileUtils.escapePathName` does it.
//!
//! Three additions to Hive's rules:
//!
//! - The control characters U+0080 to U+009F, which a terminal may obey, are written as the escaped bytes of their UTF-8.
//! - So are line separators and the characters that change the direction of text (U+202A to U+202E, U+2066 to U+2069).
//! - A value that equals the name of the default partition gets its first byte escaped, so that it is not read as null.
//!
//! DuckDB, pyarrow and Polars read escaped bytes back as the original text. Hive and Spark read one character per byte.

/// The segment value that means null, and the empty string.
pub(super) const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Appends a value as Hive writes it into a path.
pub(super) fn escape(value: &[u8], path: &mut String) {
    if value.is_empty() {
        return path.push_str(NULL);
    }
    if value == NULL.as_bytes() {
        path.push_str("%5F");
        return path.push_str(&NULL[1..]);
    }
    for character in String::from_utf8_lossy(value).chars() {
        match character {
            '\0'..='\x1F'
            | '\x7F'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '}'
            | '['
            | ']'
            | '^'
            | '<'
            | '>'
            | '|'
            | '\u{80}'..='\u{9F}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}' => {
                let mut bytes = [0; 4];
                character.encode_utf8(&mut bytes).bytes().for_each(|byte| path.push_str(&format!("%{byte:02X}")));
            }
            other => path.push(other),
        }
    }
}

/// The inverse of [`escape`] for values that are not null. `None` if an escape or the result is not valid.
pub(super) fn unescape(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (digits, after) = after.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
