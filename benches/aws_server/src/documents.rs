//! Small documents in a bucket, as the Lambdas of old wrote them: one object each, by day.
//!
//! Owns: their keys and contents, which are those of `benches/objects.py`. Does not own: serving them (the model of S3).

use aws_model::s3::S3;

/// Days of each month, and months, over which the documents are spread.
const DAYS: usize = 28;
const MONTHS: usize = 12;
/// Bytes of a document around its comment.
const FRAME_BYTES: usize = 14;

/// Puts `count` documents of about `bytes` bytes into the bucket `source`, and makes the bucket `lake`. Returns the bytes of all.
pub(crate) fn put(s3: &S3, count: usize, bytes: usize) -> usize {
    s3.create_bucket("source");
    s3.create_bucket("lake");
    let mut total = 0;
    for n in 0..count {
        let (month, day) = (n / DAYS % MONTHS + 1, n % DAYS + 1);
        let document = document(n, month, day, bytes);
        total += document.len();
        s3.put_object("source", &format!("2025/{month:02}/{day:02}/{n:08x}.json"), document);
    }
    total
}

fn document(n: usize, month: usize, day: usize, bytes: usize) -> String {
    let fields = format!(
        "{{\"id\": \"a{n}\", \"user_id\": \"u{}\", \"type\": \"skills\", \"score\": {}, \"duration\": {}, \
         \"timestamp\": \"2025-{month:02}-{day:02}T10:00:00Z\"",
        n % 9973,
        n % 101,
        n % 3600
    );
    let comment = "x".repeat(bytes.saturating_sub(fields.len() + 1 + FRAME_BYTES));
    format!("{fields}, \"comment\": \"{comment}\"}}")
}
