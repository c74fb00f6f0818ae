//! Small inputs that ask for much: memory and time stay bounded, neighbours land, and each bomb becomes dead letters.
//!
//! Every run is measured: its peak memory (`VmHWM`) must stay within what is configured and [`MARGIN`], its time within a
//! bound. By default they are scaled down, since they run in debug builds on busy machines; with `SHARDLAKE_BOMBS=full` they
//! have the sizes that one would attack with (`docs/security.md` has the command).

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aws_model::kinesis::Put;
use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};
use serde_json::Value;

use crate::place::Place;
use crate::services::{Cloud, STREAM, field};

const MIB: u64 = 1 << 20;
/// What workers may have beside what is configured: code, the SDK, stacks, decoders, and what the allocator keeps.
const MARGIN: u64 = 128 * MIB;
/// What is configured: the least that there may be, or as much as eight records: while its values become columns, a record
/// takes up to five times its size.
const MEMORY: u64 = 64 * MIB;

/// The size that runs by default, or the full one.
fn sized<T>(default: T, full: T) -> T {
    match std::env::var("SHARDLAKE_BOMBS").as_deref() {
        Ok("full") => full,
        Ok(other) => panic!("SHARDLAKE_BOMBS is full or not set, not {other}"),
        Err(_) => default,
    }
}

/// What a run took, and what it said.
struct Measured {
    /// What is configured, and what was taken.
    memory: u64,
    peak: u64,
    took: Duration,
    code: Option<i32>,
    summary: Value,
    log: String,
}

/// Runs a command to its end, or to SIGTERM after a while.
fn measure(place: &Place, args: &[&str], stop_after: Option<Duration>) -> Measured {
    let file = |name: &str| File::create(place.path(name)).unwrap();
    let begun = Instant::now();
    let mut child =
        place.command(args).stdout(Stdio::from(file("out"))).stderr(Stdio::from(file("err"))).spawn().unwrap();
    let mut peak = 0;
    let mut told_to_stop = false;
    let status = loop {
        // The peak only grows: the last look but a few milliseconds sees it.
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        if let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
            peak = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if stop_after.is_some_and(|after| begun.elapsed() > after) && !told_to_stop {
            told_to_stop = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success();
        }
        if begun.elapsed() > Duration::from_secs(3_600) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let message = std::fs::read(place.path("out")).unwrap();
    Measured {
        memory: MEMORY,
        peak,
        took: begun.elapsed(),
        code: status.code(),
        summary: serde_json::from_slice(&message).unwrap_or_default(),
        log: std::fs::read_to_string(place.path("err")).unwrap(),
    }
}

impl Measured {
    /// The run ended well, within its bounds.
    fn is_bounded(&self, what: &str, seconds: u64) -> &Self {
        eprintln!("{what}: {} MiB at most, {:.1} s", self.peak / MIB, self.took.as_secs_f64());
        assert_eq!(self.code, Some(0), "{what}: {}", &self.log[self.log.len().saturating_sub(2_000)..]);
        assert!(self.peak > 4 * MIB && self.peak <= self.memory + MARGIN, "{what} took {} MiB", self.peak / MIB);
        assert!(self.took < Duration::from_secs(seconds), "{what} took {:?}", self.took);
        self
    }

    fn letters(&self, code: &str) -> u64 {
        self.summary["dead_letters"][code].as_u64().unwrap_or_default()
    }

    fn rows(&self) -> u64 {
        self.summary["rows"].as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).sum()
    }
}

/// Reads the folder `in`, with so many bytes a record at most.
fn read(place: &Place, record_bytes: u64) -> Measured {
    let memory = MEMORY.max(record_bytes * 8);
    place.write(
        "shardlake.toml",
        format!("[limits]\nmemory = {memory}\nrecord_bytes = {record_bytes}\nthreads = 1\n[commit]\ninput_bytes = \"64 MiB\"\n"),
    );
    let measured = measure(place, &["run", "--source", "in", "--lake", "lake", "--until-caught-up", "--json"], None);
    Measured { memory, ..measured }
}

fn good(id: &str) -> String {
    format!(r#"{{"id":"{id}","user_id":"u","type":"t","score":1,"timestamp":"2025-01-13T10:00:00Z"}}"#) + "\n"
}

/// A record of the assessments with one more member.
fn with(member: &str) -> String {
    format!(r#"{{"id":"b","user_id":"u","type":"t","score":1,"timestamp":"2025-01-13T10:00:00Z",{member}}}"#) + "\n"
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// So many MiB of one byte, compressed piece by piece: each piece is a member (frame) of its own.
fn repeated(byte: u8, mib: u64, compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let piece = compress(&vec![byte; 16 << 20]);
    assert_eq!(mib % 16, 0);
    piece.repeat(usize::try_from(mib / 16).unwrap())
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(text, 19).unwrap()
}

/// Compressed files that hold lines of so many MiB, in gzip (a thousandth of it) and in zstd (a thirty-thousandth), and
/// neighbours before, behind and beside.
fn compressed([in_gzip, in_zstd]: [u64; 2], seconds: u64) {
    let place = Place::new();
    let between = |bomb: Vec<u8>, compress: fn(&[u8]) -> Vec<u8>| {
        [compress(good("before").as_bytes()), bomb, compress(format!("\n{}", good("behind")).as_bytes())].concat()
    };
    let line = between(repeated(b'x', in_gzip, gzip), gzip);
    place.write("in/line.ndjson.gz", &line);
    place.write("in/line.ndjson.zst", between(repeated(b' ', in_zstd, zstd), zstd));
    place.write("in/line.json.gz", &line);
    // Blank lines are no records; an opened string never ends.
    place.write("in/blank.ndjson.gz", between(repeated(b'\n', in_gzip, gzip), gzip));
    place.write("in/open.ndjson.zst", [zstd(b"{\"id\":\""), repeated(b'[', in_zstd, zstd)].concat());
    place.write("in/beside.ndjson", good("beside"));
    // Many members that hold next to nothing; one that says it needs a window of gigabytes.
    place.write("in/members.ndjson.gz", [gzip(b"").repeat(50_000), gzip(good("behind").as_bytes())].concat());
    let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(good("wide").as_bytes()).unwrap();
    place.write("in/wide.ndjson.zst", wide.finish().unwrap());
    let measured = read(&place, MIB);
    measured.is_bounded("compressed", seconds);
    assert_eq!(
        (measured.letters("Decode.TooLarge"), measured.letters("Decode.DamagedFile")),
        (4, 1),
        "{}",
        measured.summary
    );
    assert_eq!(measured.rows(), 4 * 2 + 2, "{}", measured.summary);
    // A record that repeats itself is as small in `error/` as it was.
    let shown = measure(&place, &["deadletters", "show", "--lake", "lake", "--limit", "1"], None);
    shown.is_bounded("a dead letter", 300);
}

#[test]
fn a_compressed_file_that_expands_without_end_is_passed_over() {
    compressed(sized([64, 256], [1 << 10, 12 << 10]), sized(300, 3_600));
}

#[test]
fn a_worker_ends_in_time_while_it_passes_over_a_bomb() {
    let place = Place::new();
    place.write("in/line.ndjson.gz", repeated(b'x', sized(4 << 10, 48 << 10), gzip));
    place.write("in/beside.ndjson", good("beside"));
    let args = ["run", "--source", "in", "--lake", "lake", "--commit-interval", "1s", "--json"];
    let measured = measure(&place, &args, Some(Duration::from_secs(3)));
    measured.is_bounded("told to stop", 3 + 32);
    assert_eq!(measured.rows(), 1);
}

/// Records of so many bytes that are hard on a parser; every one has a good neighbour before and behind.
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
        ("nothings", with(&format!("\"answers\":[{}]", list("null")))),
        (
            "tags",
            format!("{{\"user_id\":\"u\",\"updated_at\":\"2025-01-13T10:00:00Z\",\"tags\":[{}]}}\n", list("\"\"")),
        ),
        ("as many items as may be", with(&format!("\"answers\":[{}]", vec!["{}"; 100_000].join(",")))),
        ("digits", with(&format!("\"x\":{}", many("9")))),
        ("digits of a column", format!("{{\"id\":\"b\",\"user_id\":\"u\",\"type\":\"t\",\"score\":1{}}}\n", many("0"))),
        (
            "digits behind the point",
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
    let place = Place::new();
    for (name, bomb) in &bombs {
        let text = [good("before"), bomb.clone(), good("behind")].concat();
        place.write(&format!("in/{}.ndjson", name.replace(' ', "-")), text);
    }
    let measured = read(&place, (bytes + (1 << 16)) as u64);
    measured.is_bounded("records", seconds);
    let all = 3 * bombs.len() as u64;
    assert_eq!(measured.summary["records"], all, "{}", measured.summary);
    assert!(measured.rows() >= 2 * bombs.len() as u64, "neighbours land: {}", measured.summary);
    assert!(measured.letters("Decode.TooDeep") >= 4, "{}", measured.summary);
}

#[test]
fn records_that_are_hard_to_parse_cost_what_their_size_costs() {
    records(sized(1 << 20, 7 << 20), sized(300, 1_200));
}

#[test]
fn a_record_of_a_hundred_megabytes_is_set_aside() {
    let place = Place::new();
    let giant =
        |text: &str| [good("before"), with(&format!("\"x\":\"{}\"", text.repeat(100 << 20))), good("behind")].concat();
    place.write("in/plain.ndjson", giant("x"));
    place.write("in/document.json", with(&format!("\"x\":\"{}\"", "x".repeat(100 << 20))));
    let measured = read(&place, MIB);
    measured.is_bounded("a hundred megabytes", 300);
    assert_eq!((measured.letters("Decode.TooLarge"), measured.rows()), (2, 2), "{}", measured.summary);
}

/// A partition for each record: each is an object, and an epoch ends once it has as many as its memory allows.
fn partitions(files: usize, in_each: usize, seconds: u64) {
    let place = Place::new();
    for name in 0..files {
        let record =
            |number: usize| good(&format!("r{name}-{number}")).replace("\"t\"", &format!("\"t{name}-{number}\""));
        place.write(&format!("in/{name:03}.ndjson"), (0..in_each).map(record).collect::<String>());
    }
    place.write("in/beside.ndjson", good("beside"));
    let measured = read(&place, MIB);
    measured.is_bounded("partitions", seconds);
    let all = files * in_each + 1;
    assert_eq!(measured.rows(), all as u64);
    // One for 4 KiB of memory, and those of a chunk more, which is a file here, or 2 MiB of it.
    let most = usize::try_from(MEMORY / (4 << 10)).unwrap() + in_each.min((2 << 20) / 80) + 2;
    let commits = std::fs::read_dir(place.path("lake/_commits")).unwrap();
    let objects: Vec<usize> = commits
        .map(|commit| {
            let commit: Value = serde_json::from_slice(&std::fs::read(commit.unwrap().path()).unwrap()).unwrap();
            commit["objects"].as_array().unwrap().len()
        })
        .collect();
    assert!(
        objects.len() >= all.div_ceil(most) && objects.iter().all(|count| *count <= most),
        "{objects:?}, {most} at most"
    );
}

#[test]
fn a_partition_for_each_record_is_bounded_in_memory() {
    let (files, in_each) = sized((12, 2_000), (1, 100_000));
    partitions(files, in_each, sized(300, 3_600));
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn sealed(message: &[u8]) -> Vec<u8> {
    [&[0xF3, 0x89, 0x9A, 0xC2][..], message, &Md5::digest(message)[..]].concat()
}

#[test]
fn aggregates_that_claim_what_they_do_not_hold_are_set_aside() {
    let cloud = Cloud::new();
    let mut key = Vec::new();
    field(1, b"k", &mut key);
    let record = |number: u64, data: &[u8]| {
        let mut inner = [vec![1 << 3], varint(number)].concat();
        field(3, data, &mut inner);
        let mut message = Vec::new();
        field(3, &inner, &mut message);
        message
    };
    let whole = [key.clone(), record(0, good("inner").trim().as_bytes())].concat();
    let claims: Vec<Vec<u8>> = vec![
        // Lengths of 2 and 8 exabytes; indexes that no table has; no records; nothing at all.
        sealed(&[key.clone(), vec![3 << 3 | 2], varint(1 << 31), vec![0; 8]].concat()),
        sealed(&[key.clone(), vec![3 << 3 | 2], varint(u64::MAX), vec![0; 8]].concat()),
        sealed(&[key.clone(), record(1 << 31, b"{}")].concat()),
        sealed(&[key.clone(), record(u64::MAX, b"{}")].concat()),
        sealed(&[key.clone(), record(1, b"{}")].concat()),
        sealed(&key),
        sealed(&[]),
        // More records than one may have, of no bytes each.
        sealed(&[key.clone(), record(0, b"").repeat(100_001)].concat()),
        // A key of a megabyte; a digest of something else.
        sealed(&[vec![1 << 3 | 2], varint(900_000), vec![b'k'; 900_000], record(0, b"{}")].concat()),
        sealed(&whole)[..40].to_vec(),
    ];
    for claim in &claims {
        cloud.kinesis.put_record(STREAM, Put::new("k", claim.clone())).unwrap();
    }
    // An aggregate in an aggregate is not opened, gzip is not unpacked: both are no JSON.
    let nested = sealed(&[key.clone(), record(0, &sealed(&whole))].concat());
    let packed = gzip(&vec![b' '; 4 << 20]);
    for data in [nested, packed, sealed(&whole), good("beside").into_bytes()] {
        cloud.kinesis.put_record(STREAM, Put::new("k", data)).unwrap();
    }
    // As many records as there may be in one, each of them empty, many times over.
    let crowd = sealed(&[key.clone(), record(0, b"").repeat(20_000)].concat());
    for _ in 0..4 {
        cloud.kinesis.put_record(STREAM, Put::new("k", crowd.clone())).unwrap();
    }
    let mut place = Place::new();
    cloud.configure(&mut place, "");
    let measured = measure(&place, &["run", "--until-caught-up", "--json"], None);
    measured.is_bounded("aggregates", 300);
    assert_eq!(measured.letters("Decode.BrokenAggregate"), claims.len() as u64, "{}", measured.summary);
    assert_eq!((measured.letters("Decode.NotUtf8"), measured.rows()), (2, 2), "{}", measured.summary);
    assert_eq!(measured.summary["records"], claims.len() as u64 + 4 + 80_000, "{}", measured.summary);
}
