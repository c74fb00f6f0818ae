//! `init`: makes what a development stack needs and has not.
//!
//! Owns: streams, bucket and table with plain settings, for a laptop or a test account. What is there is left as it is. Does
//! not own: production (`deploy/`), where encryption, alarms and lifecycle rules belong to a template.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_kinesis::operation::create_stream::CreateStreamError;
use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails, StreamStatus};
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint, CreateBucketConfiguration,
    ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
};
use serde_json::json;

use crate::cli::args::InitArgs;
use crate::cli::load;
use crate::config::{BucketUrl, CheckpointsUrl, Config, LakeUrl, Overrides, SourceUrl};
use crate::setup::aws::Aws;
use crate::setup::{load_aws, make_lease_table};

/// How long a stream may take to become active.
const ACTIVE_WITHIN: Duration = Duration::from_secs(120);
/// Days after which uploads that nobody completed are aborted: far more than an epoch and its recovery may take.
const ABORT_UPLOADS_AFTER_DAYS: i32 = 7;

pub(crate) async fn init(args: &InitArgs, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&Overrides { sources: args.source.clone(), ..args.lake.overrides() })?;
    let mut done: Vec<(String, &'static str)> = Vec::new();
    match load_aws(&config).await {
        None => done.push((config.lake.to_string(), "nothing to make: a run makes its folder and its database")),
        Some(aws) => make(&config, &aws, args.shards, &mut done).await?,
    }
    if json {
        let done: Vec<_> = done.iter().map(|(what, how)| json!({ "what": what, "how": how })).collect();
        println!("{}", json!(done));
    } else {
        for (what, how) in done {
            println!("{what}: {how}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn make(config: &Config, aws: &Aws, shards: u32, done: &mut Vec<(String, &'static str)>) -> anyhow::Result<()> {
    for source in &config.sources {
        if let SourceUrl::Kinesis(stream) = &source.url {
            let how = make_stream(aws, stream, shards).await.with_context(|| format!("making {}", source.url))?;
            done.push((source.url.to_string(), how));
        }
    }
    if let LakeUrl::S3(place) = &config.lake {
        let how = make_bucket(aws, place).await.with_context(|| format!("making {}", config.lake))?;
        done.push((config.lake.to_string(), how));
    }
    if let CheckpointsUrl::DynamoDb(_) = &config.checkpoints {
        make_lease_table(config, aws).await?;
        done.push((config.checkpoints.to_string(), "is there"));
    }
    Ok(())
}

async fn make_stream(aws: &Aws, stream: &str, shards: u32) -> anyhow::Result<&'static str> {
    let client = aws.kinesis();
    let request = client.create_stream().stream_name(stream);
    let request = match shards {
        0 => request.stream_mode_details(StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build()?),
        shards => request.shard_count(i32::try_from(shards)?),
    };
    let how = match request.send().await {
        Ok(_) => "made",
        Err(error) if error.as_service_error().is_some_and(CreateStreamError::is_resource_in_use_exception) => {
            "is there already"
        }
        Err(error) => return Err(error.into()),
    };
    let deadline = tokio::time::Instant::now() + ACTIVE_WITHIN;
    loop {
        let answer = client.describe_stream_summary().stream_name(stream).send().await?;
        let status = answer.stream_description_summary().map(|summary| summary.stream_status().clone());
        if status == Some(StreamStatus::Active) {
            return Ok(how);
        }
        if tokio::time::Instant::now() > deadline {
            anyhow::bail!("the stream is not active after {} s", ACTIVE_WITHIN.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn make_bucket(aws: &Aws, place: &BucketUrl) -> anyhow::Result<&'static str> {
    let client = aws.s3();
    if client.head_bucket().bucket(&place.bucket).send().await.is_ok() {
        return Ok("is there already");
    }
    let region = aws.region().filter(|region| *region != "us-east-1");
    let location = region.map(|region| {
        CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build()
    });
    client.create_bucket().bucket(&place.bucket).set_create_bucket_configuration(location).send().await?;
    let rule = LifecycleRule::builder()
        .id("abort uploads that nobody completed")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(&place.prefix).build())
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(ABORT_UPLOADS_AFTER_DAYS).build(),
        )
        .build()?;
    let rules = BucketLifecycleConfiguration::builder().rules(rule).build()?;
    client.put_bucket_lifecycle_configuration().bucket(&place.bucket).lifecycle_configuration(rules).send().await?;
    Ok("made")
}
