//! Text of an expression → tokens.
//!
//! Owns: which characters form a token, and the messages of syntax errors. Does not own: which tokens may follow each other.

use super::Kind;
use crate::dynamodb::error::Refused;

/// A token with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) what: What,
    pub(super) text: &'a str,
    start: usize,
}

/// The kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Word,
    Name,
    Value,
    Number,
    Symbol,
    End,
}

/// The tokens of a text, with `End` as the last.
pub(super) struct Tokens<'a> {
    kind: Kind,
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn of(kind: Kind, text: &'a str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Err(kind.invalid("The expression can not be empty;"));
        }
        if text.len() > 4096 {
            return Err(kind.invalid(format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            )));
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start();
            let start = text.len() - rest.len();
            let Some(first) = rest.chars().next() else {
                tokens.push(Token { what: What::End, text: "<EOF>", start });
                return Ok(Tokens { kind, text, tokens, at: 0 });
            };
            let part = |c: char| c.is_alphanumeric() || c == '_';
            let run = |from: usize| rest[from..].find(|c| !part(c)).map_or(rest.len(), |end| from + end);
            let (what, length) = match first {
                '#' => (What::Name, run(1)),
                ':' => (What::Value, run(1)),
                c if c.is_ascii_digit() => (What::Number, run(0)),
                c if c.is_alphabetic() || c == '_' => (What::Word, run(0)),
                '<' | '>' if rest[1..].starts_with('=') || rest.starts_with("<>") => (What::Symbol, 2),
                '(' | ')' | '[' | ']' | '.' | ',' | '=' | '<' | '>' | '+' | '-' => (What::Symbol, 1),
                other => {
                    let near: String = rest.chars().take(8).collect();
                    return Err(kind.invalid(format!("Syntax error; token: \"{other}\", near: \"{near}\"")));
                }
            };
            tokens.push(Token { what, text: &rest[..length], start });
            rest = &rest[length..];
        }
    }

    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    /// The token after the next one.
    pub(super) fn second(&self) -> Token<'a> {
        self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.tokens[self.at];
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// Takes the symbol if it is next.
    pub(super) fn take(&mut self, symbol: &str) -> bool {
        let found = self.peek().what == What::Symbol && self.peek().text == symbol;
        if found {
            self.next();
        }
        found
    }

    /// Takes the keyword if it is next, in any case.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.peek().what == What::Word && self.peek().text.eq_ignore_ascii_case(word)
    }

    pub(super) fn expect(&mut self, symbol: &str) -> Result<(), Refused> {
        if self.take(symbol) { Ok(()) } else { Err(self.syntax_error()) }
    }

    /// Whether the pair of parentheses that was just opened contains another pair and nothing else.
    pub(super) fn doubled(&self) -> bool {
        if self.peek().text != "(" {
            return false;
        }
        let mut depth = 0_usize;
        for (index, token) in self.tokens.iter().enumerate().skip(self.at) {
            match token.text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return self.tokens.get(index + 1).is_some_and(|next| next.text == ")");
            }
        }
        false
    }

    /// The error of a misplaced next token.
    pub(super) fn syntax_error(&self) -> Refused {
        let token = self.peek();
        let start = self.tokens[self.at.saturating_sub(1)].start;
        let last = self.second();
        let end = if last.what == What::End { self.text.len() } else { last.start + last.text.len() };
        let near = self.text[start..end].trim_end();
        self.kind.invalid(format!("Syntax error; token: \"{}\", near: \"{near}\"", token.text))
    }
}
