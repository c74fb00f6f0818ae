//! What `doctor` can find, in one table.
//!
//! Owns: the kinds of findings with their severity, why each hurts and what to do, and collecting findings. Does not own: looking
//! (`doctor`, and the backends of lakes and lease stores for what only they know), printing.

use serde::{Serialize, Serializer};

/// How much a finding hurts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Records are lost, will be lost, or nothing moves.
    Critical,
    /// It will hurt.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The severity as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct FindingKind {
    /// Its name, which never changes.
    pub id: &'static str,
    /// How much it hurts.
    pub severity: Severity,
    /// Why it hurts.
    pub why: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// Something that `doctor` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: &'static FindingKind,
    /// What it is, in one sentence.
    pub what: String,
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("Finding", 5)?;
        fields.serialize_field("id", self.kind.id)?;
        fields.serialize_field("severity", &self.kind.severity)?;
        fields.serialize_field("what", &self.what)?;
        fields.serialize_field("why", self.kind.why)?;
        fields.serialize_field("advice", self.kind.advice)?;
        fields.end()
    }
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// What was to be looked at.
    pub what: String,
    /// Why it was not.
    pub problem: String,
}

/// What was found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What was found, in the order in which it was.
    pub found: Vec<Finding>,
    /// What could not be looked at.
    pub unknown: Vec<Unknown>,
}

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, kind: &'static FindingKind, what: impl Into<String>) {
        self.found.push(Finding { kind, what: what.into() });
    }

    /// Adds that something could not be looked at.
    pub fn unknown(&mut self, what: &str, problem: &dyn std::fmt::Display) {
        self.unknown.push(Unknown { what: what.to_owned(), problem: problem.to_string() });
    }

    /// Adds what another part has found.
    pub fn extend(&mut self, other: Findings) {
        self.found.extend(other.found);
        self.unknown.extend(other.unknown);
    }
}

macro_rules! kinds {
    ($($name:ident = $id:literal, $severity:ident, $why:literal, $advice:literal;)*) => {
        $(
            #[doc = $why]
            pub static $name: FindingKind =
                FindingKind { id: $id, severity: Severity::$severity, why: $why, advice: $advice };
        )*
        /// Every kind, the worst first.
        pub static ALL: &[&FindingKind] = &[$(&$name),*];
    };
}

kinds! {
    CREDENTIALS = "credentials", Critical,
        "Without credentials no service answers.",
        "Set a role, a profile or the variables of the AWS SDK, and AWS_REGION.";
    PERMISSION = "permission-missing", Critical,
        "A worker ends when a service refuses what it needs.",
        "Allow the action: docs/aws.md has all of them, and deploy/worker.yaml is a role that has them.";
    NO_LAKE = "lake-missing", Critical,
        "There is nothing to write to, or the lake has another name.",
        "Name the lake with [lake] url, or create the bucket: shardlake init in a development account.";
    LAKE_UNREADABLE = "lake-refused", Critical,
        "A worker refuses to start on this lake.",
        "Do what the message says.";
    LOST_ROWS = "lease-rows-lost", Critical,
        "A worker would read these shards again from their start, so it refuses to start.",
        "Name the table that has the rows; or stop all workers and run shardlake leases rebuild.";
    OTHER_LAKE = "lease-table-of-another-lake", Critical,
        "What was read by these checkpoints is in another lake.",
        "Name that lake, or a lease table of its own for this one.";
    OTHER_STREAM = "stream-replaced", Critical,
        "A stream of the same name has other records, so nothing of it is read.",
        "Give the source another name in its [[source]].";
    DEFINITION = "definition-refused", Critical,
        "Files with this definition and those in the lake could not be read together, so a worker refuses to start.",
        "Change the definition, or give the dataset a new name: docs/datasets.md.";
    KEY = "pseudonym-key", Critical,
        "Without its key a worker does not start; with another key the same person would have two pseudonyms.",
        "Restore the key with which the lake was begun.";
    STREAM_MISSING = "stream-missing", Critical,
        "There is nothing to read.",
        "Create the stream, or correct [[source]] url.";
    DATA_LOST = "data-lost", Critical,
        "Records were gone before they were read.",
        "See shardlake losses list; bring the records in from elsewhere, then accept the loss.";
    LAG_CRITICAL = "retention-half-used", Critical,
        "What is not read within the retention is lost.",
        "Lengthen the retention of the stream now; then add workers. docs/runbooks.md#shardlakeretentionhalfused";
    NO_WORKER = "no-worker", Critical,
        "Nobody reads, and the retention runs.",
        "Start workers; the log of the last one says why it ended.";
    LOG_DAMAGED = "log-damaged", Critical,
        "The log and the positions of the lake do not agree: records may be missing or doubled.",
        "Run shardlake verify, which names each object, and restore what is gone.";
    LIFECYCLE_INTERNAL = "lifecycle-removes-the-log", Critical,
        "A rule of the bucket expires or archives what makes the lake exactly once.",
        "Limit the rule to processed/, raw/ or error/. Names that begin with _ must stay.";
    LIFECYCLE_ABORTS_EARLY = "lifecycle-aborts-early", Critical,
        "An epoch that is decided needs its uploads; if they are aborted, it is rolled back and read again.",
        "Let the rule wait seven days or more.";
    TABLE_TTL = "lease-table-expires", Critical,
        "DynamoDB removes rows, and with them positions.",
        "Turn off the time to live of the lease table.";
    DISK_FULL = "disk-full", Critical,
        "An epoch needs room for all its files before it is committed.",
        "Free disk space.";
    SHARD_FREE = "shard-without-owner", Warning,
        "Nobody reads the shard.",
        "The logs of the workers say why they released it. docs/runbooks.md#shardlakeshardwithoutowner";
    SILENT = "silent-worker", Warning,
        "It holds shards and does not renew its leases; others take them after the failover time.",
        "If it stays: the worker hangs, or nobody else runs. See shardlake leases list.";
    EPOCH_PENDING = "epoch-pending", Warning,
        "An epoch is decided and not finished, so its shards do not continue.",
        "The log of their holder says what it waits for. docs/runbooks.md#shardlakeepochstalled";
    OPERATION_PENDING = "operation-pending", Warning,
        "An operation on the lake is decided and not finished; others on the same part wait.",
        "Run the command again, or start a worker: either finishes it.";
    HASH_RANGE = "hash-range", Warning,
        "Some hash keys have no shard that is read, or two.",
        "See shardlake leases list.";
    RESTLESS = "shard-restless", Warning,
        "Workers take the shard one after the other, and none commits it.",
        "The logs of the workers have the error.";
    LAG = "lag", Warning,
        "Readers of the lake see old data.",
        "Add workers, at most one for each shard. docs/runbooks.md#shardlakeshardbehind";
    RETENTION_SHORT = "retention-short", Warning,
        "It is the time that is left to repair anything: a weekend is longer.",
        "Lengthen the retention of the stream to 72 hours or more.";
    CHECKPOINT_ENDING = "checkpoint-ending", Warning,
        "A saved checkpoint can soon not be used any more.",
        "Lengthen the retention, keep raw/, or delete the checkpoint.";
    ORPHANS = "leftovers", Warning,
        "Uploads and intents of ended workers are left; uploads cost as stored objects do.",
        "Run shardlake sweep.";
    FOREIGN = "foreign-objects", Warning,
        "Something else writes into the lake, or an object was copied there.",
        "Find out what wrote them, and remove them.";
    REPLAY_STOPPED = "replay-stopped", Warning,
        "A replay was begun, and nobody runs it.",
        "shardlake replay start continues it; shardlake replay cancel ends it.";
    NO_ABORT_RULE = "lifecycle-missing", Warning,
        "Uploads that nobody completes cost storage for as long as nobody sweeps.",
        "Add a rule that aborts incomplete uploads after seven days.";
    LIFECYCLE_DATA = "lifecycle-expires-data", Warning,
        "A rule of the bucket removes rows, and verify will report them as missing.",
        "If it is not meant, remove the rule. deploy/README.md has the rules for raw/ and error/.";
    PUBLIC = "bucket-public", Warning,
        "A policy or an access list could open raw/, which has personal data as received.",
        "Block public access on the bucket.";
    NO_BACKUPS = "lease-table-unprotected", Note,
        "If the table is lost, its rows are made again from the lake, while all workers stand still.",
        "[checkpoints] point_in_time_recovery = true, and deletion protection.";
    NO_VERSIONING = "bucket-without-versions", Note,
        "An object that is deleted by mistake is gone.",
        "Turn on versioning, with a rule that expires old versions.";
    NETWORK_DISK = "lake-on-a-network-disk", Warning,
        "SQLite needs locks that network file systems do not keep, so two workers could hold one shard.",
        "Keep the lease table on a local disk, or in DynamoDB.";
    CLOCK = "clock-wrong", Warning,
        "Services refuse requests whose time is wrong by minutes, and names of objects have the wrong day.",
        "Synchronize the clock of this machine.";
    FAILOVER_SHORT = "failover-short", Warning,
        "A short pause of a worker costs it its leases, and its work is done again.",
        "[leases] failover of five seconds or more.";
    STOP_LONG = "stop-too-long", Warning,
        "Fargate kills a task at the latest after 120 s, and Kubernetes after 30 s unless it is configured otherwise.",
        "[stop] within five seconds below the time that the supervisor gives.";
    MEMORY_SMALL = "memory-small", Warning,
        "Files become small, since each partition's rows must leave the memory early.",
        "64 MiB or more for each thread: [limits] memory, or fewer threads.";
    PAGE_EXPOSED = "page-exposed", Note,
        "The status page has no login: who reaches the address sees shards, positions and counts.",
        "Listen on loopback, or put an authenticating proxy before it.";
    NO_RAW = "raw-off", Note,
        "A replay can only read what the stream still has.",
        "[raw] enabled = true, if the past should be repairable.";
    OLD_TRASH = "undo-kept", Note,
        "What operations replaced is kept longer than [history] undo_within, and costs storage.",
        "Run shardlake replay purge, or shardlake sweep.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_a_name_of_its_own_and_a_row_in_the_documentation() {
        let ids: BTreeSet<&str> = ALL.iter().map(|kind| kind.id).collect();
        assert_eq!(ids.len(), ALL.len());
        let page = include_str!("../docs/doctor.md");
        for kind in ALL {
            let row = format!("| `{}` | {} |", kind.id, kind.severity.as_str());
            assert!(page.contains(&row), "docs/doctor.md lacks {row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, ALL.len(), "docs/doctor.md has rows of its own");
    }
}
