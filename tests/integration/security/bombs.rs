//! Small inputs that demand much: memory and time stay bounded, other records land, and each bomb becomes dead letters.
//!
//! Every run is measured: its peak memory (`VmHWM`) must stay within the configured limit and [`MARGIN`], its time within a
//! bound. By default the bombs are scaled down, because they run in debug builds on busy machines. With `SHARDLAKE_BOMBS=full` they
//! have the size of an attack (`docs/security.md` has the command).

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_model::kinesis::Put;
use serde_json::Value;

use crate::common::aggregate::{field, record, sealed, varint};
use crate::common::folder::Folder;
use crate::common::worker::peak_memory;
use crate::common::{gzip, pause};
use crate::security::cloud::{Cloud, STREAM};

const MIB: u64 = 1 << 20;
/// Memory beyond the configured limit: code, the SDK, stacks, decoders, and free memory of the allocator.
const MARGIN: u64 = 128 * MIB;
/// The least limit that can be configured. (A test with larger records configures eight records, because a record takes up to five
/// times its size while its values become columns.)
const MEMORY: u64 = 64 * MIB;

/// The default size, or the full one.
fn sized<T>(default: T, full: T) -> T {
    match std::env::var("SHARDLAKE_BOMBS").as_deref() {
        Ok("full") => full,
        Ok(other) => panic!("SHARDLAKE_BOMBS must be 'full' or not set, not '{other}'"),
        Err(_) => default,
    }
}

/// What a run used, and what it printed.
struct Measured {
    /// The configured limit.
    memory: u64,
    peak: u64,
    duration: Duration,
    code: Option<i32>,
    summary: Value,
    log: String,
}

/// Runs a command to its end, or sends it SIGTERM after a while.
fn measure(folder: &Folder, args: &[&str], stop_after: Option<Duration>) -> Measured {
    let file = |name: &str| File::create(folder.path(name)).unwrap();
    let started = Instant::now();
    let mut child =
        folder.command(args).stdout(Stdio::from(file("out"))).stderr(Stdio::from(file("err"))).spawn().unwrap();
    let mut peak = 0;
    let mut stopping = false;
    let status = loop {
        // The peak only grows, so the last sample before the end is enough.
        peak = peak_memory(child.id()).unwrap_or(peak);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if stop_after.is_some_and(|after| started.elapsed() > after) && !stopping {
            stopping = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success();
        }
        if started.elapsed() > Duration::from_secs(3_600) {
            child.kill().unwrap();
        }
        pause(5);
    };
    let summary = std::fs::read(folder.path("out")).unwrap();
    Measured {
        memory: MEMORY,
        peak,
        duration: started.elapsed(),
        code: status.code(),
        summary: serde_json::from_slice(&summary).unwrap_or_default(),
        log: std::fs::read_to_string(folder.path("err")).unwrap(),
    }
}

impl Measured {
    /// Asserts that the run succeeded, within its bounds.
    fn assert_bounded(&self, what: &str, seconds: u64) -> &Self {
        eprintln!("{what}: a peak of {} MiB, {:.1} s", self.peak / MIB, self.duration.as_secs_f64());
        assert_eq!(self.code, Some(0), "{what}: {}", &self.log[self.log.len().saturating_sub(2_000)..]);
        assert!(self.peak > 4 * MIB && self.peak <= self.memory + MARGIN, "{what} took {} MiB", self.peak / MIB);
        assert!(self.duration < Duration::from_secs(seconds), "{what} took {:?}", self.duration);
        self
    }

    fn dead_letters(&self, code: &str) -> u64 {
        self.summary["dead_letters"][code].as_u64().unwrap_or_default()
    }

    fn rows(&self) -> u64 {
        self.summary["rows"].as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).sum()
    }
}

/// Reads the folder `in`, with this limit for the bytes of a record.
fn read(folder: &Folder, record_bytes: u64) -> Measured {
    let memory = MEMORY.max(record_bytes * 8);
    folder.write(
        "shardlake.toml",
        format!("[limits]\nmemory = {memory}\nrecord_bytes = {record_bytes}\nthreads = 1\n[commit]\ninput_bytes = \"64 MiB\"\n"),
    );
    let measured = measure(folder, &["run", "--source", "in", "--lake", "lake", "--until-caught-up", "--json"], None);
    Measured { memory, ..measured }
}

fn good(id: &str) -> String {
    format!(r#"{{"id":"{id}","user_id":"u","type":"t","score":1,"timestamp":"2025-01-13T10:00:00Z"}}"#) + "\n"
}

/// A record of the assessments with one more member.
fn with(member: &str) -> String {
    format!(r#"{{"id":"b","user_id":"u","type":"t","score":1,"timestamp":"2025-01-13T10:00:00Z",{member}}}"#) + "\n"
}

/// This many MiB of one byte, compressed in pieces; each piece is a member (gzip) or frame (zstd) of its own.
fn repeated(byte: u8, mib: u64, compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let piece = compress(&vec![byte; 16 << 20]);
    assert_eq!(mib % 16, 0);
    piece.repeat(usize::try_from(mib / 16).unwrap())
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(text, 19).unwrap()
}

/// Compressed files with lines of this many MiB, in gzip (a thousandth of the size) and in zstd (a thirty-thousandth), and
/// good records before and after them, and in a file of their own.
fn compressed([in_gzip, in_zstd]: [u64; 2], seconds: u64) {
    let folder = Folder::new();
    let between = |bomb: Vec<u8>, compress: fn(&[u8]) -> Vec<u8>| {
        [compress(good("before").as_bytes()), bomb, compress(format!("\n{}", good("after")).as_bytes())].concat()
    };
    let line = between(repeated(b'x', in_gzip, gzip), gzip);
    folder.write("in/line.ndjson.gz", &line);
    folder.write("in/line.ndjson.zst", between(repeated(b' ', in_zstd, zstd), zstd));
    folder.write("in/line.json.gz", &line);
    // Blank lines are not records. A string that is opened never ends.
    folder.write("in/blank.ndjson.gz", between(repeated(b'\n', in_gzip, gzip), gzip));
    folder.write("in/open.ndjson.zst", [zstd(b"{\"id\":\""), repeated(b'[', in_zstd, zstd)].concat());
    folder.write("in/beside.ndjson", good("beside"));
    // Many members with almost no content, and a frame that requests a large window.
    folder.write("in/members.ndjson.gz", [gzip(b"").repeat(50_000), gzip(good("after").as_bytes())].concat());
    let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(good("wide").as_bytes()).unwrap();
    folder.write("in/wide.ndjson.zst", wide.finish().unwrap());
    // What was changed just now may still be arriving.
    let before = std::time::SystemTime::now() - Duration::from_secs(600);
    File::options().append(true).open(folder.path("in/wide.ndjson.zst")).unwrap().set_modified(before).unwrap();
    let measured = read(&folder, MIB);
    measured.assert_bounded("compressed", seconds);
    assert_eq!(
        (measured.dead_letters("Decode.TooLarge"), measured.dead_letters("Decode.DamagedFile")),
        (4, 1),
        "{}",
        measured.summary
    );
    assert_eq!(measured.rows(), 4 * 2 + 2, "{}", measured.summary);
    // A dead letter of a repetitive record is as small in `error/` as its record was.
    let shown = measure(&folder, &["deadletters", "show", "--lake", "lake", "--limit", "1"], None);
    shown.assert_bounded("a dead letter", 300);
}

#[test]
fn a_decompression_bomb_becomes_dead_letters() {
    compressed(sized([64, 256], [1 << 10, 12 << 10]), sized(300, 3_600));
}

#[test]
fn a_worker_stops_in_time_while_it_skips_a_bomb() {
    let folder = Folder::new();
    folder.write("in/line.ndjson.gz", repeated(b'x', sized(4 << 10, 48 << 10), gzip));
    folder.write("in/beside.ndjson", good("beside"));
    let args = ["run", "--source", "in", "--lake", "lake", "--commit-interval", "1s", "--json"];
    let measured = measure(&folder, &args, Some(Duration::from_secs(3)));
    measured.assert_bounded("stopped", 3 + 32);
    assert_eq!(measured.rows(), 1);
}

/// Records of this many bytes that are hard on a parser, each between two good records.
fn records(bytes: usize, seconds: u64) {
    let many = |item: &str| item.repeat(bytes / item.len());
    let list = |item: &str| many(&format!("{item},")).trim_end_matches(',').to_owned();
    let keys: String = (0..bytes / 14).map(|n| format!("\"k{n:07}\":0,")).collect();
    let keys = keys.trim_end_matches(',');
    let endpoint = |inner: &str| {
        with(&format!(
            "\"event_type\":\"a\",\"event_timestamp\":1736764200123,\"client_context\":{{\"custom\":{{\"endpoint\":{}}}}}",
            Value::from(inner)
        ))
    };
    let bombs: Vec<(&str, String)> = vec![
        ("arrays in arrays", many("[") + "\n"),
        ("objects in objects", many("{\"a\":") + "\n"),
        ("deep and closed", with(&format!("\"x\":{}{}", "[".repeat(100_000), "]".repeat(100_000)))),
        ("deep in a column", with(&format!("\"answers\":{}{}", "[".repeat(100_000), "]".repeat(100_000)))),
        ("deep in a document in a string", endpoint(&format!("{{\"a\":{}", "[".repeat(100_000)))),
        ("strings in strings", endpoint(&many("\\\"\\\\"))),
        ("an endless key", format!("{{\"{}\":1}}\n", many("k"))),
        ("keys", with(keys)),
        (
            "keys of a map",
            format!("{{\"user_id\":\"u\",\"updated_at\":\"2025-01-13T10:00:00Z\",\"attributes\":{{{keys}}}}}\n"),
        ),
        ("one key again and again", with(&list("\"x\":0"))),
        ("items", with(&format!("\"answers\":[{}]", list("{}")))),
        ("items with values", with(&format!("\"answers\":[{}]", list("{\"question\":\"q\",\"answer\":\"a\"}")))),
        ("nulls", with(&format!("\"answers\":[{}]", list("null")))),
        (
            "tags",
            format!("{{\"user_id\":\"u\",\"updated_at\":\"2025-01-13T10:00:00Z\",\"tags\":[{}]}}\n", list("\"\"")),
        ),
        ("as many items as may be", with(&format!("\"answers\":[{}]", vec!["{}"; 100_000].join(",")))),
        ("digits", with(&format!("\"x\":{}", many("9")))),
        ("digits of a column", format!("{{\"id\":\"b\",\"user_id\":\"u\",\"type\":\"t\",\"score\":1{}}}\n", many("0"))),
        (
            "digits after the point",
            format!(
                "{{\"id\":\"b\",\"user_id\":\"u\",\"type\":\"t\",\"timestamp\":\"2025-01-13T10:00:00Z\",\"score\":1.{}1}}\n",
                many("0")
            ),
        ),
        ("an exponent", format!("{{\"id\":\"b\",\"user_id\":\"u\",\"type\":\"t\",\"score\":1e{}}}\n", many("9"))),
        ("escapes", with(&format!("\"device\":\"{}\"", many("\\u0000")))),
        ("escapes of a personal value", format!("{{\"id\":\"b\",\"user_id\":\"{}\"}}\n", many("\\ud83d\\ude00"))),
        ("white space", format!("{{{}\n", many(" \t\r"))),
        ("base64", base64_simd::STANDARD.encode_to_string(format!("{{\"a\":{}", many("["))) + "\n"),
        ("gzip in base64", base64_simd::STANDARD.encode_to_string(gzip(&vec![b'['; bytes])) + "\n"),
        (
            "kinds of partitions",
            format!(
                "{{\"id\":\"b\",\"user_id\":\"u\",\"score\":1,\"timestamp\":\"2025-01-13T10:00:00Z\",\"type\":\"{}\"}}\n",
                many("/")
            ),
        ),
    ];
    let folder = Folder::new();
    for (name, bomb) in &bombs {
        let text = [good("before"), bomb.clone(), good("after")].concat();
        folder.write(&format!("in/{}.ndjson", name.replace(' ', "-")), text);
    }
    let measured = read(&folder, (bytes + (1 << 16)) as u64);
    measured.assert_bounded("records", seconds);
    let all = 3 * bombs.len() as u64;
    assert_eq!(measured.summary["records"], all, "{}", measured.summary);
    assert!(measured.rows() >= 2 * bombs.len() as u64, "good records did not land: {}", measured.summary);
    assert!(measured.dead_letters("Decode.TooDeep") >= 4, "{}", measured.summary);
}

#[test]
fn records_that_are_hard_to_parse_cost_time_in_proportion_to_their_size() {
    records(sized(1 << 20, 7 << 20), sized(300, 1_200));
}

#[test]
fn a_record_of_a_hundred_megabytes_becomes_a_dead_letter() {
    let folder = Folder::new();
    let giant =
        |text: &str| [good("before"), with(&format!("\"x\":\"{}\"", text.repeat(100 << 20))), good("after")].concat();
    folder.write("in/plain.ndjson", giant("x"));
    folder.write("in/document.json", with(&format!("\"x\":\"{}\"", "x".repeat(100 << 20))));
    let measured = read(&folder, MIB);
    measured.assert_bounded("a hundred megabytes", 300);
    assert_eq!((measured.dead_letters("Decode.TooLarge"), measured.rows()), (2, 2), "{}", measured.summary);
}

/// A partition for each record. Each is an object, and an epoch ends once it has as many objects as its memory allows.
fn partitions(files: usize, in_each: usize, seconds: u64) {
    let folder = Folder::new();
    for name in 0..files {
        let record =
            |number: usize| good(&format!("r{name}-{number}")).replace("\"t\"", &format!("\"t{name}-{number}\""));
        folder.write(&format!("in/{name:03}.ndjson"), (0..in_each).map(record).collect::<String>());
    }
    folder.write("in/beside.ndjson", good("beside"));
    let measured = read(&folder, MIB);
    measured.assert_bounded("partitions", seconds);
    let all = files * in_each + 1;
    assert_eq!(measured.rows(), all as u64);
    // One object for 4 KiB of memory, and those of one more chunk, which is a file here, or 2 MiB of it.
    let most = usize::try_from(MEMORY / (4 << 10)).unwrap() + in_each.min((2 << 20) / 80) + 2;
    let commits = std::fs::read_dir(folder.path("lake/_commits")).unwrap();
    let objects: Vec<usize> = commits
        .map(|commit| {
            let commit: Value = serde_json::from_slice(&std::fs::read(commit.unwrap().path()).unwrap()).unwrap();
            commit["objects"].as_array().unwrap().len()
        })
        .collect();
    assert!(
        objects.len() >= all.div_ceil(most) && objects.iter().all(|count| *count <= most),
        "{objects:?}; the limit is {most}"
    );
}

#[test]
fn memory_is_bounded_with_a_partition_for_each_record() {
    let (files, in_each) = sized((60, 300), (1, 100_000));
    partitions(files, in_each, sized(300, 3_600));
}

#[test]
fn aggregates_with_false_claims_become_dead_letters() {
    let cloud = Cloud::new();
    let mut key = Vec::new();
    field(1, b"k", &mut key);
    let record = |key_index: u64, data: &[u8]| {
        let mut message = Vec::new();
        record(key_index, data, &mut message);
        message
    };
    let varint = |number: u64| {
        let mut bytes = Vec::new();
        varint(number, &mut bytes);
        bytes
    };
    let whole = [key.clone(), record(0, good("inner").trim().as_bytes())].concat();
    let claims: Vec<Vec<u8>> = vec![
        // Lengths beyond the message, up to 16 exabytes; key indexes that the table does not have; no records; nothing at all.
        sealed(&[key.clone(), vec![3 << 3 | 2], varint(1 << 31), vec![0; 8]].concat()),
        sealed(&[key.clone(), vec![3 << 3 | 2], varint(u64::MAX), vec![0; 8]].concat()),
        sealed(&[key.clone(), record(1 << 31, b"{}")].concat()),
        sealed(&[key.clone(), record(u64::MAX, b"{}")].concat()),
        sealed(&[key.clone(), record(1, b"{}")].concat()),
        sealed(&key),
        sealed(&[]),
        // More records than the limit, each empty.
        sealed(&[key.clone(), record(0, b"").repeat(100_001)].concat()),
        // A key of a megabyte; a truncated aggregate.
        sealed(&[vec![1 << 3 | 2], varint(900_000), vec![b'k'; 900_000], record(0, b"{}")].concat()),
        sealed(&whole)[..40].to_vec(),
    ];
    for claim in &claims {
        cloud.kinesis.put_record(STREAM, Put::new("k", claim.clone())).unwrap();
    }
    // An aggregate inside an aggregate is not opened: it is not JSON. gzip is unpacked to four times what a record may have.
    let nested = sealed(&[key.clone(), record(0, &sealed(&whole))].concat());
    let packed = gzip(&vec![b' '; 4 << 20]);
    for data in [nested, packed, sealed(&whole), good("beside").into_bytes()] {
        cloud.kinesis.put_record(STREAM, Put::new("k", data)).unwrap();
    }
    // Several aggregates of many empty records.
    let crowd = sealed(&[key.clone(), record(0, b"").repeat(20_000)].concat());
    for _ in 0..4 {
        cloud.kinesis.put_record(STREAM, Put::new("k", crowd.clone())).unwrap();
    }
    let mut folder = Folder::new();
    cloud.configure(&mut folder, "");
    let measured = measure(&folder, &["run", "--until-caught-up", "--json"], None);
    measured.assert_bounded("aggregates", 300);
    assert_eq!(measured.dead_letters("Decode.BrokenAggregate"), claims.len() as u64, "{}", measured.summary);
    let found = ["Decode.NotUtf8", "Decode.TooLarge"].map(|code| measured.dead_letters(code));
    assert_eq!((found, measured.rows()), ([1, 1], 2), "{}", measured.summary);
    // Empty records are not records: the 80,000 of the last aggregates leave no trace.
    assert_eq!(measured.summary["records"], claims.len() as u64 + 4, "{}", measured.summary);
}
