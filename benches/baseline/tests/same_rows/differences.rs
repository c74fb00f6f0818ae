//! Cases in which the two sides once differed, each with the reason for the result that both now give.

use pipeline::dataset::{DefinitionText, shipped};

use crate::compare::same;
use crate::odd::{assessment, endpoint, event, string};
use crate::product::{Feed, Landed};

fn codes(landed: &Landed) -> Vec<&str> {
    landed.dead_letters.iter().map(|(_, code, _)| code.as_str()).collect()
}

/// A feed with an additional dataset that has these columns.
fn with_dataset(head: &str, columns: &str) -> Feed {
    let text = format!(
        "name = \"more\"\npartition_by = [\"day\"]\n[event_time]\npointer = \"/at\"\nformat = \"epoch_ms\"\n{head}\n{columns}"
    );
    let mut definitions = shipped();
    definitions.push(DefinitionText { file: "more.toml".to_owned(), text });
    Feed { definitions, ..Feed::default() }
}

#[test]
fn a_raw_control_character_in_a_string_is_invalid_even_if_the_string_contains_json() {
    // RFC 8259, section 7: a tab is white space between the tokens of the inner document, but invalid in the outer string.
    let spaced = [
        "{\\\"Id\\\":\t\\\"e\\\"}",
        "{\t\\\"Id\\\":\\\"e\\\"}",
        "{\\\"Id\\\":\\\"e\\\"\t}",
        "{\\\"Unknown\\\":[1,\t2]}",
    ];
    let records: Vec<String> = spaced.iter().map(|text| endpoint(&format!("\"{text}\""))).collect();
    let landed = same(records.join("\n").as_bytes(), &Feed::default());
    assert_eq!(codes(&landed), ["DataFormatConversion.ParseError"; 4]);
}

#[test]
fn a_document_in_a_string_is_read_only_if_it_is_valid() {
    // One fault each, in the syntax of the inner document: its values are not read, so no type is wrong.
    let documents = [r#"{"User":x}"#, r#"{"EffectiveDate":2025-01-13}"#, r#"{"Id":1,}"#, r#"{"Id":1"#];
    let records: Vec<String> = documents.iter().map(|text| endpoint(&string(text))).collect();
    let landed = same(records.join("\n").as_bytes(), &Feed::default());
    assert_eq!(codes(&landed), ["Decode.BadEmbeddedJson"; 4]);
}

#[test]
fn a_number_in_a_string_may_have_escapes() {
    // RFC 8259, section 8.3: strings are compared after unescaping.
    let record = event(r#","attributes":{"number_of_message_parts":"\u0031"}"#);
    let landed = same(record.as_bytes(), &Feed::default());
    assert_eq!(codes(&landed), [""; 0]);
}

#[test]
fn a_key_collected_as_an_unknown_field_may_not_occur_twice() {
    // The definition names it (`allow`), and readers disagree on a JSON text with a duplicate key.
    let record = assessment(r#","device":"ios","device":"web""#);
    let landed = same(record.as_bytes(), &Feed::default());
    assert_eq!(codes(&landed), ["Decode.DuplicateKey"]);
}

#[test]
fn a_required_list_map_or_struct_must_be_present() {
    // So says the JSON Schema for producers.
    let recognize = "[[recognize]]\npresent = [\"/more\"]\n";
    let columns = [
        "type = \"list\"\nelement = \"int64\"",
        "type = \"map\"\nvalue = \"int64\"\nallow = [\"*\"]",
        "type = \"struct\"\n[[column.field]]\nname = \"a\"\ntype = \"int64\"",
        "type = \"list\"\n[[column.field]]\nname = \"a\"\ntype = \"int64\"",
    ];
    for column in columns {
        let column = format!("[[column]]\nname = \"c\"\npointer = \"/c\"\nrequired = true\n{column}\n");
        let feed = with_dataset(recognize, &column);
        let record = r#"{"more":1,"at":1736764200123}"#;
        let landed = same([record, &record.replace("}", ",\"c\":null}")].join("\n").as_bytes(), &feed);
        assert_eq!(codes(&landed), ["Validate.MissingField"; 2], "{column}");
    }
}

#[test]
fn a_dataset_does_not_change_what_is_valid_in_another() {
    // `more` reads `/colour` to recognize its records; no column of an event reads `colour` or `score`.
    let feed = with_dataset(
        "[[recognize]]\npresent = [\"/colour/hue\"]\n",
        "[[column]]\nname = \"c\"\npointer = \"/c\"\ntype = \"string\"\n",
    );
    let records = [event(r#","colour":"red""#), event(r#","score":1,"score":1"#)];
    let landed = same(records.join("\n").as_bytes(), &feed);
    assert_eq!(codes(&landed), [""; 0]);
}
