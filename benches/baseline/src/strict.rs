//! A second, slower parser, for the few records that serde_json does not decide.
//!
//! These are records that serde_json refuses, and records with a whole number that has a fraction or an exponent, which
//! serde_json rounds. Its errors do not distinguish the product's codes. It also refuses what is allowed: numbers beyond a
//! double that nobody reads, and 128 levels of nesting. Here every number keeps its text, except plain whole numbers.
//!
//! The first fault counts, in the order of the text. A document that ends too early is [`Code::Truncated`].

use crate::code::Code;
use crate::tree::Json;

/// The most levels of nested arrays and objects.
const DEPTH_MAX: usize = 128;

/// Parses `bytes` as one JSON document.
pub(crate) fn parse(bytes: &[u8]) -> Result<Json, Code> {
    let text = std::str::from_utf8(bytes).map_err(|_| Code::NotUtf8)?;
    let mut parser = Parser { text, at: 0 };
    parser.white_space();
    let value = parser.value(0)?;
    parser.white_space();
    match parser.peek() {
        None => Ok(value),
        // A line of a log may begin like a number.
        Some(_) if !matches!(value, Json::Object(_) | Json::List(_)) => Err(Code::NotJson),
        Some(b'{' | b'[') => Err(Code::MultipleDocuments),
        Some(_) => Err(Code::TrailingBytes),
    }
}

/// Parses a text as a number, if it is one and nothing else.
pub(crate) fn number(text: &str) -> Option<Json> {
    let mut parser = Parser { text, at: 0 };
    parser.number().ok().filter(|_| parser.at == text.len())
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn broken(&self) -> Code {
        if self.at < self.text.len() { Code::NotJson } else { Code::Truncated }
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Code> {
        if self.peek() != Some(byte) {
            return Err(self.broken());
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, Code> {
        word.bytes().try_for_each(|byte| self.expect(byte)).map(|()| value)
    }

    fn value(&mut self, depth: usize) -> Result<Json, Code> {
        match self.peek() {
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'[' | b'{') if depth == DEPTH_MAX => Err(Code::TooDeep),
            Some(b'[') => {
                let mut elements = Vec::new();
                self.elements(b']', |parser| parser.value(depth + 1).map(|element| elements.push(element)))?;
                Ok(Json::List(elements))
            }
            Some(b'{') => {
                let mut members = Vec::new();
                self.elements(b'}', |parser| {
                    if parser.peek() != Some(b'"') {
                        return Err(parser.broken());
                    }
                    let key = parser.string()?;
                    parser.white_space();
                    parser.expect(b':')?;
                    parser.white_space();
                    parser.value(depth + 1).map(|value| members.push((key, value)))
                })?;
                Ok(Json::Object(members))
            }
            _ => Err(self.broken()),
        }
    }

    /// Parses what is between brackets, including the opening one.
    fn elements(&mut self, close: u8, mut element: impl FnMut(&mut Self) -> Result<(), Code>) -> Result<(), Code> {
        self.at += 1;
        self.white_space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            element(self)?;
            self.white_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.broken()),
            }
            self.white_space();
        }
    }

    fn digits(&mut self) -> Result<(), Code> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.broken());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Json, Code> {
        let begin = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let leading_zero = self.peek() == Some(b'0');
        let first = self.at;
        self.digits()?;
        if leading_zero && self.at > first + 1 {
            self.at = first + 1;
            return Err(Code::NotJson);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let text = &self.text[begin..self.at];
        Ok(match text.parse() {
            // As a double, -0 differs from 0.
            Ok(number) if text != "-0" => Json::Whole(number),
            _ => Json::Number(text.to_owned()),
        })
    }

    /// Parses the string whose opening quote is next.
    fn string(&mut self) -> Result<String, Code> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1F)).count();
            text.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => return Err(self.broken()),
            }
        }
    }

    /// Parses the escape whose backslash is next.
    fn escape(&mut self) -> Result<char, Code> {
        self.at += 1;
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.broken()),
        };
        self.at += 1;
        Ok(character)
    }

    /// Parses a `\u` escape whose digits are next.
    fn unicode(&mut self) -> Result<char, Code> {
        let unit = self.code_unit()?;
        if !(0xD800..0xDC00).contains(&unit) {
            return char::from_u32(unit).ok_or(Code::UnpairedSurrogate);
        }
        for byte in [b'\\', b'u'] {
            match self.peek() {
                Some(found) if found == byte => self.at += 1,
                Some(_) => return Err(Code::UnpairedSurrogate),
                None => return Err(Code::Truncated),
            }
        }
        let low = self.code_unit()?;
        if !(0xDC00..0xE000).contains(&low) {
            return Err(Code::UnpairedSurrogate);
        }
        char::from_u32(0x10000 + (unit - 0xD800) * 0x400 + (low - 0xDC00)).ok_or(Code::UnpairedSurrogate)
    }

    fn code_unit(&mut self) -> Result<u32, Code> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(|| self.broken())?;
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_fault_has_its_code() {
        for (text, code) in [
            (r#"{"a":tru"#, Code::Truncated),
            (r#"{"a":trux}"#, Code::NotJson),
            (r#"{"a":1.}"#, Code::NotJson),
            (r#"{"a":01}"#, Code::NotJson),
            (r#"{"a":1e"#, Code::Truncated),
            (r#"{"a" 1}"#, Code::NotJson),
            (r#"{"a":1,}"#, Code::NotJson),
            ("{\"a\":\"\t\"}", Code::NotJson),
            (r#"{"a":"\x41"}"#, Code::NotJson),
            (r#"{"a":"\ud83d"}"#, Code::UnpairedSurrogate),
            (r#"{"a":"\ud83d\u0041"}"#, Code::UnpairedSurrogate),
            (r#"{"a":"\ude00"}"#, Code::UnpairedSurrogate),
            (r#"{"a":"\ud83d"#, Code::Truncated),
            (r#"{"a":"\ud83d\"#, Code::Truncated),
            ("{}{}", Code::MultipleDocuments),
            ("{} x", Code::TrailingBytes),
            ("", Code::Truncated),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(code), "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(Code::NotUtf8));
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(parse(nested(128).as_bytes()).is_ok());
        assert_eq!(parse(nested(129).as_bytes()), Err(Code::TooDeep));
    }

    #[test]
    fn numbers_keep_their_text() {
        assert_eq!(number("12"), Some(Json::Whole(12)));
        assert_eq!(number("12.0"), Some(Json::Number("12.0".to_owned())));
        assert_eq!(number("-0"), Some(Json::Number("-0".to_owned())));
        assert_eq!(number("1e999"), Some(Json::Number("1e999".to_owned())));
        for text in ["", " 1", "1 ", "+1", ".5", "0x1", "NaN"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts(text in "[\\[\\]{}:,\"a1 .eE+\\-tfnu\\\\]{0,12}") {
            let theirs = serde_json::from_str::<Json>(&text);
            // serde_json refuses numbers beyond a double.
            prop_assume!(!theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range")));
            prop_assert_eq!(parse(text.as_bytes()).is_ok(), theirs.is_ok(), "{}", text);
        }

        #[test]
        fn texts_come_back(text in any::<String>()) {
            let json = serde_json::Value::from(text.as_str()).to_string();
            prop_assert_eq!(parse(json.as_bytes()), Ok(Json::Text(text)));
        }
    }
}
