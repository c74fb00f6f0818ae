//! Policies of IAM: what they allow.
//!
//! Owns: the decision about a request. A request is allowed if a statement allows it and none denies it (IAM's user guide, "Policy
//! evaluation logic"). Does not own: who a policy belongs to.
//!
//! An action and a resource are compared with wildcards: `*` is any text, `?` one character. Actions ignore case. All operators of a
//! condition must hold, and for each key one of the values. With `IfExists`, a key that the request does not have counts as met.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A request, as IAM sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Such as `s3:GetObject`.
    pub action: String,
    /// The ARN that it is about.
    pub resource: String,
    /// The keys of conditions that it has, in lower case.
    pub context: BTreeMap<String, String>,
}

/// One action on one pattern of resources that a policy allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The statement's `Sid`.
    pub statement: String,
    /// The action.
    pub action: String,
    /// The pattern.
    pub resource: String,
}

/// The statements of one principal.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone)]
struct Statement {
    sid: String,
    allows: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
struct Condition {
    operator: Operator,
    if_exists: bool,
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equals,
    Like,
    Bool,
}

impl Policy {
    /// Adds the statements of a document.
    ///
    /// # Errors
    /// It has an element or an operator that is not known here.
    pub fn add(&mut self, document: &Value) -> Result<(), String> {
        if document["Version"] != "2012-10-17" {
            return Err(format!("not a policy: {document}"));
        }
        let statements = document["Statement"].as_array().ok_or("a policy without statements")?;
        for statement in statements {
            self.statements.push(Statement::read(statement)?);
        }
        Ok(())
    }

    /// Whether it allows a request.
    pub fn allows(&self, request: &Request) -> bool {
        let matches = |statement: &&Statement| statement.matches(request);
        self.statements.iter().filter(matches).any(|statement| statement.allows)
            && !self.statements.iter().filter(matches).any(|statement| !statement.allows)
    }

    /// Everything that it allows.
    pub fn grants(&self) -> BTreeSet<Grant> {
        let allowing = self.statements.iter().filter(|statement| statement.allows);
        let grants = allowing.flat_map(|statement| {
            statement.actions.iter().flat_map(|action| {
                statement.resources.iter().map(|resource| Grant {
                    statement: statement.sid.clone(),
                    action: action.clone(),
                    resource: resource.clone(),
                })
            })
        });
        grants.collect()
    }

    /// The grants that allow a request.
    pub fn used_by(&self, request: &Request) -> BTreeSet<Grant> {
        let alone = |grant: &Grant| self.only(grant).allows(request);
        self.grants().into_iter().filter(alone).collect()
    }

    /// The same policy without one grant.
    #[must_use]
    pub fn without(&self, grant: &Grant) -> Policy {
        let mut statements = Vec::new();
        for statement in &self.statements {
            if !statement.allows || statement.sid != grant.statement || !statement.actions.contains(&grant.action) {
                statements.push(statement.clone());
                continue;
            }
            // The other actions on all resources, and the action on the other resources.
            let others = |list: &[String], gone: &str| list.iter().filter(|one| **one != *gone).cloned().collect();
            statements.push(Statement { actions: others(&statement.actions, &grant.action), ..statement.clone() });
            statements.push(Statement {
                actions: vec![grant.action.clone()],
                resources: others(&statement.resources, &grant.resource),
                ..statement.clone()
            });
        }
        Policy { statements }
    }

    fn only(&self, grant: &Grant) -> Policy {
        let mut statements: Vec<Statement> = self.statements.iter().filter(|one| !one.allows).cloned().collect();
        let of_grant = self.statements.iter().filter(|one| one.allows && one.sid == grant.statement);
        statements.extend(of_grant.map(|statement| Statement {
            actions: vec![grant.action.clone()],
            resources: vec![grant.resource.clone()],
            ..statement.clone()
        }));
        Policy { statements }
    }
}

impl Statement {
    fn read(statement: &Value) -> Result<Self, String> {
        let entries = statement.as_object().ok_or("a statement that is not an object")?;
        let known = ["Sid", "Effect", "Action", "Resource", "Condition", "Principal"];
        if let Some(unknown) = entries.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("{unknown} is not known: {statement}"));
        }
        // Of whom the policy is, is the caller's matter; a policy of a resource that is for all says so.
        if entries.get("Principal").is_some_and(|principal| principal != "*") {
            return Err(format!("a principal other than *: {statement}"));
        }
        let allows = match statement["Effect"].as_str() {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(format!("no effect: {statement}")),
        };
        let mut conditions = Vec::new();
        for (operator, keys) in entries.get("Condition").and_then(Value::as_object).into_iter().flatten() {
            let (name, if_exists) = match operator.strip_suffix("IfExists") {
                Some(name) => (name, true),
                None => (operator.as_str(), false),
            };
            let operator = match name {
                "StringEquals" => Operator::Equals,
                "StringLike" | "ArnLike" => Operator::Like,
                "Bool" => Operator::Bool,
                other => return Err(format!("the operator {other} is not known")),
            };
            for (key, values) in keys.as_object().into_iter().flatten() {
                conditions.push(Condition { operator, if_exists, key: key.to_lowercase(), values: texts(values)? });
            }
        }
        Ok(Statement {
            sid: statement["Sid"].as_str().unwrap_or_default().to_owned(),
            allows,
            actions: texts(&statement["Action"])?,
            resources: texts(&statement["Resource"])?,
            conditions,
        })
    }

    fn matches(&self, request: &Request) -> bool {
        let action = request.action.to_lowercase();
        self.actions.iter().any(|pattern| is_like(&action, &pattern.to_lowercase()))
            && self.resources.iter().any(|pattern| is_like(&request.resource, pattern))
            && self.conditions.iter().all(|condition| condition.holds(request))
    }
}

impl Condition {
    fn holds(&self, request: &Request) -> bool {
        let Some(value) = request.context.get(&self.key) else { return self.if_exists };
        self.values.iter().any(|expected| match self.operator {
            Operator::Equals => value == expected,
            Operator::Like => is_like(value, expected),
            Operator::Bool => value.eq_ignore_ascii_case(expected),
        })
    }
}

/// One text, or a list of texts.
fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) if !items.is_empty() => {
            let text = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| format!("not a text: {item}"));
            items.iter().map(text).collect()
        }
        other => Err(format!("neither a text nor texts: {other}")),
    }
}

/// Whether a text is like a pattern: `*` is any text, `?` one character.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    // Where the last `*` was, and where the text that it matches ends.
    let (mut at, mut of, mut star) = (0, 0, None);
    while at < text.len() {
        match pattern.get(of) {
            Some('*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(c) if *c == '?' || *c == text[at] => {
                at += 1;
                of += 1;
            }
            _ => match star {
                Some((star_of, star_at)) => {
                    star = Some((star_of, star_at + 1));
                    at = star_at + 1;
                    of = star_of + 1;
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|c| *c == '*')
}
