//! One stream: its shards, its consumers, its age; and the operations create, delete, describe, retention.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::api::{Error, ErrorKind, Result, ShardInfo, StreamSummary};
use super::consumers::Consumer;
use super::shard::Shard;
use super::{Kinesis, State};

const HOUR_MS: i64 = 3_600_000;
const RETENTION_HOURS_MIN: u32 = 24;
const RETENTION_HOURS_MAX: u32 = 8760;
const ON_DEMAND_SHARDS: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) name: String,
    pub(super) created_ms: i64,
    pub(super) on_demand: bool,
    pub(super) retention_hours: u32,
    pub(super) max_record_kib: usize,
    pub(super) creating_until_ms: i64,
    pub(super) updating_until_ms: i64,
    pub(super) shards: BTreeMap<u32, Shard>,
    pub(super) next_shard: u32,
    pub(super) consumers: BTreeMap<String, Consumer>,
}

impl Stream {
    pub(super) fn status(&self, now_ms: i64) -> &'static str {
        if now_ms < self.creating_until_ms {
            "CREATING"
        } else if now_ms < self.updating_until_ms {
            "UPDATING"
        } else {
            "ACTIVE"
        }
    }

    /// The oldest time of which records are kept.
    pub(super) fn horizon_ms(&self, now_ms: i64) -> i64 {
        (now_ms - i64::from(self.retention_hours) * HOUR_MS).max(self.created_ms)
    }

    pub(super) fn trim(&mut self, now_ms: i64) {
        let horizon_ms = self.horizon_ms(now_ms);
        self.shards.retain(|_, shard| !shard.trim(horizon_ms));
    }

    /// The open shard that the hash key belongs to.
    pub(super) fn shard_of(&mut self, hash_key: u128) -> &mut Shard {
        self.shards.values_mut().find(|shard| shard.owns(hash_key)).expect("open shards cover all hash keys")
    }

    pub(super) fn open_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values().filter(|shard| shard.is_open())
    }

    fn max_bytes(&self) -> usize {
        self.max_record_kib << 10
    }

    /// Checks a record's size.
    pub(super) fn check_size(&self, put: &super::api::Put) -> Result<()> {
        if put.data.len() + put.partition_key.len() > self.max_bytes() {
            return Err(Error::argument(format!(
                "Record's total of partition key and data is larger than the {} bytes that stream {} allows",
                self.max_bytes(),
                self.name
            )));
        }
        Ok(())
    }
}

/// The hash key of a partition key: its MD5.
pub fn hash_key(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

/// The first and last hash keys of `count` equal ranges.
pub(super) fn uniform(count: u32) -> Vec<(u128, u128)> {
    let parts = u128::from(count);
    let size = match (u128::MAX / parts, u128::MAX % parts) {
        (whole, rest) if rest + 1 == parts && parts > 1 => whole + 1,
        (whole, _) => whole,
    };
    let start = |part: u128| if part == 0 { 0 } else { size * part };
    let end = |part: u128| if part + 1 == parts { u128::MAX } else { start(part + 1) - 1 };
    (0..parts).map(|part| (start(part), end(part))).collect()
}

impl State {
    /// The ARN of a stream.
    pub(super) fn arn(&self, stream: &str) -> String {
        format!("arn:aws:kinesis:{}:{}:stream/{stream}", self.region, self.account)
    }

    pub(super) fn no_stream(&self, stream: &str) -> Error {
        Error::not_found(format!("Stream {stream} under account {} not found.", self.account))
    }

    /// The stream, aged to `now_ms`.
    pub(super) fn stream(&mut self, name: &str, now_ms: i64) -> Result<&mut Stream> {
        let missing = self.no_stream(name);
        let stream = self.streams.get_mut(name).ok_or(missing)?;
        stream.trim(now_ms);
        Ok(stream)
    }

    /// The stream, if it may be changed now.
    pub(super) fn active(&mut self, name: &str, now_ms: i64) -> Result<&mut Stream> {
        let account = self.account.clone();
        let stream = self.stream(name, now_ms)?;
        match stream.status(now_ms) {
            "ACTIVE" => Ok(stream),
            status => Err(Error::in_use(format!(
                "Stream {name} under account {account} not ACTIVE, instead in state {status}"
            ))),
        }
    }
}

impl Kinesis {
    /// Creates a stream; `shards` `None`: on demand, with 4.
    ///
    /// # Errors
    /// If the name is taken, or `shards` is 0.
    pub fn create_stream(&self, name: &str, shards: Option<u32>) -> Result<()> {
        self.change(|state, now_ms| {
            if shards == Some(0) {
                return Err(Error::constraint(0, "shardCount", "have value greater than or equal to 1"));
            }
            if state.streams.contains_key(name) {
                let message = format!("Stream {name} under account {} already exists.", state.account);
                return Err(Error::in_use(message));
            }
            let count = shards.unwrap_or(ON_DEMAND_SHARDS);
            let ready_ms = now_ms + i64::from(state.settings.status_ms);
            let shards_of = uniform(count).into_iter().zip(0..).map(|(keys, n)| (n, Shard::open(n, &[], keys, now_ms)));
            let stream = Stream {
                name: name.to_owned(),
                created_ms: now_ms,
                on_demand: shards.is_none(),
                retention_hours: RETENTION_HOURS_MIN,
                max_record_kib: 1024,
                creating_until_ms: ready_ms,
                updating_until_ms: ready_ms,
                shards: shards_of.collect(),
                next_shard: count,
                consumers: BTreeMap::new(),
            };
            state.streams.insert(name.to_owned(), stream);
            Ok(())
        })
    }

    /// Deletes a stream immediately.
    ///
    /// # Errors
    /// If there is none, or it has consumers and `with_consumers` is false.
    pub fn delete_stream(&self, name: &str, with_consumers: bool) -> Result<()> {
        self.change(|state, now_ms| {
            let account = state.account.clone();
            if !state.stream(name, now_ms)?.consumers.is_empty() && !with_consumers {
                return Err(Error::in_use(format!("Stream {name} under account {account} has registered consumers")));
            }
            state.streams.remove(name);
            Ok(())
        })
    }

    /// The names of all streams.
    pub fn list_streams(&self) -> Vec<String> {
        self.lock().streams.keys().cloned().collect()
    }

    /// A stream's summary.
    ///
    /// # Errors
    /// If there is none.
    pub fn describe_stream_summary(&self, name: &str) -> Result<StreamSummary> {
        self.look(|state, now_ms| {
            let arn = state.arn(name);
            let stream = state.stream(name, now_ms)?;
            Ok(StreamSummary {
                name: name.to_owned(),
                arn,
                status: stream.status(now_ms),
                on_demand: stream.on_demand,
                retention_hours: stream.retention_hours,
                created_ms: stream.created_ms,
                open_shards: stream.open_shards().count(),
                consumers: stream.consumers.len(),
                max_record_kib: stream.max_record_kib,
            })
        })
    }

    /// All shards of a stream that are not trimmed.
    ///
    /// # Errors
    /// If there is no such stream.
    pub fn shards(&self, name: &str) -> Result<Vec<ShardInfo>> {
        self.look(|state, now_ms| Ok(state.stream(name, now_ms)?.shards.values().map(Shard::info).collect()))
    }

    /// Sets how long records are kept; `longer` says which of the two operations it is.
    ///
    /// # Errors
    /// If it is not an increase (or a decrease), or not between 24 and 8,760 hours.
    pub fn set_retention(&self, name: &str, hours: u32, longer: bool) -> Result<()> {
        self.change(|state, now_ms| {
            let stream = state.active(name, now_ms)?;
            let old = stream.retention_hours;
            if !(RETENTION_HOURS_MIN..=RETENTION_HOURS_MAX).contains(&hours) {
                return Err(Error::argument(format!(
                    "Retention period hours {hours} must be between {RETENTION_HOURS_MIN} and {RETENTION_HOURS_MAX}"
                )));
            }
            if (longer && hours < old) || (!longer && hours > old) {
                let (wrong, other) = if longer { ("shorter", "Decrease") } else { ("longer", "Increase") };
                return Err(Error::argument(format!(
                    "Requested retention period ({hours} hours) for stream {name} can not be {wrong} than existing retention \
                     period ({old} hours). Use {other}RetentionPeriod API."
                )));
            }
            stream.retention_hours = hours;
            stream.trim(now_ms);
            Ok(())
        })
    }

    /// Sets the largest record, in KiB.
    ///
    /// # Errors
    /// If it is not between 1,024 and 10,240.
    pub fn update_max_record_size(&self, name: &str, kib: usize) -> Result<()> {
        self.change(|state, now_ms| {
            if !(1024..=10_240).contains(&kib) {
                let constraint = "have value between 1024 and 10240";
                return Err(Error::constraint(kib, "maxRecordSizeInKiB", constraint));
            }
            state.active(name, now_ms)?.max_record_kib = kib;
            Ok(())
        })
    }
}

impl Error {
    /// The error of a reached quota.
    pub(super) fn limit(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::LimitExceeded, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_aws_and_cover_everything() {
        assert_eq!(uniform(1), [(0, u128::MAX)]);
        assert_eq!(uniform(2)[0], (0, 170_141_183_460_469_231_731_687_303_715_884_105_727));
        assert_eq!(uniform(3)[1].0, 113_427_455_640_312_821_154_458_202_477_256_070_485);
        for count in 1..40 {
            let ranges = uniform(count);
            assert_eq!(ranges.len(), count as usize);
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, u128::MAX));
            assert!(ranges.windows(2).all(|two| two[0].1 + 1 == two[1].0));
        }
    }

    #[test]
    fn a_hash_key_is_the_md5() {
        assert_eq!(hash_key(""), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
    }
}
