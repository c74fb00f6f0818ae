//! The part of JSON Schema (2020-12) that our schemas use. An unknown keyword fails the test, so that nothing is accepted
//! unchecked.

use serde_json::Value;

/// Checks a document; `Err` says where it is not valid.
pub(crate) fn check(schema: &Value, document: &Value) -> Result<(), String> {
    at(schema, document, "")
}

fn at(schema: &Value, document: &Value, place: &str) -> Result<(), String> {
    let keywords = schema.as_object().unwrap_or_else(|| panic!("{place}: a schema is an object"));
    for (keyword, wanted) in keywords {
        let number = || document.as_f64().zip(wanted.as_f64());
        let length = || document.as_str().map(|text| text.chars().count() as u64).zip(wanted.as_u64());
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|wanted| is_of(wanted, document)),
                wanted => is_of(wanted, document),
            },
            "minimum" => number().is_none_or(|(number, least)| number >= least),
            "maximum" => number().is_none_or(|(number, most)| number <= most),
            "minLength" => length().is_none_or(|(length, least)| length >= least),
            "maxLength" => length().is_none_or(|(length, most)| length <= most),
            "enum" => wanted.as_array().is_some_and(|values| values.contains(document)),
            "format" => document.as_str().is_none_or(|text| has_format(wanted, text)),
            "required" => wanted.as_array().is_some_and(|names| {
                let has = |name: &Value| document.get(name.as_str().unwrap_or_default()).is_some();
                !document.is_object() || names.iter().all(has)
            }),
            "properties" => {
                for (name, schema) in wanted.as_object().expect("properties are an object") {
                    if let Some(value) = document.get(name) {
                        at(schema, value, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = keywords.get("properties").and_then(Value::as_object);
                for (name, value) in document.as_object().into_iter().flatten() {
                    if !known.is_some_and(|known| known.contains_key(name)) {
                        at(wanted, value, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            "items" => {
                for (n, item) in document.as_array().into_iter().flatten().enumerate() {
                    at(wanted, item, &format!("{place}/{n}"))?;
                }
                true
            }
            "contentMediaType" => wanted == "application/json",
            other => panic!("{place}: the keyword {other} is not checked here"),
        };
        if !holds {
            return Err(format!("{place}: {document} breaks {keyword} {wanted}"));
        }
    }
    Ok(())
}

fn is_of(wanted: &Value, document: &Value) -> bool {
    match wanted.as_str().expect("a type is a name") {
        "object" => document.is_object(),
        "array" => document.is_array(),
        "string" => document.is_string(),
        "number" => document.is_number(),
        "integer" => document.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => document.is_boolean(),
        "null" => document.is_null(),
        other => panic!("JSON Schema has no type {other}"),
    }
}

fn has_format(wanted: &Value, text: &str) -> bool {
    match wanted.as_str().expect("a format is a name") {
        "date-time" => pipeline::time::parse_rfc3339(text.as_bytes()).is_some(),
        "date" => pipeline::time::parse_date(text.as_bytes()).is_some(),
        other => panic!("the format {other} is not checked here"),
    }
}
