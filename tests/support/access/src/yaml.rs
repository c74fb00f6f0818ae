//! YAML with the tags of CloudFormation, as JSON: `!Sub x` becomes `{"Fn::Sub": "x"}`.

use saphyr_parser::{Event, Parser, Tag};
use serde_json::{Map, Value, json};

/// Reads the first document.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| error.to_string())?;
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => events.push(event),
        }
    }
    let mut events = events.into_iter();
    let first = events.next().ok_or("the text is empty")?;
    value(first, &mut events)
}

fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Result<Value, String> {
    let next =
        |events: &mut dyn Iterator<Item = Event<'a>>| events.next().ok_or_else(|| "the text ends early".to_owned());
    match event {
        Event::Scalar(text, _, _, tag) => tagged(tag.as_deref(), text.into_owned().into()),
        Event::SequenceStart(_, tag) => {
            let mut items = Vec::new();
            loop {
                match next(events)? {
                    Event::SequenceEnd => return tagged(tag.as_deref(), items.into()),
                    event => items.push(value(event, events)?),
                }
            }
        }
        Event::MappingStart(_, tag) => {
            let mut entries = Map::new();
            loop {
                match next(events)? {
                    Event::MappingEnd => return tagged(tag.as_deref(), entries.into()),
                    Event::Scalar(key, ..) => {
                        let event = next(events)?;
                        let content = value(event, events)?;
                        if entries.insert(key.clone().into_owned(), content).is_some() {
                            return Err(format!("the key {key} occurs twice"));
                        }
                    }
                    other => return Err(format!("a key that is not a text: {other:?}")),
                }
            }
        }
        other => Err(format!("not supported: {other:?}")),
    }
}

fn tagged(tag: Option<&Tag>, content: Value) -> Result<Value, String> {
    let Some(tag) = tag else { return Ok(content) };
    if tag.handle != "!" {
        return Err(format!("not a tag of CloudFormation: {tag:?}"));
    }
    Ok(match (tag.suffix.as_str(), content) {
        (name @ ("Ref" | "Condition"), content) => json!({ name: content }),
        ("GetAtt", Value::String(text)) => json!({ "Fn::GetAtt": text.split('.').collect::<Vec<_>>() }),
        (name, content) => json!({ format!("Fn::{name}"): content }),
    })
}
