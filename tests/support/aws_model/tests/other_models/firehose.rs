//! Firehose, and DynamoDB's errors as the official SDK parses them.

use aws_model::firehose::Firehose;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use aws_sdk_firehose::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record;

use crate::dynamodb::{TABLE, with_table};
use crate::memory;

fn client(model: &Firehose) -> aws_sdk_firehose::Client {
    let config = aws_sdk_firehose::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url("http://127.0.0.1:1")
        .retry_config(RetryConfig::disabled())
        .http_client(memory::client(model.clone()));
    aws_sdk_firehose::Client::from_conf(config.build())
}

fn records(bodies: &[Vec<u8>]) -> Vec<Record> {
    bodies.iter().map(|body| Record::builder().data(Blob::new(body.clone())).build().unwrap()).collect()
}

#[tokio::test]
async fn failed_records_are_reported_by_their_index_and_not_stored() {
    let model = Firehose::new();
    let client = client(&model);
    let put = |bodies: Vec<Vec<u8>>| {
        client.put_record_batch().delivery_stream_name("raw").set_records(Some(records(&bodies))).send()
    };
    let bodies: Vec<Vec<u8>> = (0..4).map(|n| vec![n]).collect();
    assert!(put(bodies.clone()).await.unwrap_err().into_service_error().is_resource_not_found_exception());
    model.create("raw");
    let message = client.describe_delivery_stream().delivery_stream_name("raw").send().await.unwrap();
    assert_eq!(message.delivery_stream_description().unwrap().delivery_stream_status().as_str(), "ACTIVE");
    model.fail_records(1, [1, 3]);
    let answer = put(bodies.clone()).await.unwrap();
    assert_eq!(answer.failed_put_count(), 2);
    let codes: Vec<_> = answer.request_responses().iter().map(|response| response.error_code()).collect();
    assert_eq!(codes, [None, Some("ServiceUnavailableException"), None, Some("ServiceUnavailableException")]);
    assert_eq!(model.delivered("raw"), [vec![0], vec![2]]);
    model.refuse_batch(1);
    let refused = put(bodies.clone()).await.unwrap_err().into_service_error();
    assert!(refused.is_service_unavailable_exception());
    // Repeated, all of them are stored again: at least once.
    assert_eq!(put(bodies).await.unwrap().failed_put_count(), 0);
    assert_eq!(model.delivered("raw").len(), 6);
}

#[tokio::test]
async fn batches_and_records_have_limits() {
    let model = Firehose::new();
    model.create("raw");
    let client = client(&model);
    for (bodies, code) in [
        (vec![vec![0]; 500], None),
        (vec![vec![0]; 501], Some("ValidationException")),
        (vec![], Some("ValidationException")),
        (vec![vec![0; 1_024_000]; 4], None),
        (vec![vec![0; 1_024_001]], Some("ValidationException")),
        (vec![vec![0; 1_000_000]; 5], Some("InvalidArgumentException")),
    ] {
        let request = client.put_record_batch().delivery_stream_name("raw").set_records(Some(records(&bodies)));
        let answer = request.send().await;
        let refused = answer.err().map(aws_sdk_firehose::error::SdkError::into_service_error);
        assert_eq!(refused.as_ref().and_then(|error| error.meta().code()), code);
    }
    assert_eq!(model.delivered("raw").len(), 504);
}

#[tokio::test]
async fn the_sdk_parses_why_a_transaction_was_cancelled() {
    let (model, _) = with_table();
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url("http://127.0.0.1:1")
        .retry_config(RetryConfig::disabled())
        .http_client(memory::client(model.clone()));
    let client = aws_sdk_dynamodb::Client::from_conf(config.build());
    let put = |key: &str| {
        let put = Put::builder().table_name(TABLE).item("leaseKey", AttributeValue::S(key.to_owned()));
        let put = put.condition_expression("attribute_not_exists(leaseKey)");
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        TransactWriteItem::builder().put(put.build().unwrap()).build()
    };
    client.transact_write_items().transact_items(put("a")).send().await.unwrap();
    let both = client.transact_write_items().transact_items(put("b")).transact_items(put("a"));
    let refused = both.send().await.unwrap_err().into_service_error();
    assert_eq!(refused.code(), Some("TransactionCanceledException"));
    assert!(refused.message().unwrap().ends_with("[None, ConditionalCheckFailed]"));
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(why) =
        refused
    else {
        panic!("another error")
    };
    let reasons = why.cancellation_reasons();
    assert_eq!(
        reasons.iter().map(|reason| reason.code().unwrap()).collect::<Vec<_>>(),
        ["None", "ConditionalCheckFailed"]
    );
    assert_eq!(reasons[1].item().unwrap()["leaseKey"], AttributeValue::S("a".to_owned()));
    let missing = client.describe_table().table_name("absent").send().await.unwrap_err().into_service_error();
    assert!(missing.is_resource_not_found_exception());
}
