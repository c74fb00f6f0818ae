//! Values of the configuration that do not fit together, and the file of the pseudonym key.
//!
//! Owns: what reading the configuration accepts and an operator should know all the same. Does not own: rules whose breach is refused
//! (`config`).

use std::path::Path;

use crate::config::{Config, KeySource};
use crate::diagnosis::{Diagnosis, FindingKind};

/// Bytes of memory for each thread from which row groups have a useful size.
const MEMORY_PER_THREAD_MIN: u64 = 16 << 20;

/// Examines the configuration alone.
pub(super) fn examine(config: &Config) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let worker = &config.worker;
    let (interval, freshness) = (worker.commit.interval, worker.telemetry.freshness);
    if interval > freshness {
        let what = format!("[commit] interval is {interval:?}, and [telemetry] freshness is {freshness:?}");
        diagnosis.find(FindingKind::FreshnessUnreachable, what);
    }
    let (memory, threads) = (worker.limits.memory, worker.limits.threads);
    if memory / u64::try_from(threads.max(1)).unwrap_or(u64::MAX) < MEMORY_PER_THREAD_MIN {
        let what = format!("[limits] memory is {} MiB for {threads} threads", memory >> 20);
        diagnosis.find(FindingKind::MemoryPerThreadLow, what);
    }
    if let KeySource::File(path) | KeySource::MadeFile(path) = &config.key
        && is_readable_by_others(path)
    {
        let what = format!("others than its owner may read {}", path.display());
        diagnosis.find(FindingKind::KeyReadable, what);
    }
    diagnosis
}

/// Whether the mode of a file lets its group or everybody read it. A file that is not there is nobody's.
fn is_readable_by_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o044 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}
