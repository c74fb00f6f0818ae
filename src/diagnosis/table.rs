//! THE table of findings: id, severity, what is wrong, why it hurts, what fixes it. In the order of harm.
//!
//! `doctor` prints from it, and the table in `docs/doctor.md` is generated from it.

use serde::{Serialize, Serializer};

use crate::diagnosis::Severity;

/// One row of the table for each kind.
macro_rules! table {
    ($($kind:ident $id:literal $severity:ident $meaning:literal $harm:literal $fix:literal;)*) => {
        /// What may be wrong. The order is that of harm, within a severity.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingKind {
            $(#[doc = $meaning] $kind,)*
        }

        impl FindingKind {
            /// All kinds.
            pub const ALL: &[FindingKind] = &[$(FindingKind::$kind,)*];

            /// Its name, which does not change between versions.
            pub fn id(self) -> &'static str {
                match self { $(FindingKind::$kind => $id,)* }
            }

            /// How much harm it does.
            pub fn severity(self) -> Severity {
                match self { $(FindingKind::$kind => Severity::$severity,)* }
            }

            /// What is wrong, whatever the resource.
            pub fn meaning(self) -> &'static str {
                match self { $(FindingKind::$kind => $meaning,)* }
            }

            /// Why it hurts.
            pub fn harm(self) -> &'static str {
                match self { $(FindingKind::$kind => $harm,)* }
            }

            /// The command or setting that fixes it.
            pub fn fix(self) -> &'static str {
                match self { $(FindingKind::$kind => $fix,)* }
            }
        }
    };
}

table! {
    DataLost "data-lost" Critical
        "Records were gone from a source before they were read."
        "They are in no lake, and nobody has looked at it yet."
        "`shardlake losses list` says which; get them from their producer, then `shardlake losses accept SHARD`";
    HistoryBroken "history-broken" Critical
        "The commit records, the lake log and the checkpoints contradict each other."
        "Records may be missing from the lake or be in it twice."
        "`shardlake verify` says what is wrong where; restore the objects that it names from the bucket's versions or a backup";
    LakeAndLeasesDiffer "lake-and-leases-differ" Critical
        "The lease table and the lake do not belong together, or the table has lost rows."
        "No worker starts, so that nothing is lost or read twice."
        "Correct `[lake] url` or `[checkpoints] url`; if the rows are lost, `shardlake leases rebuild`";
    LeaseRowsExpire "lease-rows-expire" Critical
        "Time to live is on for the lease table."
        "DynamoDB may delete checkpoints, and then workers stop or read records again."
        "`aws dynamodb update-time-to-live --table-name TABLE --time-to-live-specification Enabled=false,AttributeName=ATTRIBUTE`";
    LakeStateExpires "lake-state-expires" Critical
        "A lifecycle rule deletes what the lake knows about itself: commit records, its log, checkpoints, schemas."
        "Without them a worker cannot tell what was committed: it stops, or records are lost or doubled."
        "Limit the rule to `raw/` or `error/` by its prefix: `aws s3api put-bucket-lifecycle-configuration`";
    LakeStateArchived "lake-state-archived" Critical
        "A lifecycle rule moves what the lake knows about itself to a class that must be restored before it is read."
        "Workers and commands fail to read it."
        "Limit the rule to `processed/`, `raw/` or `error/` by its prefix: `aws s3api put-bucket-lifecycle-configuration`";
    RetentionRunningOut "retention-running-out" Critical
        "A shard is behind by more than half of the time that its stream keeps records."
        "What is older than the retention is lost unread."
        "`aws kinesis increase-stream-retention-period --stream-name STREAM --retention-period-hours 168` now, then add workers";
    NoCredentials "no-credentials" Critical
        "There are no AWS credentials, or they are not valid any more."
        "No worker with these settings can start."
        "Give credentials by the environment, a profile or a role: `aws sts get-caller-identity` must succeed";
    PermissionMissing "permission-missing" Critical
        "These credentials may not do what a worker must do."
        "A worker with them fails once it needs it."
        "Allow the actions in the role; `deploy/worker.yaml` has them all, and `shardlake config check` lists each trial";
    KeyUnusable "encryption-key-unusable" Critical
        "A key of KMS cannot be used."
        "Nothing that is encrypted with it can be read or written."
        "Enable the key, and allow `kms:Decrypt` and `kms:GenerateDataKey` with it";
    StreamMissing "stream-missing" Critical
        "A configured stream does not exist, or is being deleted."
        "There is nothing to read, and what was not read is gone."
        "Correct `url` in `[[source]]`, or create it: `shardlake init`";
    StreamReplaced "stream-replaced" Critical
        "A source is another stream than the one that the lake has under its name."
        "Sequence numbers of the old one mean nothing in it, so workers refuse it."
        "Give it another `name` in `[[source]]` (docs/aws.md)";
    BucketMissing "bucket-missing" Critical
        "The bucket of the lake does not exist."
        "No worker can start."
        "Correct `[lake] url`, or create it: `shardlake init`";
    LakeUnusable "lake-unusable" Critical
        "The lake cannot be opened, or this version cannot use it."
        "No worker can start."
        "Do what the message says";
    LeaseTableUnusable "lease-table-unusable" Critical
        "The lease table is not active, is not a lease table, or cannot be opened."
        "No worker can renew its leases or commit."
        "Do what the message says; `shardlake leases rebuild` makes lost rows again in a new table";
    DefinitionsRefused "definitions-refused" Critical
        "The definitions do not fit the files of the lake."
        "No worker with this configuration starts."
        "`shardlake schema DATASET --diff` says what has changed (docs/datasets.md)";
    HashKeysUnread "hash-keys-unread" Critical
        "No shard of the lease table covers some hash keys of a stream."
        "Their records are not read, and expire."
        "`shardlake leases list`; start a worker, which creates the rows that are missing";
    HashKeysDoubled "hash-keys-doubled" Critical
        "Two shards that can be read cover the same hash keys."
        "A row was made by hand, or is another stream's: records may be read twice."
        "`shardlake leases list` names them; remove the row that is not of this stream";
    LeasesOnNetworkDisk "leases-on-network-disk" Critical
        "The lease database is on a network file system."
        "SQLite's locks do not hold there: two workers may hold one lease."
        "Put it on a local disk (`[checkpoints] url = \"sqlite://PATH\"`), or use DynamoDB";
    DiskNearlyFull "disk-nearly-full" Warning
        "The disk of the lake is nearly full."
        "Workers stop once they cannot write."
        "Free space, or move the lake to a larger disk; `shardlake sweep` removes what uncommitted epochs left";
    NoWorker "no-worker" Warning
        "No worker runs, and there is something to read."
        "Data is late, and expires at the end of the retention."
        "`shardlake run`, or the desired count of the service: `aws ecs update-service --desired-count N`";
    ShardWithoutOwner "shard-without-owner" Warning
        "Workers run, and nobody reads some shards."
        "Their data is late."
        "See the logs of the workers; `shardlake leases evict SHARD` takes a lease from a worker that hangs";
    HandOffStuck "hand-off-stuck" Warning
        "A worker was asked for a lease, and has not released it in time."
        "The shard is not balanced, and its worker may hang."
        "See the log of the worker; `shardlake leases evict SHARD` takes the lease from it";
    ChildrenNotBegun "children-not-begun" Warning
        "A shard was read to its end, and its children have no leases."
        "Nobody reads the children."
        "Start or restart a worker: it lists the shards of the stream and creates the leases";
    ShardRestless "shard-restless" Warning
        "A shard changes its holder again and again, and nobody commits it."
        "Its data is late, and each worker reads it again."
        "See the logs of its workers; more `[limits] memory`, or a shorter `[commit] interval`";
    EpochStalled "epoch-stalled" Warning
        "An epoch was decided minutes ago and is not finished."
        "Its rows may be invisible, and its shards wait."
        "Start a worker, which finishes it; if one runs, its log says why it cannot";
    OperationStuck "operation-stuck" Warning
        "An operation on the lake was decided minutes ago and is not finished."
        "Readers may see old and new rows, and no other operation can begin."
        "Repeat the command (`shardlake replay promote ID`, `shardlake deadletters redrive`): it finishes what was begun";
    ReplayStopped "replay-stopped" Warning
        "A replay was begun, and nobody continues it."
        "What it was to replace is as it was."
        "`shardlake replay start ID`, or `shardlake replay cancel ID`";
    ClockWrong "clock-wrong" Warning
        "The clock of this machine differs from the clock of AWS."
        "Requests are refused from 5 minutes on, and times in the lake are wrong."
        "Synchronize the clock: `timedatectl set-ntp true`";
    RetentionShort "retention-short" Warning
        "A stream keeps records for less than two days."
        "An outage over a weekend loses records."
        "`aws kinesis increase-stream-retention-period --stream-name STREAM --retention-period-hours 168`";
    IntervalNearRetention "interval-near-retention" Warning
        "The commit interval is more than a quarter of the time that a stream keeps records."
        "A worker that fails once or twice before a commit loses records."
        "Lower `[commit] interval`";
    RowsExpire "rows-expire" Warning
        "A lifecycle rule deletes rows of the lake."
        "The lake log still has them: `verify` reports them missing, and snapshots name files that are gone."
        "Remove `Expiration` from the rule for `processed/`";
    UploadsAbortedEarly "uploads-aborted-early" Warning
        "A lifecycle rule aborts uploads after less than three days."
        "An epoch that was decided before a long outage could not be finished, and is rolled back."
        "Set `DaysAfterInitiation` of `AbortIncompleteMultipartUpload` to 7";
    UploadsNotAborted "uploads-not-aborted" Warning
        "No lifecycle rule aborts uploads that nobody completes."
        "Uploads that no intent names cost storage until somebody sweeps."
        "Add `AbortIncompleteMultipartUpload` with `DaysAfterInitiation` 7 to the bucket's lifecycle";
    OldVersionsKept "old-versions-kept" Warning
        "The bucket keeps versions, and no lifecycle rule removes old ones."
        "Everything that was ever deleted costs storage, and erased personal data stays."
        "Add `NoncurrentVersionExpiration` to the bucket's lifecycle";
    BucketMayBePublic "bucket-may-be-public" Warning
        "The bucket does not block public access."
        "One wrong policy makes personal data public."
        "`aws s3api put-public-access-block` with all four settings true";
    KeyReadable "key-readable" Warning
        "Others than its owner may read the file of the pseudonym key."
        "Whoever has the key can find persons behind pseudonyms."
        "`chmod 600 FILE`";
    CheckpointEnding "checkpoint-ending" Warning
        "Records after a saved checkpoint leave their stream soon, or have left it."
        "A replay from it lacks them, unless `raw/` has them."
        "`shardlake checkpoints list`; replay before then, or raise the retention of the stream";
    Leftovers "leftovers" Warning
        "Uploads or intents of epochs that were never committed are older than a day."
        "They cost storage."
        "`shardlake sweep`";
    ForeignFiles "foreign-files" Warning
        "There are files among the lake's data that no worker writes."
        "Queries read them as rows, or fail."
        "Move them out of the lake; `shardlake verify` lists all that is in no commit record";
    FreshnessUnreachable "freshness-unreachable" Warning
        "The commit interval is longer than the age that the lake's data should not exceed."
        "The alert ShardlakeDataNotFresh fires although nothing is wrong."
        "Lower `[commit] interval`, or raise `[telemetry] freshness`";
    MemoryPerThreadLow "memory-per-thread-low" Note
        "There is little memory for each thread."
        "Row groups get small, and files many."
        "Raise `[limits] memory`, or lower `[limits] threads`";
    NotBegun "not-begun" Note
        "No worker has run with this lake and lease table yet."
        "Most of what is examined does not exist yet."
        "Check that `[lake] url` and `[checkpoints] url` are right, then `shardlake run`";
    DataArchived "data-archived" Note
        "A lifecycle rule moves data to a class that must be restored before it is read."
        "Athena skips such objects without an error, and a replay from `raw/` cannot read them."
        "Choose GLACIER_IR if queries shall see them (docs/cost.md)";
    BucketNotVersioned "bucket-not-versioned" Note
        "The bucket keeps no versions."
        "What is deleted or overwritten by mistake cannot be restored."
        "`aws s3api put-bucket-versioning --bucket BUCKET --versioning-configuration Status=Enabled`";
    LeaseTableNotBackedUp "lease-table-not-backed-up" Note
        "Point-in-time recovery of the lease table is off."
        "Lost rows have to be made again from the commit records, with all workers stopped."
        "`point_in_time_recovery = true` in `[checkpoints]`";
    LeaseTableUnprotected "lease-table-unprotected" Note
        "The lease table is not protected against deletion."
        "One wrong command stops all workers."
        "`aws dynamodb update-table --table-name TABLE --deletion-protection-enabled`";
}

impl std::fmt::Display for FindingKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id())
    }
}

impl Serialize for FindingKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- findings: generated from src/diagnosis/table.rs -->\n";
    const END: &str = "<!-- end of findings -->\n";

    #[test]
    fn ids_are_unique_and_the_table_is_in_the_order_of_severity() {
        let ids: BTreeSet<&str> = FindingKind::ALL.iter().map(|kind| kind.id()).collect();
        assert_eq!(ids.len(), FindingKind::ALL.len());
        assert!(FindingKind::ALL.is_sorted_by_key(|kind| kind.severity()));
        assert!(ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    }

    #[test]
    fn the_documentation_has_the_table_of_findings() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("docs/doctor.md has the mark where the table begins");
        let (found, after) = rest.split_once(END).expect("docs/doctor.md has the mark where the table ends");
        let mut expected = "\n| id | severity | what is wrong | why it hurts | what fixes it |\n".to_owned();
        expected.push_str("| --- | --- | --- | --- | --- |\n");
        for kind in FindingKind::ALL {
            let (id, severity) = (kind.id(), kind.severity().as_str());
            let _ =
                writeln!(expected, "| `{id}` | {severity} | {} | {} | {} |", kind.meaning(), kind.harm(), kind.fix());
        }
        expected.push('\n');
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, [before, BEGIN, &expected, END, after].concat()).unwrap();
            return;
        }
        assert!(
            found == expected,
            "the table in docs/doctor.md is stale; regenerate it with\n    \
             UPDATE_DOCS=1 cargo test -p shardlake --lib the_documentation_has_the_table_of_findings"
        );
    }
}
