//! The requests that an epoch costs do not grow with the number of workers.

use std::time::Duration;

use simulation::fleet::calm::{Measured, measure};

/// How often a worker commits. With a hundred workers, ten epochs enter the lake log each second.
const INTERVAL: Duration = Duration::from_secs(10);
/// What a worker that is alone needs for the log: it writes the entry, and confirms the one before.
const ALONE: f64 = 2.0;
/// What it needs among others: it also lists the end of the log and reads the newest entry, and may be refused.
const AMONG_OTHERS: f64 = 6.0;

#[test]
fn requests_to_the_lake_log_do_not_grow_with_the_number_of_workers() {
    let measured: Vec<Measured> = [1, 4, 16].into_iter().map(|workers| measure(workers, INTERVAL)).collect();
    for of in &measured {
        eprintln!("{of:?}: {:.2} for each epoch", of.log_requests_per_epoch());
        assert!(of.epochs >= u64::from(of.workers) * 8, "{of:?}");
        let bound = if of.workers == 1 { ALONE } else { AMONG_OTHERS };
        assert!(of.log_requests_per_epoch() <= bound, "{of:?}");
    }
}
