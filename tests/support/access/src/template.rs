//! A template with its parameters: conditions and functions resolved.
//!
//! Owns: the functions that `deploy/` uses. A reference to a resource becomes its logical name, because nothing is deployed. Does
//! not own: whether the template is valid (cfn-lint).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::policy::Policy;
use crate::yaml;

/// What CloudFormation knows by itself.
const PSEUDO: [(&str, &str); 5] = [
    ("AWS::AccountId", "000000000000"),
    ("AWS::Region", "us-east-1"),
    ("AWS::Partition", "aws"),
    ("AWS::StackName", "shardlake"),
    ("AWS::URLSuffix", "amazonaws.com"),
];

/// A template, and the values of its parameters.
#[derive(Debug, Clone)]
pub struct Template {
    content: Value,
    values: BTreeMap<String, Value>,
}

impl Template {
    /// Reads a template. Parameters that are not given have their defaults.
    ///
    /// # Errors
    /// The file cannot be read, or does not have a parameter of that name.
    pub fn read(path: &Path, parameters: &[(&str, &str)]) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text, parameters).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// The same from a text.
    ///
    /// # Errors
    /// It is not YAML, or does not have a parameter of that name.
    pub fn parse(text: &str, parameters: &[(&str, &str)]) -> Result<Self, String> {
        let content = yaml::read(text)?;
        let mut values: BTreeMap<String, Value> =
            PSEUDO.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let declared = content["Parameters"].as_object().cloned().unwrap_or_default();
        if let Some((unknown, _)) = parameters.iter().find(|(name, _)| !declared.contains_key(*name)) {
            return Err(format!("there is no parameter {unknown}"));
        }
        for (name, parameter) in declared {
            let given = parameters.iter().find(|(given, _)| **given == *name).map(|(_, value)| (*value).into());
            let value: Value = given.unwrap_or_else(|| parameter["Default"].clone());
            let value = match (parameter["Type"].as_str(), value.as_str()) {
                (Some("CommaDelimitedList"), Some(text)) => text.split(',').collect(),
                _ => value,
            };
            values.insert(name, value);
        }
        Ok(Template { content, values })
    }

    /// The properties of a resource.
    ///
    /// # Errors
    /// There is no such resource, its condition does not hold, or it has a function that is not known here.
    pub fn properties(&self, resource: &str) -> Result<Value, String> {
        let content = &self.content["Resources"][resource];
        if content.is_null() {
            return Err(format!("there is no resource {resource}"));
        }
        if let Some(condition) = content["Condition"].as_str()
            && !self.condition(condition)?
        {
            return Err(format!("the condition {condition} of {resource} does not hold"));
        }
        let resolved = self.resolve(&content["Properties"])?;
        resolved.ok_or_else(|| format!("{resource} has no properties"))
    }

    /// The policies of a role, as one.
    ///
    /// # Errors
    /// As for [`Template::properties`]; a policy has an element that is not known here.
    pub fn role(&self, resource: &str) -> Result<Policy, String> {
        let properties = self.properties(resource)?;
        let policies = properties["Policies"].as_array().ok_or_else(|| format!("{resource} has no policies"))?;
        let mut all = Policy::default();
        for policy in policies {
            all.add(&policy["PolicyDocument"])?;
        }
        Ok(all)
    }

    /// The policy of a resource, such as an endpoint.
    ///
    /// # Errors
    /// As for [`Template::role`].
    pub fn policy(&self, resource: &str) -> Result<Policy, String> {
        let mut policy = Policy::default();
        policy.add(&self.properties(resource)?["PolicyDocument"])?;
        Ok(policy)
    }

    fn condition(&self, name: &str) -> Result<bool, String> {
        self.holds(&self.content["Conditions"][name]).map_err(|problem| format!("condition {name}: {problem}"))
    }

    fn holds(&self, test: &Value) -> Result<bool, String> {
        let (function, content) = function(test).ok_or_else(|| format!("not a condition: {test}"))?;
        let list = || content.as_array().map(Vec::as_slice).unwrap_or_default();
        match function {
            "Condition" => self.condition(content.as_str().unwrap_or_default()),
            "Fn::Equals" => match list() {
                [left, right] => Ok(self.resolve(left)? == self.resolve(right)?),
                _ => Err(format!("Fn::Equals has two values, not {content}")),
            },
            "Fn::Not" => list().first().map_or(Err("Fn::Not is empty".to_owned()), |test| Ok(!self.holds(test)?)),
            "Fn::And" => list().iter().try_fold(true, |all, test| Ok(self.holds(test)? && all)),
            "Fn::Or" => list().iter().try_fold(false, |any, test| Ok(self.holds(test)? || any)),
            other => Err(format!("{other} is not known")),
        }
    }

    /// A value without functions; `None` for `AWS::NoValue`.
    fn resolve(&self, value: &Value) -> Result<Option<Value>, String> {
        if let Some((function, content)) = function(value) {
            return self.call(function, content);
        }
        Ok(Some(match value {
            Value::Array(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.resolve(item)).collect();
                items?.into_iter().flatten().collect()
            }
            Value::Object(entries) => {
                let mut resolved = Map::new();
                for (key, content) in entries {
                    if let Some(content) = self.resolve(content)? {
                        resolved.insert(key.clone(), content);
                    }
                }
                resolved.into()
            }
            scalar => scalar.clone(),
        }))
    }

    fn call(&self, function: &str, content: &Value) -> Result<Option<Value>, String> {
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => Ok(text),
            other => Err(format!("not a text: {other:?}")),
        };
        match (function, content) {
            ("Ref", Value::String(name)) if name == "AWS::NoValue" => Ok(None),
            ("Ref", Value::String(name)) => self.named(name).map(Some),
            ("Fn::GetAtt", Value::Array(parts)) => {
                let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
                self.named(&parts.join(".")).map(Some)
            }
            ("Fn::If", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(condition), yes, no] => self.resolve(if self.condition(condition)? { yes } else { no }),
                _ => Err(format!("Fn::If: {content}")),
            },
            ("Fn::Join", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(between), list] => {
                    let list = self.resolve(list)?.unwrap_or_default();
                    let items: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    Ok(Some(items.join(between).into()))
                }
                _ => Err(format!("Fn::Join: {content}")),
            },
            ("Fn::Sub", Value::String(text)) => self.substitute(text, &Map::new()).map(Some),
            ("Fn::Sub", Value::Array(parts)) => match parts.as_slice() {
                [Value::String(template), Value::Object(local)] => {
                    let mut values = Map::new();
                    for (name, value) in local {
                        values.insert(name.clone(), text(self.resolve(value)?)?.into());
                    }
                    self.substitute(template, &values).map(Some)
                }
                _ => Err(format!("Fn::Sub: {content}")),
            },
            _ => Err(format!("{function} is not known")),
        }
    }

    fn substitute(&self, text: &str, local: &Map<String, Value>) -> Result<Value, String> {
        let mut rest = text;
        let mut result = String::new();
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("a placeholder does not end: {text}"))?;
            result.push_str(before);
            match name.strip_prefix('!') {
                Some(literal) => result.push_str(&format!("${{{literal}}}")),
                None => match local.get(name).map_or_else(|| self.named(name), |value| Ok(value.clone()))? {
                    Value::String(value) => result.push_str(&value),
                    other => result.push_str(&other.to_string()),
                },
            }
            rest = after;
        }
        Ok((result + rest).into())
    }

    fn named(&self, name: &str) -> Result<Value, String> {
        if let Some(value) = self.values.get(name) {
            return Ok(value.clone());
        }
        let resource = name.split('.').next().unwrap_or_default();
        if self.content["Resources"][resource].is_null() {
            return Err(format!("there is neither a parameter nor a resource {name}"));
        }
        Ok(name.into())
    }
}

/// A function and what it is called with.
fn function(value: &Value) -> Option<(&str, &Value)> {
    let entries = value.as_object().filter(|entries| entries.len() == 1)?;
    let (name, content) = entries.iter().next()?;
    // `Condition` is a function among conditions, where its value is a name, and an element of a statement elsewhere.
    let called = name == "Ref" || name.starts_with("Fn::") || (name == "Condition" && content.is_string());
    called.then_some((name.as_str(), content))
}
