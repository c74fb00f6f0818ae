//! Which service and operation a request is for.
//!
//! JSON services name themselves in `X-Amz-Target`, and STS has forms. Everything else is S3, whose operations follow from method,
//! path and query, as its reference lists them. Does not own: whether the operation exists; a model refuses what it does not know.

use crate::http::Request;

/// The services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceName {
    /// Kinesis Data Streams.
    Kinesis,
    /// DynamoDB.
    DynamoDb,
    /// Data Firehose.
    Firehose,
    /// S3.
    S3,
    /// The Security Token Service.
    Sts,
    /// Secrets Manager.
    SecretsManager,
}

/// The service and the operation's name, as the service's reference writes it.
pub fn route(request: &Request) -> (ServiceName, String) {
    let Some(target) = request.headers.get("x-amz-target") else {
        // A query in a form, as STS has it.
        if request.method == "POST" && request.body.starts_with(b"Action=") {
            let operation = String::from_utf8_lossy(&request.body["Action=".len()..]).into_owned();
            return (ServiceName::Sts, operation.split('&').next().unwrap_or_default().to_owned());
        }
        return (ServiceName::S3, s3_operation(request).to_owned());
    };
    let (prefix, operation) = target.split_once('.').unwrap_or((target, ""));
    let service = if prefix.starts_with("Kinesis") {
        ServiceName::Kinesis
    } else if prefix.starts_with("DynamoDB") {
        ServiceName::DynamoDb
    } else if prefix.starts_with("Firehose") {
        ServiceName::Firehose
    } else if prefix.starts_with("secretsmanager") {
        ServiceName::SecretsManager
    } else {
        ServiceName::S3
    };
    (service, operation.to_owned())
}

fn s3_operation(request: &Request) -> &'static str {
    let path = request.path.trim_start_matches('/');
    let has = |key: &str| request.query.contains_key(key);
    let copies = request.headers.contains_key("x-amz-copy-source");
    let method = request.method.as_str();
    match path.split_once('/') {
        _ if path.is_empty() => "ListBuckets",
        Some((_, key)) if !key.is_empty() => match method {
            "PUT" if has("uploadId") && copies => "UploadPartCopy",
            "PUT" if has("uploadId") => "UploadPart",
            "PUT" if has("tagging") => "PutObjectTagging",
            "PUT" if copies => "CopyObject",
            "PUT" => "PutObject",
            "GET" if has("uploadId") => "ListParts",
            "GET" if has("tagging") => "GetObjectTagging",
            "GET" if has("attributes") => "GetObjectAttributes",
            "GET" => "GetObject",
            "HEAD" => "HeadObject",
            "DELETE" if has("uploadId") => "AbortMultipartUpload",
            "DELETE" if has("tagging") => "DeleteObjectTagging",
            "DELETE" => "DeleteObject",
            "POST" if has("uploads") => "CreateMultipartUpload",
            "POST" if has("uploadId") => "CompleteMultipartUpload",
            "POST" if has("restore") => "RestoreObject",
            _ => "Unknown",
        },
        _ => match method {
            "PUT" if has("lifecycle") => "PutBucketLifecycleConfiguration",
            "PUT" if has("versioning") => "PutBucketVersioning",
            "PUT" if has("publicAccessBlock") => "PutPublicAccessBlock",
            "PUT" if request.query.keys().all(|key| key == "x-id") => "CreateBucket",
            "GET" if has("list-type") => "ListObjectsV2",
            "GET" if has("uploads") => "ListMultipartUploads",
            "GET" if has("versions") => "ListObjectVersions",
            "GET" if has("location") => "GetBucketLocation",
            "GET" if has("lifecycle") => "GetBucketLifecycleConfiguration",
            "GET" if has("versioning") => "GetBucketVersioning",
            "GET" if has("publicAccessBlock") => "GetPublicAccessBlock",
            "GET" => "ListObjects",
            "HEAD" => "HeadBucket",
            "DELETE" if has("lifecycle") => "DeleteBucketLifecycle",
            "DELETE" => "DeleteBucket",
            "POST" if has("delete") => "DeleteObjects",
            _ => "Unknown",
        },
    }
}
