//! Calls of the model in-process and their answers: plain types, no JSON.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};

use bytes::Bytes;

use super::sequence::SequenceNumber;

/// Limits, and behavior that AWS leaves open. [`Settings::default`] is a stream without limits or surprises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Refuse more than 5 reads a second or 2 MiB a second of a shard; after an answer of 10 MiB, for 5 seconds.
    pub read_limits: bool,
    /// Refuse more than 1,000 records a second or 1 MiB a second into a shard.
    pub write_limits: bool,
    /// For how long a new record cannot be read.
    pub visible_after_ms: u32,
    /// Every n-th GetRecords of a shard returns no record although there are some; its MillisBehindLatest shows it.
    pub empty_answer_every: Option<NonZeroU64>,
    /// Every n-th record of PutRecords fails.
    pub failed_record_every: Option<NonZeroU64>,
    /// How long a stream stays CREATING or UPDATING. A reshard is visible immediately; no other is allowed until then.
    pub status_ms: u32,
    /// How long a consumer stays CREATING.
    pub consumer_status_ms: u32,
    /// A closed shard's last records and its end come in one answer instead of two.
    pub end_with_last_records: bool,
    /// The most shards in a page of ListShards, whatever the request says.
    pub shards_page_max: Option<NonZeroUsize>,
}

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Its type.
    pub kind: ErrorKind,
    /// Its message, in AWS's words where they are known.
    pub message: String,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into() }
    }

    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceNotFound, message)
    }

    pub(super) fn in_use(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceInUse, message)
    }

    /// AWS's validation of parameters, which comes before the stream is read.
    pub(super) fn constraint(value: impl fmt::Display, member: &str, constraint: &str) -> Self {
        Self::new(
            ErrorKind::Validation,
            format!(
                "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: Member must {constraint}"
            ),
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind.name(), self.message)
    }
}

impl std::error::Error for Error {}

/// The types of refused calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are AWS's own names")]
pub enum ErrorKind {
    ExpiredIterator,
    ExpiredNextToken,
    InternalFailure,
    InvalidArgument,
    LimitExceeded,
    ProvisionedThroughputExceeded,
    ResourceInUse,
    ResourceNotFound,
    Serialization,
    UnknownOperation,
    Validation,
}

impl ErrorKind {
    /// As AWS writes it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::ExpiredIterator => "ExpiredIteratorException",
            ErrorKind::ExpiredNextToken => "ExpiredNextTokenException",
            ErrorKind::InternalFailure => "InternalFailure",
            ErrorKind::InvalidArgument => "InvalidArgumentException",
            ErrorKind::LimitExceeded => "LimitExceededException",
            ErrorKind::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            ErrorKind::ResourceInUse => "ResourceInUseException",
            ErrorKind::ResourceNotFound => "ResourceNotFoundException",
            ErrorKind::Serialization => "SerializationException",
            ErrorKind::UnknownOperation => "UnknownOperationException",
            ErrorKind::Validation => "ValidationException",
        }
    }
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A record to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Its MD5 chooses the shard.
    pub partition_key: String,
    /// Chooses the shard instead.
    pub explicit_hash_key: Option<u128>,
    /// The content.
    pub data: Bytes,
}

impl Put {
    /// A record whose partition key chooses the shard.
    pub fn new(partition_key: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Put { partition_key: partition_key.into(), explicit_hash_key: None, data: data.into() }
    }
}

/// Where a record was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The shard.
    pub shard: String,
    /// Its sequence number.
    pub sequence: SequenceNumber,
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// When it arrived, ms since 1970.
    pub arrived_ms: i64,
    /// Its partition key.
    pub partition_key: String,
    /// Its content.
    pub data: Bytes,
}

/// Where reading of a shard begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record.
    TrimHorizon,
    /// With the records from now on.
    Latest,
    /// With this sequence number.
    At(String),
    /// After this sequence number.
    After(String),
    /// With the records that arrived at this time or later, ms since 1970.
    Timestamp(i64),
}

/// The answer of GetRecords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The records.
    pub records: Vec<Record>,
    /// Where to continue; `None` at the shard's end.
    pub next_iterator: Option<String>,
    /// How far the answer is behind the newest readable record.
    pub millis_behind_latest: i64,
    /// At the shard's end, its children.
    pub children: Vec<Child>,
}

/// A child of a shard that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub shard: String,
    /// Its one or two parents.
    pub parents: Vec<String>,
    /// Its first and last hash key.
    pub hash_keys: (u128, u128),
}

/// A shard as ListShards returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its name.
    pub shard: String,
    /// The parent, listed or not.
    pub parent: Option<String>,
    /// The other parent, after a merge.
    pub adjacent_parent: Option<String>,
    /// Its first and last hash key.
    pub hash_keys: (u128, u128),
    /// All its records have greater sequence numbers.
    pub starting: SequenceNumber,
    /// Once it is closed: all its records have smaller sequence numbers.
    pub ending: Option<SequenceNumber>,
}

/// Which shards are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ShardFilter {
    /// All that are not trimmed.
    #[default]
    FromTrimHorizon,
    /// Those that were open at the trim horizon.
    AtTrimHorizon,
    /// Those that are open.
    AtLatest,
    /// Those that were open at this time, ms since 1970.
    AtTimestamp(i64),
    /// Those that were open at this time or later.
    FromTimestamp(i64),
    /// Those that come after this one.
    AfterShardId(String),
}

/// A page of shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPage {
    /// The shards, by name.
    pub shards: Vec<ShardInfo>,
    /// Asks for the next page; lives for 300 s.
    pub next_token: Option<String>,
}

/// A stream's summary.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are AWS's own names")]
pub struct StreamSummary {
    pub name: String,
    pub arn: String,
    pub status: &'static str,
    pub on_demand: bool,
    pub retention_hours: u32,
    pub created_ms: i64,
    pub open_shards: usize,
    pub consumers: usize,
    pub max_record_kib: usize,
}

/// A registered consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are AWS's own names")]
pub struct ConsumerInfo {
    pub name: String,
    pub arn: String,
    pub status: &'static str,
    pub created_ms: i64,
    pub stream_arn: String,
}

/// An event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionEvent {
    /// The records.
    pub records: Vec<Record>,
    /// Where to subscribe again; `None` at the shard's end.
    pub continuation: Option<SequenceNumber>,
    /// As in [`Chunk`].
    pub millis_behind_latest: i64,
    /// As in [`Chunk`].
    pub children: Vec<Child>,
}
