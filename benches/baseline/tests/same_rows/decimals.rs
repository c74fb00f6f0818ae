//! Random decimals: every number of every precision and scale, in all spellings, gives the same rows or dead letters.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use pipeline::dataset::DefinitionText;
use proptest::prelude::*;

use crate::compare::{by_sequence, same};
use crate::product::Feed;

fn definition(precision: u8, scale: u8) -> DefinitionText {
    let text = format!(
        r#"
name = "prices"
event_time = {{ pointer = "/t", format = "epoch_ms" }}
recognize = [{{ present = ["/t"] }}]
partition_by = ["year"]
column = [
  {{ name = "price", pointer = "/price", type = "decimal({precision},{scale})" }},
  {{ name = "list", pointer = "/list", type = "list", element = "decimal({precision}, {scale})" }},
  {{ name = "pair", pointer = "/pair", type = "struct", field = [
    {{ name = "price", type = "decimal({precision},{scale})", required = true }},
  ] }},
]
"#
    );
    DefinitionText { file: "prices.toml".to_owned(), text }
}

/// A JSON number, or its text. Most have few digits, so that some of them fit.
fn number() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,4}0{0,20})?",
        2 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        1 => "-?9{1,19}(\\.9{1,19})?",
        1 => "-?10{0,25}(\\.0{1,20})?([eE]-?[0-9]{1,3})?",
        1 => "-?0(\\.0{1,30})?([eE][+-]?[0-9]{1,12})?",
    ];
    (number, 0..5).prop_map(|(number, kind)| match kind {
        0 => format!("\"{number}\""),
        _ => number,
    })
}

fn record(member: usize, number: &str) -> String {
    let member = match member {
        0 => format!(r#""list":[null,{number},{number}]"#),
        1 => format!(r#""pair":{{"price":{number}}}"#),
        _ => format!(r#""price":{number}"#),
    };
    format!(r#"{{"t":1736764200000,{member}}}"#)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn decimals_of_every_size_give_the_same_rows(
        (precision, scale) in (1_u8..=18).prop_flat_map(|precision| (Just(precision), 0..=precision)),
        numbers in prop::collection::vec((0_usize..6, number()), 1..60),
    ) {
        let lines: Vec<String> = numbers.iter().map(|(member, number)| record(*member, number)).collect();
        same(lines.join("\n").as_bytes(), &Feed { definitions: vec![definition(precision, scale)], ..Feed::default() });
    }
}

#[test]
fn a_decimal_is_read_from_its_text_and_never_through_a_double() {
    let numbers = ["90071992547409.93", "-0.01", "\"90071992547409.93\"", "1e-2", "0.30", "9999999999999999.99"];
    let lines: Vec<String> = numbers.iter().map(|number| record(2, number)).collect();
    let landed = same(lines.join("\n").as_bytes(), &Feed { definitions: vec![definition(18, 2)], ..Feed::default() });
    let rows = by_sequence(landed.files.into_values().next().unwrap());
    let column = rows.column_by_name("price").unwrap().as_primitive::<Decimal128Type>();
    let units: Vec<i128> = column.values().to_vec();
    assert_eq!(column.data_type().to_string(), "Decimal128(18, 2)");
    assert_eq!(units, [9_007_199_254_740_993, -1, 9_007_199_254_740_993, 1, 30, 999_999_999_999_999_999]);
}

#[test]
fn numbers_that_do_not_fit_are_rejected_with_the_same_code() {
    let numbers = [
        ("12.345", "DataFormatConversion.MalformedData"),
        ("\"12.345\"", "DataFormatConversion.MalformedData"),
        ("\"\"", "DataFormatConversion.MalformedData"),
        ("\" 1\"", "DataFormatConversion.MalformedData"),
        ("\"+1\"", "DataFormatConversion.MalformedData"),
        ("\"1,5\"", "DataFormatConversion.MalformedData"),
        ("true", "DataFormatConversion.MalformedData"),
        ("{}", "DataFormatConversion.MalformedData"),
        ("1000", "Validate.OutOfRange"),
        ("-1000.00", "Validate.OutOfRange"),
        ("\"1e3\"", "Validate.OutOfRange"),
    ];
    let lines: Vec<String> = numbers.iter().map(|(number, _)| record(2, number)).collect();
    let landed = same(lines.join("\n").as_bytes(), &Feed { definitions: vec![definition(5, 2)], ..Feed::default() });
    let codes: Vec<&str> = landed.dead_letters.iter().map(|(_, code, _)| code.as_str()).collect();
    assert_eq!(codes, numbers.map(|(_, code)| code));
}
