//! Sums that were computed by hand from the table that is built in.

use super::*;
use crate::cost::workload::PHASES;

/// A record of 1,000 bytes a second: 2,628,000 in a month.
fn workload() -> Workload {
    Workload { month: 1, ..Workload::new(86_400, 1000, Some(1), Capacity::Provisioned) }
}

fn bill(design: Design, workload: &Workload) -> Estimate {
    estimate(workload, &Prices::built_in()).into_iter().find(|bill| bill.design == design).unwrap()
}

/// Units and US dollars of a line.
fn line(bill: &Estimate, item: Item) -> (f64, f64) {
    let found: Vec<&Line> = bill.lines.iter().filter(|line| line.item == item).collect();
    assert_eq!(found.len(), 1, "{}: {found:?}", item.id());
    (found[0].units, found[0].usd.unwrap())
}

#[track_caller]
fn assert_line(bill: &Estimate, item: Item, units: f64, usd: f64) {
    let (found_units, found_usd) = line(bill, item);
    let close = |found: f64, expected: f64| (found - expected).abs() <= expected.abs() * 1e-4 + 1e-9;
    assert!(close(found_units, units), "{}: {found_units} units, not {units}", item.id());
    assert!(close(found_usd, usd), "{}: ${found_usd}, not ${usd}", item.id());
}

#[test]
fn a_small_stream_with_shardlake() {
    let bill = bill(Design::Shardlake, &workload());
    assert_line(&bill, Item::ShardHours, 730.0, 10.95);
    assert_line(&bill, Item::PutUnits, 2_628_000.0, 0.036_792);
    assert_line(&bill, Item::VcpuHours, 365.0, 14.7752);
    assert_line(&bill, Item::MemoryHours, 730.0, 3.244_85);
    assert_line(&bill, Item::Ipv4Hours, 730.0, 3.65);
    // 8,730.9 epochs of 301 records: 8 objects of rows, 3 of raw lines, 0.29 of dead letters, each with one part.
    let (puts, usd) = line(&bill, Item::S3Puts);
    let epochs = 2_628_000.0 / 301.0;
    let dead = 4.0 * (1.0 - (-0.301_f64 / 4.0).exp());
    let expected = epochs * (3.0 * (8.0 + 3.0 + dead) + 3.0 + 4.0 / 256.0);
    assert!((puts - expected).abs() < 1e-3 && (usd - expected * 5e-6).abs() < 1e-9, "{puts} is not {expected}");
    assert_line(&bill, Item::DynamoReads, 919_800.0, 0.114_975);
    assert_line(&bill, Item::DynamoWrites, 919_800.0 + 3.0 * epochs, (919_800.0 + 3.0 * epochs) * 0.625e-6);
    // 2.4475 GB of records: 9.9 % and 28.3 % of them, and the commit records and entries of the lake log.
    assert!((1.1..1.35).contains(&line(&bill, Item::S3Standard).0), "{:?}", line(&bill, Item::S3Standard));
    assert_line(&bill, Item::SecretMonths, 1.0, 0.4);
    assert_line(&bill, Item::Metrics, 5.0, 0.0);
    let sum: f64 = bill.lines.iter().map(|line| line.usd.unwrap()).sum();
    assert_eq!(bill.total(), sum);
    assert!((34.0..36.0).contains(&sum), "{sum}");
    let parts: f64 = Part::ALL.into_iter().filter_map(|part| bill.total_of(part)).sum();
    assert!((parts - sum).abs() < 1e-9);
}

#[test]
fn an_on_demand_stream_is_paid_by_the_gb_each_record_rounded_up() {
    let bill = bill(Design::Shardlake, &Workload { capacity: Capacity::OnDemand, ..workload() });
    assert_line(&bill, Item::StreamHours, 730.0, 29.2);
    assert_line(&bill, Item::StreamIn, 2.506_256, 0.200_500);
    assert_line(&bill, Item::StreamOut, 2.447_515, 0.097_901);
    assert!(bill.lines.iter().all(|line| line.item != Item::ShardHours));
}

#[test]
fn fan_out_and_a_nat_gateway_have_lines_of_their_own() {
    let bill = bill(Design::Shardlake, &Workload { fan_out: true, network: Network::Nat, ..workload() });
    assert_line(&bill, Item::FanOutHours, 730.0, 10.95);
    assert_line(&bill, Item::FanOutData, 2.447_515, 0.031_818);
    assert_line(&bill, Item::NatHours, 730.0, 32.85);
    assert_line(&bill, Item::NatData, 3.263_353, 0.146_851);
    assert!(bill.lines.iter().all(|line| line.item != Item::Ipv4Hours));
}

#[test]
fn tasks_may_run_on_instances_instead_of_fargate() {
    let bill = bill(Design::Shardlake, &Workload { on_ec2: true, workers: 2, shards: 2, ..workload() });
    assert_line(&bill, Item::InstanceHours, 1460.0, 24.528);
    assert_line(&bill, Item::Ipv4Hours, 1460.0, 7.3);
    assert!(bill.lines.iter().all(|line| line.item != Item::VcpuHours && line.item != Item::MemoryHours));
}

#[test]
fn firehose_counts_small_records_as_5_kb() {
    let bill = bill(Design::Firehose, &workload());
    assert_line(&bill, Item::FirehoseData, 12.531_281, 0.363_407);
    assert_line(&bill, Item::FirehoseConversion, 12.531_281, 0.225_563);
    // One flush every 61 s, 43,082 in all, which are free; one object of each kind every 301 s.
    assert_line(&bill, Item::LambdaRequests, 2_628_000.0 / 61.0, 0.0);
    assert_line(&bill, Item::S3Puts, 2.0 * 2_628_000.0 / 301.0, 2.0 * 2_628_000.0 / 301.0 * 5e-6);
    let large = Workload { record_bytes: 100_000, ..workload() };
    let large = estimate(&large, &Prices::built_in()).swap_remove(1);
    // 102,400 bytes are 20 steps: 2,628,000 × 102,400 ÷ 2^30.
    assert_line(&large, Item::FirehoseData, 250.625_610, 7.268_143);
}

#[test]
fn a_lambda_for_each_object_pays_for_each_record() {
    let bill = bill(Design::Lambdas, &workload());
    // 5,256,000 requests, a million of them free.
    assert_line(&bill, Item::LambdaRequests, 5_256_000.0, 0.8512);
    // 0.00625 and 0.15 GB-seconds for each record; 400,000 are free.
    assert_line(&bill, Item::LambdaTime, 410_625.0, 10_625.0 * 0.000_016_666_7);
    assert_line(&bill, Item::S3Puts, 5_256_000.0, 26.28);
    assert_line(&bill, Item::S3Gets, 2_628_000.0, 1.0512);
    assert_line(&bill, Item::DataEvents, 7_884_000.0, 7.884);
    assert!(bill.notes.iter().any(|note| note.contains("smaller than 128 KB")), "{:?}", bill.notes);
}

#[test]
fn a_channel_has_no_known_price_until_it_is_filled_in() {
    let of = |prices: &Prices| estimate(&workload(), prices).pop().unwrap();
    let bill = of(&Prices::built_in());
    assert_eq!((bill.design, bill.unknown()), (Design::Channel, vec![Item::ChannelHours, Item::ChannelData]));
    assert_eq!(bill.total_of(Part::Processing), None);
    let row = "[[price]]\nid = \"kinesis.channel-data\"\nusd = 0.1\nunit = \"GB\"\nregion = \"us-east-1\"\nday = \"2026-12-01\"\n\
               page = \"the bill\"\nchecked = \"page\"\n";
    let filled = of(&Prices::built_in().with_rows_of("own.toml", row).unwrap());
    assert_eq!(filled.unknown(), [Item::ChannelHours]);
    assert!((filled.total() - bill.total() - 0.244_751_5).abs() < 1e-6);
}

#[test]
fn without_free_units_everything_is_charged() {
    let prices = Prices::built_in().without_free_units();
    let bills = estimate(&workload(), &prices);
    assert_line(&bills[2], Item::LambdaRequests, 5_256_000.0, 1.0512);
    assert_line(&bills[0], Item::Metrics, 5.0, 1.5);
}

#[test]
fn the_lifecycle_saves_where_objects_are_large_enough() {
    let phase = PHASES[2].workload(Capacity::Provisioned);
    let bill = bill(Design::Shardlake, &phase);
    let saves = bill.notes.iter().find(|note| note.starts_with("The lifecycle rules save $")).unwrap();
    assert!(saves.contains("this month"), "{saves}");
    assert!(bill.lines.iter().any(|line| line.item == Item::S3Archive));
}

#[test]
fn analytics_cost_the_same_whichever_way_the_data_came() {
    let phase = PHASES[3].workload(Capacity::Provisioned);
    let analytics = estimate_analytics(&phase, &Prices::built_in());
    // 50 + 30.4 runs × 1/3 DPU-hour × 0.44 + 240.
    assert!((analytics.total() - (50.0 + 730.0 / 24.0 / 3.0 * 0.44 + 240.0)).abs() < 1e-6, "{}", analytics.total());
    assert_eq!(estimate_analytics(&workload(), &Prices::built_in()).total(), 0.0);
}

#[test]
fn every_line_says_why() {
    for phase in &PHASES {
        for capacity in [Capacity::Provisioned, Capacity::OnDemand] {
            for bill in estimate(&phase.workload(capacity), &Prices::built_in()) {
                assert!(
                    bill.lines.iter().all(|line| line.why.len() > 3 && line.units >= 0.0 && line.units.is_finite())
                );
                let mut items: Vec<Item> = bill.lines.iter().map(|line| line.item).collect();
                items.sort();
                items.dedup();
                assert_eq!(items.len(), bill.lines.len(), "two lines of one item would both have its free units");
            }
        }
    }
}
