//! Files with several documents in a line or over lines, as the binary reads them.

use std::fs;

use crate::common::folder::Folder;
use crate::common::gzip;
use crate::single_machine::{CATCH_UP, assessment};

/// The same document over many lines.
fn pretty(number: usize) -> String {
    let value: serde_json::Value = serde_json::from_str(&assessment(number)).unwrap();
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

fn joined(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| assessment(number).trim_end().to_owned()).collect()
}

#[test]
fn deliveries_without_line_ends_are_read_as_they_are() {
    let folder = Folder::new();
    // More than a record may have, in one line.
    let count = 110_000;
    let line = joined(0..count);
    assert!(line.len() > 11_000_000, "{}", line.len());
    folder.write("in/2025/07/08/18/pinpoint-fh-6-2025-07-08-18-40-00-0a1b.gz", gzip(line.as_bytes()));
    folder.write("in/plain.ndjson", joined(0..100) + "\n");
    folder.write("in/one.json", joined(0..50));
    let first = folder.json(&CATCH_UP);
    let expected = count as u64 + 150;
    assert_eq!((&first["records"], &first["rows"]["assessments"]), (&expected.into(), &expected.into()), "{first}");
    let second = folder.json(&CATCH_UP);
    assert_eq!(second["records"], 0, "{second}");
    folder.assert_verified(expected);
}

#[test]
fn documents_of_many_lines_may_follow_each_other_in_any_file() {
    let folder = Folder::new();
    let text: String = (0..300).map(pretty).collect();
    folder.write("in/a.ndjson", &text);
    folder.write("in/b.json", &text);
    folder.write("in/c.json.gz", gzip(text.as_bytes()));
    folder.write("in/d.ndjson", format!("\u{feff}{}\r\n\u{feff}{}{}", assessment(1), pretty(2), assessment(3)));
    let run = folder.json(&CATCH_UP);
    assert_eq!((&run["records"], &run["rows"]["assessments"]), (&903.into(), &903.into()), "{run}");
    folder.assert_verified(903);
}

#[test]
fn a_document_of_many_lines_is_waited_for_while_its_file_grows() {
    let folder = Folder::new();
    let (text, next) = (pretty(1), pretty(2));
    let half = next.find("\"score\"").unwrap();
    folder.write("in/a.ndjson", text + &next[..half]);
    let worker = folder.start(&["--source", "in", "--lake", "lake", "--commit-interval", "500ms"]);
    crate::common::wait_for("the first row", 60, || folder.rows() == 1);
    folder.append("in/a.ndjson", &next[half..]);
    crate::common::wait_for("the second row", 60, || folder.rows() == 2);
    worker.stop();
    folder.assert_verified(2);
}

#[test]
fn arrays_are_opened_on_request() {
    let folder = Folder::new();
    let array = format!("[{},\n{}]", assessment(1).trim_end(), pretty(2).trim_end());
    let lines = format!("[\n{},\n{}\n]\n", assessment(3).trim_end(), assessment(4).trim_end());
    for source in ["in", "opened"] {
        folder.write(&format!("{source}/a.json"), &array);
        folder.write(&format!("{source}/b.ndjson"), &lines);
    }
    folder.write("in/c.ndjson", assessment(5));
    let run = folder.json(&CATCH_UP);
    let found = (&run["records"], &run["dead_letters"]["Decode.NotAnObject"], &run["unread"]);
    assert_eq!(found, (&3.into(), &2.into(), &serde_json::json!([])), "{run}");
    folder.write("shardlake.toml", "[[source]]\nurl = \"opened\"\narrays = true\n[lake]\nurl = \"lake\"\n");
    let run = folder.json(&["run", "--until-caught-up"]);
    assert_eq!((&run["records"], &run["rows"]["assessments"]), (&4.into(), &4.into()), "{run}");
    folder.assert_verified(7);
}

#[test]
fn one_document_in_each_record_can_be_required() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", joined(0..2) + "\n" + &assessment(2));
    folder.write("shardlake.toml", "[[source]]\nurl = \"in\"\ndocuments = \"one\"\n[lake]\nurl = \"lake\"\n");
    let run = folder.json(&["run", "--until-caught-up"]);
    let found = (&run["records"], &run["rows"]["assessments"], &run["dead_letters"]["Decode.MultipleDocuments"]);
    assert_eq!(found, (&2.into(), &1.into(), &1.into()), "{run}");
}

#[test]
fn a_dead_letter_has_the_kind_and_the_place_of_a_syntax_error() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", "{\"id\":\"secret\",\"score\":1,}\n".to_owned() + &assessment(1));
    folder.ok(&CATCH_UP);
    let shown = folder.ok(&["deadletters", "show", "--lake", "lake", "--code", "DataFormatConversion.ParseError"]);
    assert!(shown.contains("a trailing comma at byte 24"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(fs::read_dir(folder.path("lake/error")).unwrap().count() == 1);
}
