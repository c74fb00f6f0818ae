//! Expressions: conditions, updates and projections as text.
//!
//! Owns: their trees, the placeholders of the request, and which of those are unused. Does not own: their
//! text (`parse`), whether a condition holds (`evaluate`), what an update does (`update`).
//!
//! Limits: 4 KB, 300 operators, and a nesting of 128 levels in an expression.

pub mod evaluate;
mod lexer;
pub mod parse;
pub mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value as Json};

use super::error::{Refused, serialization, validation};
use super::value::{Item, Value};

/// The kinds of expressions; messages name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The condition of a write.
    Condition,
    /// Which items of a query or scan are returned.
    Filter,
    /// Which items a query reads.
    KeyCondition,
    /// What an update does.
    Update,
    /// Which attributes are returned.
    Projection,
}

impl Kind {
    /// The parameter's name.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Condition => "ConditionExpression",
            Self::Filter => "FilterExpression",
            Self::KeyCondition => "KeyConditionExpression",
            Self::Update => "UpdateExpression",
            Self::Projection => "ProjectionExpression",
        }
    }

    /// An error in this expression.
    pub fn invalid(self, what: impl fmt::Display) -> Refused {
        validation(format!("Invalid {}: {what}", self.parameter()))
    }
}

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An attribute of an item or a map.
    Attribute(String),
    /// An element of a list.
    Index(usize),
}

/// A path into an item: never empty, begins with an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// An attribute of the item itself.
    pub fn attribute(name: &str) -> Self {
        Path(vec![Step::Attribute(name.to_owned())])
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The attribute of the item that the path begins with.
    pub fn top(&self) -> &str {
        match self.0.first() {
            Some(Step::Attribute(name)) => name,
            _ => "",
        }
    }

    /// The attribute's name, if the path is only an attribute.
    pub fn only(&self) -> Option<&str> {
        (self.0.len() == 1).then(|| self.top())
    }

    /// The value at the path.
    pub fn get<'a>(&self, item: &'a Item) -> Option<&'a Value> {
        let mut value = item.get(self.top())?;
        for step in &self.0[1..] {
            value = match (step, value) {
                (Step::Attribute(name), Value::M(map)) => map.get(name)?,
                (Step::Index(index), Value::L(list)) => list.get(*index)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// Whether one of the two paths contains the other.
    pub fn overlaps(&self, other: &Path) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// Whether one path treats as a map what the other treats as a list.
    pub fn conflicts(&self, other: &Path) -> bool {
        let shared = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        matches!(
            (self.0.get(shared), other.0.get(shared)),
            (Some(Step::Attribute(_)), Some(Step::Index(_))) | (Some(Step::Index(_)), Some(Step::Attribute(_)))
        )
    }
}

/// The form in messages: `[a, b, [1]]`.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self
            .0
            .iter()
            .map(|step| match step {
                Step::Attribute(name) => name.clone(),
                Step::Index(index) => format!("[{index}]"),
            })
            .collect();
        write!(f, "[{}]", steps.join(", "))
    }
}

/// `=`, `<`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparator {
    /// `=`
    Equal,
    /// `<>`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// An attribute.
    Path(Path),
    /// A value of the request.
    Value(Value),
    /// The size of an attribute's value.
    Size(Path),
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Two operands compared.
    Compare(Comparator, Operand, Operand),
    /// Between two others, inclusive.
    Between(Operand, Operand, Operand),
    /// Equal to one of the others.
    In(Operand, Vec<Operand>),
    /// Both hold.
    And(Box<Condition>, Box<Condition>),
    /// One of them holds.
    Or(Box<Condition>, Box<Condition>),
    /// The inner condition does not hold.
    Not(Box<Condition>),
    /// The attribute exists.
    Exists(Path),
    /// The attribute does not exist.
    Missing(Path),
    /// The attribute has this type.
    IsType(Path, String),
    /// A string or bytes with this beginning.
    BeginsWith(Operand, Operand),
    /// A string with this part, or a set or list with this element.
    Contains(Operand, Operand),
}

/// The right-hand side of SET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// The value at another path.
    Path(Path),
    /// A value of the request.
    Value(Value),
    /// The value at the path, or a default.
    IfNotExists(Path, Box<Term>),
    /// Two lists, concatenated.
    ListAppend(Box<Term>, Box<Term>),
    /// A sum.
    Plus(Box<Term>, Box<Term>),
    /// A difference.
    Minus(Box<Term>, Box<Term>),
}

/// What an update does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// SET.
    pub set: Vec<(Path, Term)>,
    /// REMOVE.
    pub remove: Vec<Path>,
    /// ADD.
    pub add: Vec<(Path, Value)>,
    /// DELETE.
    pub delete: Vec<(Path, Value)>,
}

impl Update {
    /// Every path that the update writes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let add = self.add.iter().map(|(path, _)| path);
        let delete = self.delete.iter().map(|(path, _)| path);
        set.chain(&self.remove).chain(add).chain(delete)
    }
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` of a request, and which of them its expressions used.
#[derive(Debug, Default)]
pub struct Placeholders {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
    used: BTreeSet<String>,
}

impl Placeholders {
    /// Reads them from a request with these expressions.
    ///
    /// # Errors
    /// If they are given without expressions, are empty, or have invalid names or values.
    pub fn of(request: &Map<String, Json>, expressions: &[Kind]) -> Result<Self, Refused> {
        let any = expressions.iter().any(|kind| request.contains_key(kind.parameter()));
        let mut placeholders = Placeholders::default();
        for (parameter, sign) in [("ExpressionAttributeNames", '#'), ("ExpressionAttributeValues", ':')] {
            let Some(given) = request.get(parameter).filter(|given| !given.is_null()) else { continue };
            let given = given.as_object().ok_or_else(|| serialization("Expected a map"))?;
            if !any {
                return Err(validation(format!("{parameter} can only be specified when using expressions")));
            }
            if given.is_empty() {
                return Err(validation(format!("{parameter} must not be empty")));
            }
            for (key, value) in given {
                let good = key
                    .strip_prefix(sign)
                    .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_alphanumeric() || c == '_'));
                if !good {
                    return Err(validation(format!("{parameter} contains invalid key: Syntax error; key: \"{key}\"")));
                }
                if sign == '#' {
                    let name = value.as_str().ok_or_else(|| serialization("Expected a string"))?;
                    placeholders.names.insert(key.clone(), name.to_owned());
                } else {
                    let value = Value::from_json(value).map_err(|refused| {
                        if refused.code() == "ValidationException" {
                            validation(format!(
                                "{parameter} contains invalid value: {} for key {key}",
                                refused.message()
                            ))
                        } else {
                            refused
                        }
                    })?;
                    placeholders.values.insert(key.clone(), value);
                }
            }
        }
        Ok(placeholders)
    }

    fn name(&mut self, kind: Kind, key: &str) -> Result<String, Refused> {
        let name = self.names.get(key).ok_or_else(|| {
            kind.invalid(format!(
                "An expression attribute name used in the document path is not defined; attribute name: {key}"
            ))
        })?;
        self.used.insert(key.to_owned());
        Ok(name.clone())
    }

    fn value(&mut self, kind: Kind, key: &str) -> Result<Value, Refused> {
        let value = self.values.get(key).ok_or_else(|| {
            kind.invalid(format!(
                "An expression attribute value used in expression is not defined; attribute value: {key}"
            ))
        })?;
        self.used.insert(key.to_owned());
        Ok(value.clone())
    }

    /// Must be called after all expressions are parsed.
    ///
    /// # Errors
    /// If one of them was not used.
    pub fn finish(&self) -> Result<(), Refused> {
        let given = [
            ("ExpressionAttributeNames", self.names.keys().collect::<Vec<_>>()),
            ("ExpressionAttributeValues", self.values.keys().collect()),
        ];
        for (parameter, keys) in given {
            let unused: Vec<&str> =
                keys.into_iter().filter(|key| !self.used.contains(*key)).map(String::as_str).collect();
            if !unused.is_empty() {
                return Err(validation(format!(
                    "Value provided in {parameter} unused in expressions: keys: {{{}}}",
                    unused.join(", ")
                )));
            }
        }
        Ok(())
    }
}
