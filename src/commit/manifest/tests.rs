//! A manifest and its bytes: round trips, and what is refused.

use super::*;
use checkpoints::{Position, StreamName};
use pipeline::encode::{Bound, ColumnBounds, ColumnStats};
use pipeline::time::format_rfc3339;
use proptest::prelude::*;

fn worker() -> LeaseOwner {
    LeaseOwner::from_random([0x3f; 16])
}

fn shard() -> impl Strategy<Value = ShardOfEpoch> {
    let id = || "\\PC{1,20}".prop_map(|id| ShardId::new(id).unwrap_or_else(|_| ShardId::new("x").unwrap()));
    let ids = || prop::collection::vec(id(), 0..3);
    ("[a-z:/]{1,20}", id(), any::<u64>(), 1_u64..1000, any::<(bool, bool)>(), ids(), ids()).prop_map(
        |(stream, shard, after, more, (ends, taken_over), parents, children)| {
            let after = after / 2;
            let through = if ends { Position::End } else { Position::at((after + more).into()) };
            ShardOfEpoch {
                key: ShardKey::new(StreamName::new(stream).unwrap(), shard),
                parents,
                range: ShardRange::new(Position::at(after.into()), through).unwrap(),
                children,
                taken_over,
                records: more,
                bytes: more * 100,
                arrived_through: taken_over
                    .then_some(1_736_764_200_000 + i64::from(u32::try_from(more % 1000).unwrap())),
            }
        },
    )
}

fn column_stats(rows: u64) -> FileStats {
    let column = |field_id, bounds| ColumnStats { field_id, bytes: 4711, values: rows, nulls: 0, bounds };
    let exact = |lower, upper| Some(ColumnBounds { lower, upper: Some(upper), lower_exact: true, upper_exact: true });
    FileStats::new(&[
        column(1, None),
        column(2, exact(Bound::Text("a\"é".to_owned()), Bound::Text("z".to_owned()))),
        column(3, exact(Bound::Double(-1.0), Bound::Double(1e300))),
        column(4, exact(Bound::Int(i64::MIN), Bound::Int(i64::MAX))),
        column(5, exact(Bound::Bool(false), Bound::Bool(true))),
    ])
}

fn object() -> impl Strategy<Value = ObjectOfEpoch> {
    let partition = prop::sample::select(vec![
        "year=2025/month=01/day=13",
        "type=a%2Fb/year=2025",
        "type=__HIVE_DEFAULT_PARTITION__",
        "without columns",
    ]);
    let processed = prop::option::of(("[a-z]{1,9}", partition));
    ("[a-z=0-9%é]{1,20}", 1_u64..100_000, 0..COUNT_MAX / 8, processed, 1_u32..5).prop_map(
        |(name, rows, bytes, processed, parts)| {
            let (kind, key) = match &processed {
                Some((dataset, path)) => (ObjectKind::Processed, format!("processed/{dataset}/{path}/x")),
                None => (ObjectKind::Error, format!("error/{name}/x")),
            };
            let key = ObjectKey::new(key).unwrap();
            ObjectOfEpoch {
                partition: ObjectOfEpoch::partition_of(&key),
                key,
                kind,
                columns: if rows % 2 == 0 { FileStats::default() } else { column_stats(rows) },
                dataset: processed.map(|(dataset, _)| dataset),
                rows,
                bytes,
                crc64nvme: Checksum::of(name.as_bytes()),
                upload: UploadId(format!("u-{rows}")),
                parts: (1..=parts).map(|number| Part { number, tag: format!("\"{number}\"") }).collect(),
            }
        },
    )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let count = || 0..COUNT_MAX / 8;
    let counts = prop::collection::btree_map("[a-zA-Z.]{1,10}", count(), 0..4);
    let definition =
        ("[0-9a-f]{0,64}", any::<u32>()).prop_map(|(hash, schema_version)| DefinitionOfEpoch { hash, schema_version });
    (
        prop::collection::vec(shard(), 1..5),
        prop::collection::vec(object(), 0..5),
        (count(), counts.clone(), counts.clone(), prop::option::of(count()), (counts.clone(), counts)),
        prop::collection::btree_map("[a-z]{1,9}", definition, 0..3),
        any::<u32>(),
    )
        .prop_map(
            |(
                shards,
                objects,
                (records, rows, dead_letters, raw_lines, (nulled_values, denied_keys)),
                definitions,
                number,
            )| Manifest {
                format: FORMAT,
                kind: ManifestKind::Epoch,
                epoch: EpochId::new(1_736_764_200_123, &worker(), u64::from(number)),
                worker: worker(),
                written_at: format_rfc3339(1_736_764_200_123),
                head: LogVersion(u64::from(number)),
                shards,
                objects,
                idle: Vec::new(),
                removed: Vec::new(),
                of: None,
                sources: Vec::new(),
                swap: None,
                totals: Totals { records, rows, dead_letters, raw_lines, nulled_values, denied_keys },
                edges: BTreeMap::from([("decode/events/out".to_owned(), EdgeTotal(records, 7))]),
                definitions,
                version: "0.1.0".to_owned(),
            },
        )
}

proptest! {
    #[test]
    fn a_manifest_round_trips(manifest in manifest()) {
        let bytes = manifest.to_bytes();
        prop_assert_eq!(&Manifest::from_bytes(&manifest.epoch.intent_key(), &bytes).unwrap(), &manifest);
        prop_assert_eq!(&Manifest::from_bytes(&manifest.epoch.commit_key(), &bytes).unwrap(), &manifest);
    }

    #[test]
    fn a_damaged_manifest_is_an_error_and_no_panic(manifest in manifest(), cut in any::<prop::sample::Index>()) {
        let bytes = manifest.to_bytes();
        let cut = cut.index(bytes.len() - 1);
        prop_assert!(Manifest::from_bytes(&manifest.epoch.intent_key(), &bytes[..cut]).is_err());
    }
}

fn problem_of(bytes: &[u8]) -> String {
    Manifest::from_bytes(&EpochId::new(0, &worker(), 1).intent_key(), bytes).unwrap_err().problem
}

#[test]
fn another_format_is_refused() {
    assert_eq!(
        problem_of(b"{\"format\":1,\"epoch\":\"x\"}"),
        "it has format 1, which an older version of shardlake wrote; this version reads formats 2 and 3 only, and needs a new lake"
    );
    assert_eq!(
        problem_of(b"{\"format\":4,\"new\":true}"),
        "it has format 4, and this version of shardlake reads formats 2 and 3 only; use a newer version"
    );
}

#[test]
fn a_manifest_of_the_format_before_has_no_head() {
    let manifest = one_object();
    let text = String::from_utf8(manifest.to_bytes().to_vec()).unwrap();
    let before = text.replace("\"format\":3", "\"format\":2").replace("\"head\":0,", "");
    assert_ne!(before.len(), text.len());
    let read = Manifest::from_bytes(&manifest.epoch.intent_key(), before.as_bytes()).unwrap();
    assert_eq!(read, Manifest { format: 2, ..manifest });
}

#[test]
fn another_kind_is_refused_by_its_name() {
    assert_eq!(
        problem_of(b"{\"format\":2,\"kind\":\"shuffle\",\"inputs\":[]}"),
        "it is of kind 'shuffle', which this version of shardlake does not know; use a newer version"
    );
    assert!(problem_of(b"{\"format\":2}").starts_with("it is of kind ''"));
}

fn one_object() -> Manifest {
    let object = ObjectOfEpoch {
        key: ObjectKey::new("processed/events/a.parquet").unwrap(),
        kind: ObjectKind::Processed,
        dataset: None,
        partition: BTreeMap::new(),
        columns: FileStats::default(),
        rows: 17,
        bytes: 4711,
        crc64nvme: Checksum::of(b""),
        upload: UploadId("u-1".to_owned()),
        parts: Vec::new(),
    };
    let shard = ShardOfEpoch {
        key: ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap()),
        parents: Vec::new(),
        range: ShardRange::new(Position::Beginning, Position::End).unwrap(),
        children: Vec::new(),
        taken_over: false,
        records: 17,
        bytes: 100,
        arrived_through: None,
    };
    Manifest {
        format: FORMAT,
        kind: ManifestKind::Epoch,
        epoch: EpochId::new(0, &worker(), 1),
        worker: worker(),
        written_at: format_rfc3339(0),
        head: LogVersion::EMPTY,
        shards: vec![shard],
        objects: vec![object],
        idle: Vec::new(),
        removed: Vec::new(),
        of: None,
        sources: Vec::new(),
        swap: None,
        totals: Totals { records: 17, rows: [("events".to_owned(), 17)].into(), ..Totals::default() },
        edges: BTreeMap::new(),
        definitions: BTreeMap::new(),
        version: "0.1.0".to_owned(),
    }
}

/// What reading says of a manifest with one object, with something in its JSON replaced.
fn message_of(from: &str, to: &str) -> Result<Manifest, String> {
    let manifest = one_object();
    let text = String::from_utf8(manifest.to_bytes().to_vec()).unwrap();
    assert!(text.contains(from), "{from} is in {text}");
    let read = Manifest::from_bytes(&manifest.epoch.intent_key(), text.replacen(from, to, 1).as_bytes());
    read.map_err(|unreadable| unreadable.problem)
}

#[test]
fn a_manifest_of_another_epoch_than_its_key_is_refused() {
    let other = EpochId::new(0, &worker(), 2).to_string();
    let problem = message_of(one_object().epoch.as_str(), &other).unwrap_err();
    assert_eq!(problem, format!("it is of epoch {other}"));
}

#[test]
fn a_manifest_that_names_what_no_epoch_makes_is_refused_before_anything_is_deleted() {
    assert!(message_of("processed/events/a", "processed/events/b").is_ok());
    for key in ["_checkpoints.db", "_commits/1.json", "raw/events/a.json.gz", "_processed/a", "processed"] {
        let problem = message_of("processed/events/a.parquet", key).unwrap_err();
        assert_eq!(problem, format!("its object {key} is not in processed/"));
    }
    for key in ["/etc/passwd", "processed/../_checkpoints.db", "processed//a", "processed/a/"] {
        let problem = message_of("processed/events/a.parquet", key).unwrap_err();
        assert!(problem.contains(&format!("'{key}'")), "{problem}");
    }
}

#[test]
fn an_epoch_that_removes_objects_is_refused_since_nobody_would_remove_them() {
    let removing = |key: &str| {
        let removed =
            format!(r#""removed":[{{"key":"{key}","kind":"processed","dataset":"events","rows":1,"bytes":1}}]"#);
        message_of("\"removed\":[]", &removed).unwrap_err()
    };
    let problem = removing("processed/events/b.parquet");
    assert_eq!(problem, "it removes processed/events/b.parquet, but an epoch removes nothing");
    assert!(removing("../b").contains("'../b'"));
    let of = message_of("\"removed\":[]", "\"removed\":[],\"of\":\"replay:1\"").unwrap_err();
    assert_eq!(of, "it is an epoch, and says of which operation it is");
    assert!(message_of("\"removed\":[],", "").unwrap_err().contains("missing field `removed`"));
}

#[test]
fn an_epoch_without_shards_is_refused() {
    let mut manifest = one_object();
    manifest.shards.clear();
    assert_eq!(problem_of(&manifest.to_bytes()), "it has no shards");
}

#[test]
fn partition_values_are_typed_json_and_those_of_the_key() {
    let mut manifest = one_object();
    let path = "processed/events/month=01/type=1/unit=__HIVE_DEFAULT_PARTITION__/a.parquet";
    manifest.objects[0].key = ObjectKey::new(path).unwrap();
    manifest.objects[0].partition = ObjectOfEpoch::partition_of(&manifest.objects[0].key);
    let text = String::from_utf8(manifest.to_bytes().to_vec()).unwrap();
    assert!(text.contains(r#""partition":{"month":1,"type":"1","unit":null}"#), "{text}");
    assert_eq!(Manifest::from_bytes(&manifest.epoch.commit_key(), text.as_bytes()).as_ref(), Ok(&manifest));
    let other = text.replace(r#""month":1,"type""#, r#""month":2,"type""#);
    let problem = problem_of(other.as_bytes());
    assert_eq!(problem, format!("its object {path} is in another partition than the manifest says"));
}

#[test]
fn column_statistics_are_a_list_in_the_manifest() {
    let mut manifest = one_object();
    manifest.objects[0].columns = column_stats(17);
    let text = String::from_utf8(manifest.to_bytes().to_vec()).unwrap();
    let stats = r#""columns":[[1,4711,17,0],[2,4711,17,0,"a\"é","z"],[3,4711,17,0,-1.0,1e+300],"#;
    assert!(text.contains(stats), "{text}");
    let problem = problem_of(text.replace("[1,4711,17,0]", "[1,4711,17,99]").as_bytes());
    assert!(problem.contains("field 1 has 99 nulls among 17 values"), "{problem}");
}

#[test]
fn counts_that_cannot_be_added_up_are_refused() {
    let problem = message_of("\"events\":17", "\"events\":18446744073709551615,\"users\":18").unwrap_err();
    assert_eq!(problem, "no epoch has 18446744073709551615 rows and dead letters");
    assert_eq!(
        message_of(":4711", ":9007199254740993").unwrap_err(),
        "no epoch has 9007199254740993 bytes in its objects"
    );
    assert!(message_of(":4711", ":9007199254740992").is_ok());
}

#[test]
fn a_checksum_is_read_as_it_is_written() {
    let written = Checksum::of(b"").to_string();
    assert!(message_of(&written, "00000000000000ff").is_ok());
    for other in ["+0000000000000ff", "00000000000000FF", "0000000000000ff", "00000000000000fg"] {
        assert!(message_of(&written, other).unwrap_err().contains("checksum"), "{other}");
    }
}
