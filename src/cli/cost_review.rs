//! `cost --monthly-review`: what a lake's storage costs, what the lifecycle saved, and which requests its epochs took.
//!
//! Owns: where the objects come from (a listing or an inventory), and printing. Does not own: the arithmetic (`cost::Review`).

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::cost_args::CostArgs;
use crate::cli::output::{Table, counted, show_bytes, show_count, show_usd};
use crate::cli::{Usage, load};
use crate::clock::{Clock, SystemClock};
use crate::commit::log::records_written_since;
use crate::config::{Config, Overrides};
use crate::cost::{InventoryError, Prices, Review, ReviewRow, Sent, StoredObject, Version, read_inventory};
use crate::lake::{ObjectStore, Retrying, StorageClass, UploadInfo};
use crate::retry::RetryPolicy;
use crate::setup::{load_aws, open_existing_lake};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// What cannot be known from the bucket, and where it is shown instead.
const NOT_KNOWN: [(&str, &str); 5] = [
    (
        "requests of readers, of other programs, and those that were sent again",
        "S3 request metrics, or CloudTrail's data events",
    ),
    ("data transfer", "Cost Explorer, usage types that end in DataTransfer-Out-Bytes"),
    ("executions of Lambdas", "Cost Explorer, service AWS Lambda"),
    ("bytes of incomplete uploads", "S3 Storage Lens; shardlake sweep aborts those that nobody needs"),
    (
        "what a lifecycle rule moved, and when",
        "the bill's usage types that end in Requests-Tier4, or a second inventory",
    ),
];

/// A command that shows what the bucket cannot.
const COST_EXPLORER: &str = "aws ce get-cost-and-usage --granularity MONTHLY --metrics UnblendedCost \\
      --group-by Type=DIMENSION,Key=USAGE_TYPE --time-period Start=2026-11-01,End=2026-12-01";

/// What the lake was asked for.
#[derive(Default)]
struct Lake {
    uploads: Vec<UploadInfo>,
    sent: Sent,
    unreadable: usize,
}

pub(crate) async fn monthly_review(args: &CostArgs, prices: &Prices, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&Overrides { without_leases: true, ..args.lake.overrides() })?;
    let mut review = Review::default();
    // With an inventory alone, nothing is asked of AWS.
    let asks_lake = args.inventory.is_empty() || args.lake.lake.is_some() || args.lake.config.is_some();
    let mut lake = None;
    if asks_lake {
        let aws = load_aws(&config).await?;
        let store = Retrying::new(open_existing_lake(&config, aws.as_ref()).await?, RetryPolicy::CALL);
        if args.inventory.is_empty() {
            for object in store.list("").await? {
                let class = object.storage_class.unwrap_or(StorageClass::Standard);
                let (key, bytes) = (object.key.as_str().to_owned(), object.bytes);
                review.add(&StoredObject { key, bytes, class, tier: None, version: Version::Current }, prices);
            }
        }
        lake = Some(ask(&store, args.days).await?);
    }
    let prefix = prefix_of_lake(&config);
    for path in &args.inventory {
        let read = read_inventory(path, args.inventory_schema.as_deref(), &mut |object| {
            // Objects beside the lake count as others.
            let key = object.key.strip_prefix(&prefix).map_or_else(|| format!("/{}", object.key), str::to_owned);
            review.add(&StoredObject { key, ..object }, prices);
        });
        match read {
            Ok(()) => {}
            Err(error @ InventoryError::Malformed { .. }) => return Err(Usage(error.to_string()).into()),
            Err(error) => return Err(error.into()),
        }
    }
    if json {
        println!("{}", as_json(&review, lake.as_ref(), args.days, prices));
    } else {
        print_text(&review, lake.as_ref(), args, &config, prices);
    }
    Ok(ExitCode::SUCCESS)
}

/// The prefix of the lake's keys in its bucket; empty for a lake in a folder.
fn prefix_of_lake(config: &Config) -> String {
    let url = config.lake.backend().catalog_url();
    let path =
        url.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map(|(_, path)| path.trim_end_matches('/'));
    path.filter(|path| !path.is_empty()).map(|path| format!("{path}/")).unwrap_or_default()
}

async fn ask(store: &dyn ObjectStore, days: u32) -> anyhow::Result<Lake> {
    let uploads = store.list_uploads().await?;
    let since = SystemClock.now_ms().saturating_sub(i64::from(days) * DAY_MS);
    let (records, unreadable) = records_written_since(store, since).await?;
    let mut sent = Sent::default();
    records.iter().for_each(|record| sent.add(record));
    Ok(Lake { uploads, sent, unreadable: unreadable.len() })
}

fn print_text(review: &Review, lake: Option<&Lake>, args: &CostArgs, config: &Config, prices: &Prices) {
    let source =
        if args.inventory.is_empty() { format!("the listing of {}", config.lake) } else { "the inventory".to_owned() };
    println!("Storage, by {source}; $ a month\n");
    let mut table = Table::new(&["area", "class", ">objects", ">size", ">mean", ">cost", ">in STANDARD", ">saved"]);
    for ((area, class, tier), found) in &review.rows {
        let class = tier.map_or_else(|| class.name().to_owned(), |tier| format!("{}: {}", class.name(), tier.name()));
        table.row(cells(area.name(), class, found));
    }
    let total = review.total();
    table.row(cells("total", String::new(), &total));
    println!("{}", table.render(""));
    if review.noncurrent.objects > 0 || review.delete_markers > 0 {
        let ReviewRow { objects, bytes, usd, .. } = review.noncurrent;
        println!(
            "noncurrent versions: {}, {}, {} a month; {}",
            show_count(objects),
            show_bytes(bytes),
            dollars(usd),
            counted(review.delete_markers, "delete marker"),
        );
    } else if args.inventory.is_empty() {
        println!("noncurrent versions: a listing does not have them; an inventory of all versions does");
    }
    if review.has_unknown_tiers() {
        println!("INTELLIGENT_TIERING: the tier is not known, so the dearest counts; an inventory has it");
    }
    if review.has_unknown_classes() {
        println!("class 'other': no price is known, so it counts nothing");
    }
    if total.rounded_up > 0 {
        println!("{} charged as if they were larger than they are", counted(total.rounded_up, "object"));
    }
    if total.moving_usd > 0.0 {
        println!("moving the objects into their classes cost {} at least, once", dollars(total.moving_usd));
    }
    if args.inventory.is_empty() && !config.lake.backend().needs_aws() {
        println!("the lake is a folder: the sums are what S3 would charge for the same objects and requests");
    }
    if let Some(lake) = lake {
        print_requests(lake, args.days, prices);
    } else {
        println!("\nrequests: not asked; name the lake with --lake to count those of its epochs");
    }
    println!("\nNot known from here:");
    for (what, place) in NOT_KNOWN {
        println!("  {what}\n      {place}");
    }
    println!("  {COST_EXPLORER}");
}

fn dollars(usd: f64) -> String {
    let shown = show_usd(usd);
    if shown.contains('<') { "less than $0.01".to_owned() } else { format!("${shown}") }
}

fn cells(area: &str, class: String, found: &ReviewRow) -> [String; 8] {
    [
        area.to_owned(),
        class,
        show_count(found.objects),
        show_bytes(found.bytes),
        show_bytes(found.bytes / found.objects.max(1)),
        show_usd(found.usd),
        show_usd(found.usd_in_standard),
        show_usd(found.saved_usd()),
    ]
}

fn print_requests(lake: &Lake, days: u32, prices: &Prices) {
    let Lake { uploads, sent, unreadable } = lake;
    println!(
        "\nRequests of {} in {}, by their commit records\n",
        counted(sent.epochs, "epoch"),
        counted(days.into(), "day")
    );
    let mut table = Table::new(&["request", ">count"]);
    for (name, count) in [
        ("CreateMultipartUpload", sent.create_multipart_upload),
        ("UploadPart", sent.upload_part),
        ("CompleteMultipartUpload", sent.complete_multipart_upload),
        ("PutObject", sent.put_object),
        ("DeleteObject (free)", sent.delete_object),
    ] {
        table.row([name.to_owned(), show_count(count)]);
    }
    print!("{}", table.render(""));
    println!("{} at the price of a PUT: {}", counted(sent.puts(), "request"), dollars(sent.usd(prices)));
    if *unreadable > 0 {
        println!("{} cannot be read and is not counted", counted(*unreadable as u64, "commit record"));
    }
    println!("incomplete uploads: {}", show_count(uploads.len() as u64));
}

fn as_json(review: &Review, lake: Option<&Lake>, days: u32, prices: &Prices) -> Value {
    let of_row = |row: &ReviewRow| {
        json!({
            "objects": row.objects, "bytes": row.bytes, "objectsRoundedUp": row.rounded_up, "usd": row.usd,
            "usdInStandard": row.usd_in_standard, "savedUsd": row.saved_usd(), "movingUsd": row.moving_usd,
        })
    };
    let rows: Vec<Value> = review
        .rows
        .iter()
        .map(|((area, class, tier), row)| {
            let mut value = of_row(row);
            value["area"] = json!(area);
            value["class"] = json!(class.name());
            value["tier"] = json!(tier);
            value
        })
        .collect();
    let requests = lake.map(|lake| {
        json!({
            "days": days, "sent": lake.sent, "puts": lake.sent.puts(), "usd": lake.sent.usd(prices),
            "incompleteUploads": lake.uploads.len(), "unreadableRecords": lake.unreadable,
        })
    });
    let not_known: Vec<Value> = NOT_KNOWN.iter().map(|(what, place)| json!({ "what": what, "where": place })).collect();
    json!({
        "storage": rows, "total": of_row(&review.total()), "noncurrent": of_row(&review.noncurrent),
        "deleteMarkers": review.delete_markers, "tiersKnown": !review.has_unknown_tiers(), "requests": requests,
        "notKnown": not_known,
    })
}
