//! What a pipeline costs on AWS in a month, and what a lake's storage costs.
//!
//! - `prices`: the table of unit prices, which a user can replace.
//! - `workload`: how much data there is, and the four phases of growth.
//! - `requests`: which requests the worker sends, from how it works.
//! - `storage`: which storage classes the data is in, from the lifecycle rules.
//! - `estimate`: the lines of a month's bill, for four ways to land a stream.
//! - `inventory`: objects from a file of S3 Inventory.
//! - `review`: storage by area and class, requests of the commit records, and what the lifecycle saved.
//!
//! All of it is arithmetic on values that are handed in: no service is asked, and no clock is read. Only `inventory` reads files. A
//! month has 730 hours, and a GB has 2^30 bytes, as on AWS's bill.

mod estimate;
mod inventory;
mod prices;
mod requests;
mod review;
mod storage;
mod workload;

pub use estimate::{Analytics, Design, Estimate, Line, Part, estimate, estimate_analytics};
pub use inventory::{InventoryError, read_inventory};
pub use prices::{Checked, Item, Price, Prices, TABLE};
pub use requests::WorkerRequests;
pub use review::{AreaOfBucket, Review, ReviewRow, Sent, StoredObject, Tier, Version};
pub use storage::{Landed, StoredMonth, stored_in_month};
pub use workload::{Capacity, Network, PHASES, Phase, Workload};

/// Hours of a month, as AWS's own calculator counts them.
pub const HOURS: f64 = 730.0;
/// Bytes of a GB on AWS's bill.
pub const GB: f64 = 1_073_741_824.0;

/// How many of `kinds` are hit when `count` things fall on them evenly and at random: `kinds × (1 − e^(−count ÷ kinds))`.
fn spread(kinds: f64, count: f64) -> f64 {
    if kinds <= 0.0 { 0.0 } else { kinds * -(-count / kinds).exp_m1() }
}
