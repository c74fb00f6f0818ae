//! The consumer of enhanced fan-out that a stream's workers share.
//!
//! Owns: finding it or having it made, and waiting until it may be used. Does not own: subscriptions (`fanout`). It is never
//! taken away: other workers may use it, and the next start will.

use std::time::Duration;

use aws_sdk_kinesis::types::ConsumerStatus;

use crate::source::kinesis::service::Failure;

/// How long a consumer may take to become usable.
const LOOKS: usize = 60;
/// The time between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The ARN of the stream's consumer of this name, which is registered if it is not there.
pub(super) async fn consumer(
    client: &aws_sdk_kinesis::Client,
    stream_arn: &str,
    name: &str,
) -> Result<String, Failure> {
    let mut status = None;
    for _ in 0..LOOKS {
        match look(client, stream_arn, name).await {
            Ok((arn, ConsumerStatus::Active)) => return Ok(arn),
            Ok((_, other)) => status = Some(other),
            // Not there yet, or, where it was being deleted, no more.
            Err(Failure::NotFound(_)) => match register(client, stream_arn, name).await {
                // Made, or another worker was faster: it may be some time until it is seen.
                Ok(()) | Err(Failure::InUse(_)) => {}
                Err(failure) => return Err(failure),
            },
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    let status = status.map_or("not there".to_owned(), |status| status.as_str().to_owned());
    Err(Failure::Unavailable(format!("the consumer {name} is {status} after {LOOKS} looks at it")))
}

async fn look(
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
