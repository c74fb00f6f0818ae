//! The allocator's settings.
//!
//! Owns: the one place with `unsafe` code. Once a thread has freed pieces of up to 32 MiB, glibc keeps them for that thread. A worker
//! that reads hundreds of shards then holds a third more memory than it uses. With fixed thresholds, buffers of a megabyte or more return
//! to the system when they are freed, which costs a few per cent of CPU time (docs/benchmarks.md).
//!
//! Smaller buffers stay where they are, scattered. Twice a minute the empty pages between them are returned as well. So a worker that runs
//! for months is as large as in its first hour. Does not own: how much memory is used (`[limits] memory`).

use std::time::Duration;

/// How often empty pages are returned.
const TRIM_EVERY: Duration = Duration::from_secs(30);

/// Freed buffers of at least this many bytes are returned.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETURN_FROM: i32 = 1 << 20;

/// Makes large buffers return to the system when they are freed, unless the environment sets `MALLOC_MMAP_THRESHOLD_`. Called once,
/// before there are threads.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
        // SAFETY: mallopt takes two plain numbers and may be called at any time. It returns 0 if it refuses, and the default
        // stays.
        #[expect(unsafe_code, reason = "mallopt has no safe interface")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, RETURN_FROM);
            libc::mallopt(libc::M_TRIM_THRESHOLD, RETURN_FROM);
        }
    }
}

/// Returns empty pages to the system at intervals, until it is dropped.
pub async fn trim_periodically() {
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: malloc_trim takes the allocator's own locks and touches no memory that is in use.
        #[expect(unsafe_code, reason = "malloc_trim has no safe interface")]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
