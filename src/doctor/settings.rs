//! What the configuration alone shows: values that do not fit together.

use std::time::Duration;

use crate::config::Config;
use crate::findings::{self, Findings};
use crate::settings::units::{write_bytes, write_duration};

/// The shortest failover time that a normal pause of a process does not exceed.
const FAILOVER_MIN: Duration = Duration::from_secs(5);
/// The longest time to stop that any supervisor in common use gives, less five seconds.
const STOP_MAX: Duration = Duration::from_secs(115);
/// The least memory for a thread.
const MEMORY_PER_THREAD_MIN: u64 = 64 << 20;

pub(super) fn examine(config: &Config, all: &mut Findings) {
    let worker = &config.worker;
    if worker.leases.failover < FAILOVER_MIN {
        all.add(&findings::FAILOVER_SHORT, format!("[leases] failover is {}", write_duration(worker.leases.failover)));
    }
    if worker.stop.within > STOP_MAX {
        all.add(&findings::STOP_LONG, format!("[stop] within is {}", write_duration(worker.stop.within)));
    }
    let threads = u64::try_from(worker.limits.threads.max(1)).unwrap_or(1);
    if worker.limits.memory / threads < MEMORY_PER_THREAD_MIN {
        all.add(
            &findings::MEMORY_SMALL,
            format!("[limits] memory is {} for {threads} threads", write_bytes(worker.limits.memory)),
        );
    }
    if let Some(address) = config.listen.exposed() {
        all.add(&findings::PAGE_EXPOSED, format!("[server] listen is {address}"));
    }
    if worker.output.raw.is_none() {
        all.add(&findings::NO_RAW, "records are not kept as they were received");
    }
}
