//! What a reader of the lake sees, compared with what was put.
//!
//! Owns: reading every visible object directly from the model of S3, and the comparison: each record once, as a row or as a
//! dead letter, and in one raw line. Does not own: the product's own audit, which runs beside it and must agree.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use crate::aws::cloud::{BUCKET, Cloud, Expected, PREFIX, Position, STREAM};
use crate::aws::records::{Outcome, PERSONAL};

/// What the lake holds: everything that landed for each position, and how often each raw line is there.
#[derive(Debug, Default)]
struct Found {
    records: BTreeMap<Position, Vec<String>>,
    raw: BTreeMap<Vec<u8>, i64>,
}

impl Cloud {
    /// Everything that was put is in the lake exactly once, also in `raw/`, `shardlake verify` finds no fault, and nothing was denied.
    pub(crate) fn audit(&self) {
        self.audit_records();
        let mut lines = self.found().raw;
        for expected in self.ledger.lock().unwrap().values() {
            *lines.entry(expected.line()).or_default() -= 1;
        }
        lines.retain(|_, count| *count != 0);
        let shown: Vec<_> = lines.iter().take(5).map(|(line, more)| (String::from_utf8_lossy(line), more)).collect();
        assert!(lines.is_empty(), "{} raw lines are surplus (+) or missing (-), such as {shown:?}", lines.len());
    }

    /// The same without the raw lines.
    pub(crate) fn audit_records(&self) {
        let found = self.found().records;
        let ledger = self.ledger.lock().unwrap();
        let mut faults = Vec::new();
        for (position, Expected { outcome, .. }) in &*ledger {
            let expected = match outcome {
                Outcome::Row(id) => format!("row {id}"),
                Outcome::DeadLetter(code) => format!("dead letter {code}"),
            };
            match found.get(position) {
                None => faults.push(format!("missing: {expected} of {position:?}")),
                Some(all) if *all == [expected.clone()] => {}
                Some(other) => faults.push(format!("{other:?} instead of {expected} of {position:?}")),
            }
        }
        let unexpected = found.keys().filter(|position| !ledger.contains_key(*position));
        faults.extend(unexpected.map(|position| format!("must not have been read: {position:?}")));
        let shown = faults[..faults.len().min(10)].join("\n");
        assert!(faults.is_empty(), "{} of {} records are wrong:\n{shown}", faults.len(), ledger.len());
        let records = ledger.len() as u64;
        drop(ledger);
        let report = self.folder.json(&["verify"]);
        assert_eq!((&report["clean"], &report["records"]), (&true.into(), &records.into()), "{report}");
        self.audit_logs();
        let denied = self.access.denied();
        assert!(denied.is_empty(), "the roles of deploy/worker.yaml do not allow {denied:#?}");
    }

    /// No log contains personal data.
    fn audit_logs(&self) {
        for entry in std::fs::read_dir(self.folder.root()).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let line = text.lines().find(|line| line.contains(PERSONAL));
            assert_eq!(line, None, "{} contains personal data", path.display());
        }
    }

    fn found(&self) -> Found {
        let mut found = Found::default();
        for key in self.s3.keys(BUCKET) {
            let name = key.strip_prefix(PREFIX).unwrap_or_else(|| panic!("{key} is outside the lake"));
            if name.starts_with('_') {
                continue;
            }
            let bytes = self.s3.object(BUCKET, &key).unwrap();
            match name.split('/').next().unwrap() {
                "processed" => found.add_rows(bytes),
                "error" => found.add_dead_letters(&bytes),
                "raw" => found.add_raw(&bytes),
                _ => panic!("an object of no known area: {name}"),
            }
        }
        found
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    text
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.strip_suffix(b"\n").expect("ends with a line end").split(|byte| *byte == b'\n')
}

impl Found {
    fn add(&mut self, stream: &str, position: Position, what: String) {
        assert_eq!(stream, STREAM);
        self.records.entry(position).or_default().push(what);
    }

    fn add_rows(&mut self, bytes: Bytes) {
        for row in SerializedFileReader::new(bytes).unwrap().get_row_iter(None).unwrap() {
            let columns: BTreeMap<String, Field> = row.unwrap().into_columns().into_iter().collect();
            let text = |name: &str| match &columns[name] {
                Field::Str(text) => text.clone(),
                other => panic!("{name} is {other:?}"),
            };
            let Field::Long(sub) = columns["ingest_subsequence"] else { panic!("ingest_subsequence is not an int64") };
            let position = (text("ingest_shard"), text("ingest_sequence"), u64::try_from(sub).unwrap());
            self.add(&text("ingest_stream"), position, format!("row {}", text("assessment_id")));
        }
    }

    fn add_dead_letters(&mut self, bytes: &[u8]) {
        for line in lines(&gunzip(bytes)) {
            let dead: Value = serde_json::from_slice(line).unwrap();
            let text = |name: &str| dead[name].as_str().unwrap().to_owned();
            let position = (text("shardId"), text("sequenceNumber"), dead["subSequenceNumber"].as_u64().unwrap());
            self.add(&text("stream"), position, format!("dead letter {}", text("errorCode")));
        }
    }

    fn add_raw(&mut self, bytes: &[u8]) {
        for line in lines(&gunzip(bytes)) {
            *self.raw.entry(line.to_vec()).or_default() += 1;
        }
    }
}
