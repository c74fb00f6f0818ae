//! The grammar of update expressions: SET, REMOVE, ADD and DELETE, each once, and the sums and functions of SET.
//!
//! Does not own: paths and values, which are the same as in conditions (`parse`), or the effect of an update.

use super::super::lexer::What;
use super::super::{Term, Update};
use super::{FUNCTIONS, Parser};
use crate::dynamodb::error::Refused;
use crate::dynamodb::value::Value;

impl Parser<'_, '_> {
    pub(super) fn update(&mut self) -> Result<Update, Refused> {
        let mut update = Update::default();
        let mut seen: Vec<&str> = Vec::new();
        while self.tokens.peek().what != What::End {
            let Some(clause) = ["SET", "REMOVE", "ADD", "DELETE"].into_iter().find(|word| self.tokens.take_word(word))
            else {
                return Err(self.tokens.syntax_error());
            };
            if seen.contains(&clause) {
                return Err(self
                    .kind
                    .invalid(format!("The \"{clause}\" section can only be used once in an update expression;")));
            }
            seen.push(clause);
            loop {
                self.action(clause, &mut update)?;
                if !self.tokens.take(",") {
                    break;
                }
            }
        }
        Ok(update)
    }

    fn action(&mut self, clause: &str, update: &mut Update) -> Result<(), Refused> {
        let path = self.path()?;
        match clause {
            "SET" => {
                self.tokens.expect("=")?;
                let term = self.sum()?;
                update.set.push((path, term));
            }
            "REMOVE" => update.remove.push(path),
            _ => {
                let token = self.tokens.peek();
                if token.what != What::Value {
                    return Err(self.tokens.syntax_error());
                }
                self.tokens.next();
                let value = self.placeholders.value(self.kind, token.text)?;
                let set = matches!(value, Value::Ss(_) | Value::Ns(_) | Value::Bs(_));
                let fits = set || (clause == "ADD" && matches!(value, Value::N(_)));
                if !fits {
                    return Err(self.kind.invalid(format!(
                        "Incorrect operand type for operator or function; operator: {clause}, operand type: {}",
                        value.long_type_name()
                    )));
                }
                if clause == "ADD" { &mut update.add } else { &mut update.delete }.push((path, value));
            }
        }
        Ok(())
    }

    fn sum(&mut self) -> Result<Term, Refused> {
        let left = self.term()?;
        let operator = self.tokens.peek().text;
        if !self.tokens.take("+") && !self.tokens.take("-") {
            return Ok(left);
        }
        self.operator()?;
        let right = self.term()?;
        for term in [&left, &right] {
            match term {
                Term::Value(value) if !matches!(value, Value::N(_)) => {
                    return Err(self.wrong_type(operator, value.long_type_name()));
                }
                _ => {}
            }
        }
        let (left, right) = (Box::new(left), Box::new(right));
        Ok(if operator == "+" { Term::Plus(left, right) } else { Term::Minus(left, right) })
    }

    fn term(&mut self) -> Result<Term, Refused> {
        let token = self.tokens.peek();
        if token.what == What::Value {
            self.tokens.next();
            return Ok(Term::Value(self.placeholders.value(self.kind, token.text)?));
        }
        if token.text == "(" {
            self.deeper()?;
            self.tokens.next();
            let inner = self.sum()?;
            self.tokens.expect(")")?;
            self.depth -= 1;
            return Ok(inner);
        }
        if token.what != What::Word || self.tokens.second().text != "(" {
            return Ok(Term::Path(self.path()?));
        }
        self.operator()?;
        self.deeper()?;
        let term = match token.text {
            "if_not_exists" => {
                self.tokens.next();
                self.tokens.expect("(")?;
                let path = self.path()?;
                self.tokens.expect(",")?;
                Term::IfNotExists(path, Box::new(self.term()?))
            }
            "list_append" => {
                self.tokens.next();
                self.tokens.expect("(")?;
                let left = self.term()?;
                self.tokens.expect(",")?;
                let right = self.term()?;
                for term in [&left, &right] {
                    match term {
                        Term::Value(value) if !matches!(value, Value::L(_)) => {
                            return Err(self.wrong_type("list_append", value.long_type_name()));
                        }
                        _ => {}
                    }
                }
                Term::ListAppend(Box::new(left), Box::new(right))
            }
            name if FUNCTIONS.contains(&name) => {
                return Err(self
                    .kind
                    .invalid(format!("The function is not allowed in an update expression; function: {name}")));
            }
            name => return Err(self.kind.invalid(format!("Invalid function name; function: {name}"))),
        };
        self.tokens.expect(")")?;
        self.depth -= 1;
        Ok(term)
    }
}
