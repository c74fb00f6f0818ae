//! Text of an expression → its tree.
//!
//! Owns: the grammar of condition, update and projection expressions, reserved words, and the errors of an
//! expression that do not depend on the item (update expressions: `updates`). Does not own: evaluation.
//!
//! Sources: "Condition and filter expressions", "Update expressions", "Reserved words" (`reserved.txt` is their list) of the
//! DynamoDB guide.

mod updates;

use super::lexer::{Tokens, What};
use super::{Comparator, Condition, Kind, Operand, Path, Placeholders, Step, Update};
use crate::dynamodb::error::Refused;
use crate::dynamodb::value::Value;

/// The reserved words, which need a `#name`, sorted.
static RESERVED: &str = include_str!("reserved.txt");

/// The most operators and functions of one expression.
const OPERATORS_MAX: usize = 300;
/// The deepest nesting of parentheses and NOT.
const NESTING_MAX: usize = 128;

const FUNCTIONS: [&str; 8] = [
    "attribute_exists",
    "attribute_not_exists",
    "attribute_type",
    "begins_with",
    "contains",
    "size",
    "if_not_exists",
    "list_append",
];

struct Parser<'a, 'p> {
    kind: Kind,
    tokens: Tokens<'a>,
    placeholders: &'p mut Placeholders,
    operators: usize,
    depth: usize,
}

/// Parses a condition, filter or key condition.
///
/// # Errors
/// If the text is not valid.
pub fn condition(kind: Kind, text: &str, placeholders: &mut Placeholders) -> Result<Condition, Refused> {
    let mut parser = Parser::of(kind, text, placeholders)?;
    let condition = parser.or()?;
    parser.end()?;
    Ok(condition)
}

/// Parses an update expression.
///
/// # Errors
/// If the text is not valid, or two of its paths overlap.
pub fn update(text: &str, placeholders: &mut Placeholders) -> Result<Update, Refused> {
    let mut parser = Parser::of(Kind::Update, text, placeholders)?;
    let update = parser.update()?;
    distinct(Kind::Update, &update.paths().collect::<Vec<_>>())?;
    Ok(update)
}

/// Parses a projection expression.
///
/// # Errors
/// If the text is not valid, or two of its paths overlap.
pub fn projection(text: &str, placeholders: &mut Placeholders) -> Result<Vec<Path>, Refused> {
    let mut parser = Parser::of(Kind::Projection, text, placeholders)?;
    let mut paths = vec![parser.path()?];
    while parser.tokens.take(",") {
        paths.push(parser.path()?);
    }
    parser.end()?;
    distinct(Kind::Projection, &paths.iter().collect::<Vec<_>>())?;
    Ok(paths)
}

fn distinct(kind: Kind, paths: &[&Path]) -> Result<(), Refused> {
    for (index, one) in paths.iter().enumerate() {
        for two in &paths[index + 1..] {
            let what = match (one.overlaps(two), one.conflicts(two)) {
                (true, _) => "overlap",
                (false, true) => "conflict",
                (false, false) => continue,
            };
            return Err(kind.invalid(format!(
                "Two document paths {what} with each other; must remove or rewrite one of these paths; path one: {one}, \
                 path two: {two}"
            )));
        }
    }
    Ok(())
}

fn reserved(word: &str) -> bool {
    RESERVED.lines().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

impl<'a, 'p> Parser<'a, 'p> {
    fn of(kind: Kind, text: &'a str, placeholders: &'p mut Placeholders) -> Result<Self, Refused> {
        Ok(Parser { kind, tokens: Tokens::of(kind, text)?, placeholders, operators: 0, depth: 0 })
    }

    fn end(&self) -> Result<(), Refused> {
        if self.tokens.peek().what == What::End { Ok(()) } else { Err(self.tokens.syntax_error()) }
    }

    fn operator(&mut self) -> Result<(), Refused> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX {
            return Err(self
                .kind
                .invalid(format!("The expression contains too many operators; operator count: {}", self.operators)));
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), Refused> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(self.kind.invalid("The expression is nested too deeply"));
        }
        Ok(())
    }

    fn or(&mut self) -> Result<Condition, Refused> {
        let mut left = self.and()?;
        while self.tokens.take_word("OR") {
            self.operator()?;
            left = Condition::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Condition, Refused> {
        let mut left = self.not()?;
        while self.tokens.take_word("AND") {
            self.operator()?;
            left = Condition::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Condition, Refused> {
        self.deeper()?;
        let condition = if self.tokens.take_word("NOT") {
            self.operator()?;
            Condition::Not(Box::new(self.not()?))
        } else if self.tokens.take("(") {
            if self.tokens.doubled() {
                return Err(self.kind.invalid("The expression has redundant parentheses;"));
            }
            let inner = self.or()?;
            self.tokens.expect(")")?;
            inner
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn primary(&mut self) -> Result<Condition, Refused> {
        let token = self.tokens.peek();
        if token.what == What::Word && self.tokens.second().text == "(" && token.text != "size" {
            return self.function();
        }
        let left = self.operand()?;
        self.operator()?;
        let token = self.tokens.peek();
        let comparator = match token.text {
            "=" => Comparator::Equal,
            "<>" => Comparator::Unequal,
            "<" => Comparator::Less,
            "<=" => Comparator::LessOrEqual,
            ">" => Comparator::Greater,
            ">=" => Comparator::GreaterOrEqual,
            _ => return self.between_or_in(left),
        };
        self.tokens.next();
        let right = self.operand()?;
        if !matches!(comparator, Comparator::Equal | Comparator::Unequal) {
            self.ordered(token.text, &left)?;
            self.ordered(token.text, &right)?;
        }
        self.distinct_operands(token.text, &left, &right)?;
        Ok(Condition::Compare(comparator, left, right))
    }

    fn between_or_in(&mut self, left: Operand) -> Result<Condition, Refused> {
        if self.tokens.take_word("BETWEEN") {
            let low = self.operand()?;
            if !self.tokens.take_word("AND") {
                return Err(self.tokens.syntax_error());
            }
            let high = self.operand()?;
            for operand in [&left, &low, &high] {
                self.ordered("BETWEEN", operand)?;
            }
            self.bounds(&low, &high)?;
            return Ok(Condition::Between(left, low, high));
        }
        if self.tokens.take_word("IN") {
            self.tokens.expect("(")?;
            let mut among = vec![self.operand()?];
            while self.tokens.take(",") {
                among.push(self.operand()?);
            }
            self.tokens.expect(")")?;
            if among.len() > 100 {
                return Err(self.kind.invalid(format!(
                    "The IN operator is provided with too many operands; number of operands: {}",
                    among.len()
                )));
            }
            return Ok(Condition::In(left, among));
        }
        if matches!(left, Operand::Size(_)) && self.tokens.peek().what == What::End {
            return Err(self
                .kind
                .invalid("The function is not allowed to be used this way in an expression; function: size"));
        }
        Err(self.tokens.syntax_error())
    }

    /// Only strings, numbers and bytes have an order.
    fn ordered(&self, operator: &str, operand: &Operand) -> Result<(), Refused> {
        match operand {
            Operand::Value(value) if !matches!(value, Value::S(_) | Value::N(_) | Value::B(_)) => {
                Err(self.wrong_type(operator, value.type_name()))
            }
            _ => Ok(()),
        }
    }

    fn wrong_type(&self, operator: &str, type_name: &str) -> Refused {
        self.kind.invalid(format!(
            "Incorrect operand type for operator or function; operator or function: {operator}, operand type: {type_name}"
        ))
    }

    fn bounds(&self, low: &Operand, high: &Operand) -> Result<(), Refused> {
        let (Operand::Value(low), Operand::Value(high)) = (low, high) else { return Ok(()) };
        let shown = |value: &Value| match value {
            Value::S(text) => format!("AttributeValue: {{S:{text}}}"),
            Value::N(number) => format!("AttributeValue: {{N:{number}}}"),
            other => format!("AttributeValue: {{{}}}", other.type_name()),
        };
        if low.type_name() != high.type_name() {
            return Err(self.kind.invalid(format!(
                "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: {}, upper \
                 bound operand: {}",
                shown(low),
                shown(high)
            )));
        }
        if super::evaluate::order(low, high) == Some(std::cmp::Ordering::Greater) {
            return Err(self.kind.invalid(format!(
                "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound \
                 operand: {}, upper bound operand: {}",
                shown(low),
                shown(high)
            )));
        }
        Ok(())
    }

    fn distinct_operands(&self, operator: &str, left: &Operand, right: &Operand) -> Result<(), Refused> {
        match (left, right) {
            (Operand::Path(one), Operand::Path(two)) if one == two => Err(self.kind.invalid(format!(
                "The first operand must be distinct from the remaining operands for this operator or function; operator: \
                 {operator}, first operand: {one}"
            ))),
            _ => Ok(()),
        }
    }

    fn function(&mut self) -> Result<Condition, Refused> {
        let name = self.tokens.next().text;
        if !FUNCTIONS.contains(&name) {
            return Err(self.kind.invalid(format!("Invalid function name; function: {name}")));
        }
        if matches!(name, "if_not_exists" | "list_append") {
            return Err(self.kind.invalid(format!(
                "The function is not allowed in a {} expression; function: {name}",
                if self.kind == Kind::Filter { "filter" } else { "condition" }
            )));
        }
        self.operator()?;
        self.tokens.expect("(")?;
        let mut operands = vec![self.operand()?];
        while self.tokens.take(",") {
            operands.push(self.operand()?);
        }
        self.tokens.expect(")")?;
        let count = operands.len();
        let mut operands = operands.into_iter();
        match (name, operands.next(), operands.next(), count) {
            ("attribute_exists", Some(Operand::Path(path)), None, 1) => Ok(Condition::Exists(path)),
            ("attribute_not_exists", Some(Operand::Path(path)), None, 1) => Ok(Condition::Missing(path)),
            ("attribute_type", Some(Operand::Path(path)), Some(Operand::Value(Value::S(name))), 2) => {
                if !["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"].contains(&name.as_str()) {
                    return Err(self.kind.invalid(format!(
                        "Invalid attribute type name found; type: {name}, valid types: {{B,NULL,SS,BOOL,L,BS,N,NS,S,M}}"
                    )));
                }
                Ok(Condition::IsType(path, name))
            }
            ("begins_with", Some(value), Some(prefix), 2) => {
                for operand in [&value, &prefix] {
                    match operand {
                        Operand::Value(value) if !matches!(value, Value::S(_) | Value::B(_)) => {
                            return Err(self.wrong_type("begins_with", value.type_name()));
                        }
                        _ => {}
                    }
                }
                self.distinct_operands("begins_with", &value, &prefix)?;
                Ok(Condition::BeginsWith(value, prefix))
            }
            ("contains", Some(value), Some(part), 2) => {
                self.distinct_operands("contains", &value, &part)?;
                Ok(Condition::Contains(value, part))
            }
            ("attribute_exists" | "attribute_not_exists", _, None, 1) => Err(self.kind.invalid(format!(
                "Operator or function requires a document path; operator or function: {name}"
            ))),
            ("attribute_type", _, Some(Operand::Value(value)), 2) => {
                Err(self.wrong_type(name, value.type_name()))
            }
            _ => Err(self.kind.invalid(format!(
                "Incorrect number of operands for operator or function; operator or function: {name}, number of operands: \
                 {count}"
            ))),
        }
    }

    fn operand(&mut self) -> Result<Operand, Refused> {
        let token = self.tokens.peek();
        if token.what == What::Value {
            self.tokens.next();
            return Ok(Operand::Value(self.placeholders.value(self.kind, token.text)?));
        }
        if token.text == "size" && self.tokens.second().text == "(" {
            self.operator()?;
            self.tokens.next();
            self.tokens.expect("(")?;
            let path = self.path()?;
            self.tokens.expect(")")?;
            return Ok(Operand::Size(path));
        }
        Ok(Operand::Path(self.path()?))
    }

    fn path(&mut self) -> Result<Path, Refused> {
        let mut steps = vec![Step::Attribute(self.attribute()?)];
        loop {
            if self.tokens.take(".") {
                steps.push(Step::Attribute(self.attribute()?));
            } else if self.tokens.take("[") {
                let token = self.tokens.peek();
                let index = token.text.parse().ok().filter(|_| token.what == What::Number);
                let index = index.ok_or_else(|| self.tokens.syntax_error())?;
                self.tokens.next();
                self.tokens.expect("]")?;
                steps.push(Step::Index(index));
            } else {
                return Ok(Path(steps));
            }
        }
    }

    fn attribute(&mut self) -> Result<String, Refused> {
        let token = self.tokens.peek();
        match token.what {
            What::Name => {
                self.tokens.next();
                self.placeholders.name(self.kind, token.text)
            }
            What::Word if reserved(token.text) => Err(self
                .kind
                .invalid(format!("Attribute name is a reserved keyword; reserved keyword: {}", token.text))),
            What::Word => {
                self.tokens.next();
                Ok(token.text.to_owned())
            }
            _ => Err(self.tokens.syntax_error()),
        }
    }
}
