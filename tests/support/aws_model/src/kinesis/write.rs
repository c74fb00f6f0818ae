//! PutRecord and PutRecords.
//!
//! Owns: what is refused, and which records of a batch fail alone. Does not own: numbering (`shard`).

use super::api::{Error, ErrorKind, Placed, Put, Result};
use super::stream::hash_key;
use super::{Kinesis, State};

const RECORDS_MAX: usize = 500;
const REQUEST_BYTES_MAX: usize = 10 << 20;
const PARTITION_KEY_MAX: usize = 256;

impl Kinesis {
    /// Puts one record.
    ///
    /// # Errors
    /// If there is no such stream, the record is too large, or the shard's limit is reached.
    pub fn put_record(&self, stream: &str, put: Put) -> Result<Placed> {
        self.change(|state, now_ms| {
            check_key(&put)?;
            state.stream(stream, now_ms)?.check_size(&put)?;
            state.put(stream, put, now_ms)
        })
    }

    /// Puts up to 500 records; each may fail separately.
    ///
    /// # Errors
    /// If there is no such stream, there are no records or too many, or one is too large. Then none is stored.
    pub fn put_records(&self, stream: &str, puts: Vec<Put>) -> Result<Vec<Result<Placed>>> {
        self.change(|state, now_ms| {
            if puts.is_empty() || puts.len() > RECORDS_MAX {
                let bound = if puts.is_empty() { "greater than or equal to 1" } else { "less than or equal to 500" };
                return Err(Error::constraint("[…]", "records", &format!("have length {bound}")));
            }
            let mut bytes = 0;
            let found = state.stream(stream, now_ms)?;
            for put in &puts {
                check_key(put)?;
                found.check_size(put)?;
                bytes += put.data.len() + put.partition_key.len();
            }
            if bytes > REQUEST_BYTES_MAX {
                return Err(Error::argument(format!("Records size exceeds {} MB limit", REQUEST_BYTES_MAX >> 20)));
            }
            Ok(puts.into_iter().map(|put| state.put_one_of_many(stream, put, now_ms)).collect())
        })
    }
}

impl State {
    fn put_one_of_many(&mut self, stream: &str, put: Put, now_ms: i64) -> Result<Placed> {
        self.offered += 1;
        if self.settings.failed_record_every.is_some_and(|every| self.offered.is_multiple_of(every.get())) {
            return Err(Error::new(ErrorKind::InternalFailure, "Internal Service Failure"));
        }
        self.put(stream, put, now_ms)
    }

    fn put(&mut self, stream: &str, put: Put, now_ms: i64) -> Result<Placed> {
        let (limits, visible_after_ms) = (self.settings.write_limits, self.settings.visible_after_ms);
        let account = self.account.clone();
        let shard = self
            .stream(stream, now_ms)?
            .shard_of(put.explicit_hash_key.unwrap_or_else(|| hash_key(&put.partition_key)));
        if limits {
            let bytes = (put.data.len() + put.partition_key.len()) as u64;
            if !shard.writes.admits(now_ms, bytes) {
                return Err(rate_exceeded(&shard.name(), stream, &account));
            }
            shard.writes.note(now_ms, bytes);
        }
        Ok(Placed { sequence: shard.put(put, now_ms, visible_after_ms), shard: shard.name() })
    }
}

/// The error of a shard's reached limit.
pub(super) fn rate_exceeded(shard: &str, stream: &str, account: &str) -> Error {
    let message = format!("Rate exceeded for shard {shard} in stream {stream} under account {account}.");
    Error::new(ErrorKind::ProvisionedThroughputExceeded, message)
}

fn check_key(put: &Put) -> Result<()> {
    match put.partition_key.chars().count() {
        0 => Err(Error::constraint("", "partitionKey", "have length greater than or equal to 1")),
        // Without the key itself, which may be personal.
        count if count > PARTITION_KEY_MAX => {
            Err(Error::constraint("…", "partitionKey", "have length less than or equal to 256"))
        }
        _ => Ok(()),
    }
}
