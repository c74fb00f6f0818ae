//! Several workers on one stream: sharing, ending, dying, sleeping.

use crate::cloud::{BUCKET, Cloud, Options};

#[test]
fn two_workers_read_a_stream_exactly_once() {
    let cloud = Cloud::new(4, &Options::default());
    cloud.put(3_000);
    let workers = [0, 1].map(|_| cloud.start(&["--until-caught-up"]));
    let told = workers.map(|worker| worker.ends_well(&cloud, 60));
    let read = told.iter().map(|told| told["records"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(read, cloud.owed(), "{told:?}");
    assert_eq!(cloud.s3.uploads(BUCKET), [], "an upload was left");
    assert!(cloud.rows().iter().all(|row| row.owner.is_none()), "a lease is still held");
    cloud.audit();
    // Nothing is left to do.
    assert_eq!(cloud.catch_up()["records"], 0);
    cloud.audit();
}
