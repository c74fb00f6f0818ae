//! A record as a tree, like `serde_json::Value`, but an object keeps all of its members, in order.
//!
//! `Value` itself drops the first of two members with the same name, but the definitions need to know duplicates. The cost
//! is the same: an allocation for each text, key, list and object.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// A whole number without a fraction or an exponent.
    Whole(i64),
    /// Any other number, rounded.
    Double(f64),
    /// The text of a number that is neither of the others. [`strict`] gives the text of every number but whole ones.
    ///
    /// [`strict`]: crate::strict
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The member of an object at a path of keys. Of two members with the same name it is the first.
    pub(crate) fn find<'j>(members: &'j [(String, Json)], path: &[String]) -> Option<&'j Json> {
        let (key, below) = path.split_first()?;
        let (_, value) = members.iter().find(|(name, _)| name == key)?;
        match value {
            _ if below.is_empty() => Some(value),
            Json::Object(members) => Json::find(members, below),
            _ => None,
        }
    }

    /// Appends the value as compact JSON.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Whole(number) => out.push_str(&number.to_string()),
            Json::Double(number) => out.push_str(&serde_json::Value::from(*number).to_string()),
            Json::Number(text) => out.push_str(text),
            Json::Text(text) => write_text(text, out),
            Json::List(elements) => {
                out.push('[');
                for (n, element) in elements.iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { "" });
                    element.write(out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                write_object(members, out);
            }
        }
    }
}

/// Appends an object of these members.
pub(crate) fn write_object(members: &[(String, Json)], out: &mut String) {
    out.push('{');
    for (n, (key, value)) in members.iter().enumerate() {
        out.push_str(if n > 0 { "," } else { "" });
        write_text(key, out);
        out.push(':');
        value.write(out);
    }
    out.push('}');
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or_else(|_| Json::Number(value.to_string()), Json::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Json::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_both_members_with_the_same_name() {
        let tree: Json =
            serde_json::from_str(r#"{"b":1,"a":[null,true,-2.5],"b":{"c":18446744073709551615}}"#).unwrap();
        let Json::Object(members) = &tree else { panic!("an object") };
        assert_eq!(members.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["b", "a", "b"]);
        let mut text = String::new();
        tree.write(&mut text);
        assert_eq!(text, r#"{"b":1,"a":[null,true,-2.5],"b":{"c":18446744073709551615}}"#);
        assert_eq!(Json::find(members, &["b".to_owned()]), Some(&Json::Whole(1)));
        assert_eq!(Json::find(members, &["b".to_owned(), "c".to_owned()]), None);
    }
}
