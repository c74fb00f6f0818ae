//! The consumer of enhanced fan-out that a stream's workers share.
//!
//! Owns: finding or registering it, and waiting until it is active. Does not own: subscriptions (`fanout`). It is never
//! deregistered: other workers may use it, and the next start will.

use std::time::Duration;

use aws_sdk_kinesis::types::ConsumerStatus;

use crate::source::kinesis::service::Failure;

/// How often the status of a consumer is checked before the wait ends.
const CHECKS_MAX: usize = 60;
/// The time between two checks.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The ARN of the stream's consumer of this name, which is registered if it does not exist.
pub(super) async fn consumer(
    client: &aws_sdk_kinesis::Client,
    stream_arn: &str,
    name: &str,
) -> Result<String, Failure> {
    let mut status = None;
    for _ in 0..CHECKS_MAX {
        match describe(client, stream_arn, name).await {
            Ok((arn, ConsumerStatus::Active)) => return Ok(arn),
            Ok((_, other)) => status = Some(other),
            // It does not exist yet, or has just been deleted.
            Err(Failure::NotFound(_)) => match register(client, stream_arn, name).await {
                // It was registered here or by another worker. It may take a while to appear.
                Ok(()) | Err(Failure::InUse(_)) => {}
                Err(failure) => return Err(failure),
            },
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
    let status = status.map_or("missing".to_owned(), |status| status.as_str().to_owned());
    Err(Failure::Unavailable(format!("the consumer {name} is still {status} after {CHECKS_MAX} checks")))
}

async fn describe(
    client: &aws_sdk_kinesis::Client,
    stream_arn: &str,
    name: &str,
) -> Result<(String, ConsumerStatus), Failure> {
    let call = client.describe_stream_consumer().stream_arn(stream_arn).consumer_name(name);
    let described = call.send().await.map_err(|error| Failure::of("DescribeStreamConsumer", &error))?;
    let Some(consumer) = described.consumer_description else {
        return Err(Failure::Unavailable("DescribeStreamConsumer: no description".to_owned()));
    };
    Ok((consumer.consumer_arn, consumer.consumer_status))
}

async fn register(client: &aws_sdk_kinesis::Client, stream_arn: &str, name: &str) -> Result<(), Failure> {
    let call = client.register_stream_consumer().stream_arn(stream_arn).consumer_name(name);
    call.send().await.map_err(|error| Failure::of("RegisterStreamConsumer", &error))?;
    Ok(())
}
