//! The allocator's settings.
//!
//! Owns: the one place with `unsafe` code. glibc keeps freed memory of up to 32 MiB a piece for itself once such pieces were
//! freed, thread by thread; a worker that reads hundreds of shards holds a third more for it than it uses. With fixed
//! thresholds, buffers from a megabyte on go back to the system when they are free, for some per cent of CPU time
//! (docs/benchmarks.md). Smaller ones stay where they are, scattered; every half a minute the pages between them that hold
//! nothing go back as well, so that a worker that runs for months is as large as it was in its first hour. Does not own: how
//! much is held (`[limits] memory`).

use std::time::Duration;

/// How often pages that hold nothing go back.
const GO_BACK_EVERY: Duration = Duration::from_secs(30);

/// Bytes from which on a freed buffer goes back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GO_BACK_FROM: i32 = 1 << 20;

/// Has large buffers go back to the system when they are free. The environment's `MALLOC_MMAP_THRESHOLD_` stands above it.
/// Called once, before there are threads.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
        // SAFETY: mallopt takes two plain numbers and may be called at any time; it answers 0 where it refuses, and the
        // default stays.
        #[expect(unsafe_code, reason = "mallopt has no safe interface")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, GO_BACK_FROM);
            libc::mallopt(libc::M_TRIM_THRESHOLD, GO_BACK_FROM);
        }
    }
}

/// Gives pages that hold nothing back to the system, again and again, until it is dropped.
pub async fn trim_periodically() {
    loop {
        tokio::time::sleep(GO_BACK_EVERY).await;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: malloc_trim takes the allocator's own locks, and touches no memory that is in use.
        #[expect(unsafe_code, reason = "malloc_trim has no safe interface")]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
