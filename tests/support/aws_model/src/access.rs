//! Who may do what: each request as IAM sees it, the decision about it, and a record of both.
//!
//! Owns: the actions, the resource and the keys of conditions that follow from a request, as the Service Authorization Reference lists
//! them; the answer to a denied request; and every decision so far. Does not own: the decision itself (a test passes it in), or
//! whose credentials belong to which policy.
//!
//! The principal is the access key of the request's signature. A denial says nothing but that it is one, so that whatever names the
//! missing action is the product's own. Only S3 names an action of KMS, as AWS does.
//!
//! Two rules of AWS are easily missed:
//!
//! - A transaction of DynamoDB needs the actions of the writes in it.
//! - Whoever may not list a bucket is not informed that an object is absent: reading it is denied (403) and not answered with 404.
//!   The list has no prefix then, so a condition on `s3:prefix` denies it, unless it has `IfExists`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::faults::Refusal;
use crate::http::{Request, Response};
use crate::route::{ServiceName, route};
use crate::server::refused;

/// The region and the account of every model.
const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";

/// One thing that a request does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The access key of the signature.
    pub principal: String,
    /// The action, such as `s3:GetObject`.
    pub action: String,
    /// The ARN that it is about.
    pub resource: String,
    /// The keys of conditions, in lower case.
    pub context: BTreeMap<String, String>,
}

/// The keys of KMS that services encrypt with; `None` for keys of their own, which nobody needs a permission for.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Every bucket's.
    pub buckets: Option<String>,
    /// Every stream's.
    pub streams: Option<String>,
    /// Every secret's.
    pub secrets: Option<String>,
}

type Decide = dyn Fn(&Asked) -> bool + Send + Sync;

/// Decides about all requests of a server.
pub struct Access {
    decide: Box<Decide>,
    keys: Keys,
    decisions: Mutex<BTreeMap<Asked, bool>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Access").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Access {
    /// Requests for which `decide` returns false are denied.
    pub fn new(keys: Keys, decide: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Self {
        Access { decide: Box::new(decide), keys, decisions: Mutex::default() }
    }

    /// What was asked so far, each with whether it was allowed.
    pub fn decisions(&self) -> BTreeMap<Asked, bool> {
        self.lock().clone()
    }

    /// What was denied so far.
    pub fn denied(&self) -> Vec<Asked> {
        self.lock().iter().filter(|(_, allowed)| !**allowed).map(|(asked, _)| asked.clone()).collect()
    }

    /// The answer to a request that is denied; `None` if it is allowed.
    pub(crate) fn refusal(&self, request: &Request) -> Option<Response> {
        let (service, operation) = route(request);
        let denied = self.asked(service, &operation, request).into_iter().find(|asked| !self.allows(asked))?;
        Some(refused(service, &denial(service, &denied)))
    }

    /// The answer in place of a 404 to somebody who may not list the bucket.
    pub(crate) fn hidden_absence(&self, request: &Request, response: &Response) -> Option<Response> {
        let (service, operation) = route(request);
        if service != ServiceName::S3 || response.status != 404 || !matches!(&*operation, "GetObject" | "HeadObject") {
            return None;
        }
        let (bucket, _) = bucket_and_key(request);
        let listed = asked(request, "s3:ListBucket", format!("arn:aws:s3:::{bucket}"));
        (!self.allows(&listed)).then(|| refused(service, &denial(service, &listed)))
    }

    fn allows(&self, asked: &Asked) -> bool {
        let allowed = (self.decide)(asked);
        self.lock().insert(asked.clone(), allowed);
        allowed
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Asked, bool>> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that a request does.
    fn asked(&self, service: ServiceName, operation: &str, request: &Request) -> Vec<Asked> {
        if service == ServiceName::S3 {
            return self.asked_of_s3(operation, request);
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let one = |action: String, resource: String| asked(request, &action, resource);
        match service {
            ServiceName::Kinesis => {
                let mut all = vec![one(format!("kinesis:{operation}"), kinesis_resource(operation, &body))];
                if matches!(operation, "GetRecords" | "SubscribeToShard") {
                    all.extend(self.keys.streams.as_ref().map(|key| with_key(request, "kms:Decrypt", key, "kinesis")));
                }
                all
            }
            ServiceName::DynamoDb => dynamodb_actions(operation, &body)
                .into_iter()
                .map(|(action, table)| {
                    one(format!("dynamodb:{action}"), format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}"))
                })
                .collect(),
            ServiceName::Firehose => {
                let name = body["DeliveryStreamName"].as_str().unwrap_or_default();
                let resource = format!("arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{name}");
                vec![one(format!("firehose:{operation}"), resource)]
            }
            ServiceName::SecretsManager => {
                let secret = body["SecretId"].as_str().unwrap_or_default().to_owned();
                let mut all = vec![one(format!("secretsmanager:{operation}"), secret)];
                let key = self.keys.secrets.as_ref();
                all.extend(key.map(|key| with_key(request, "kms:Decrypt", key, "secretsmanager")));
                all
            }
            ServiceName::Sts => vec![one(format!("sts:{operation}"), role_in_form(request))],
            ServiceName::S3 => Vec::new(),
        }
    }

    fn asked_of_s3(&self, operation: &str, request: &Request) -> Vec<Asked> {
        let (bucket, key) = bucket_and_key(request);
        let resource = format!("arn:aws:s3:::{bucket}{}{key}", if key.is_empty() { "" } else { "/" });
        let action = match operation {
            "ListObjectsV2" | "ListObjects" | "HeadBucket" => "ListBucket",
            "ListMultipartUploads" => "ListBucketMultipartUploads",
            "HeadObject" => "GetObject",
            "CreateMultipartUpload" | "UploadPart" | "UploadPartCopy" | "CompleteMultipartUpload" => "PutObject",
            "PutBucketLifecycleConfiguration" => "PutLifecycleConfiguration",
            "GetBucketLifecycleConfiguration" => "GetLifecycleConfiguration",
            "PutPublicAccessBlock" => "PutBucketPublicAccessBlock",
            "GetPublicAccessBlock" => "GetBucketPublicAccessBlock",
            other => other,
        };
        let mut first = asked(request, &format!("s3:{action}"), resource.clone());
        if let Some(prefix) = request.query.get("prefix") {
            first.context.insert("s3:prefix".to_owned(), prefix.clone());
        }
        let mut all = vec![first];
        if let Some(source) = request.headers.get("x-amz-copy-source") {
            all.push(asked(request, "s3:GetObject", format!("arn:aws:s3:::{}", source.trim_start_matches('/'))));
        }
        if request.headers.contains_key("x-amz-tagging") {
            all.push(asked(request, "s3:PutObjectTagging", resource));
        }
        if let Some(key) = &self.keys.buckets {
            // A part, and the end of an upload, are encrypted under the data key of its beginning.
            let actions: &[&str] = match operation {
                "PutObject" | "CreateMultipartUpload" => &["kms:GenerateDataKey"],
                "UploadPart" | "UploadPartCopy" | "CompleteMultipartUpload" => &["kms:GenerateDataKey", "kms:Decrypt"],
                "GetObject" => &["kms:Decrypt"],
                // A checksum is stored encrypted, too.
                "HeadObject" if request.headers.contains_key("x-amz-checksum-mode") => &["kms:Decrypt"],
                _ => &[],
            };
            all.extend(actions.iter().map(|action| with_key(request, action, key, "s3")));
        }
        all
    }
}

fn asked(request: &Request, action: &str, resource: String) -> Asked {
    let context = [("aws:principalaccount".to_owned(), ACCOUNT.to_owned())].into();
    Asked { principal: principal(request), action: action.to_owned(), resource, context }
}

/// A request that a service sends to KMS in the name of its caller.
fn with_key(request: &Request, action: &str, key: &str, service: &str) -> Asked {
    let mut asked = asked(request, action, key.to_owned());
    asked.context.insert("kms:viaservice".to_owned(), format!("{service}.{REGION}.amazonaws.com"));
    asked
}

/// The access key in a signature of version 4: `… Credential=KEY/DATE/REGION/SERVICE/aws4_request, …`.
fn principal(request: &Request) -> String {
    let signature = request.headers.get("authorization").map_or("", String::as_str);
    let credential = signature.split_once("Credential=").map_or("", |(_, rest)| rest);
    credential.split('/').next().unwrap_or_default().to_owned()
}

/// From a path with the bucket in it.
fn bucket_and_key(request: &Request) -> (&str, &str) {
    let path = request.path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

/// The role that a form of STS names.
pub(crate) fn role_in_form(request: &Request) -> String {
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let arn = form.split('&').find_map(|pair| pair.strip_prefix("RoleArn=")).unwrap_or_default();
    arn.replace("%3A", ":").replace("%2F", "/")
}

/// The stream, or the consumer for what is done with a consumer.
fn kinesis_resource(operation: &str, body: &Value) -> String {
    let text = |name: &str| body[name].as_str();
    let stream = || {
        let named = || {
            let name = text("StreamName").map(str::to_owned).or_else(|| stream_in_token(body));
            format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{}", name.unwrap_or_default())
        };
        text("StreamARN").map_or_else(named, str::to_owned)
    };
    match operation {
        "SubscribeToShard" | "DescribeStreamConsumer" | "DeregisterStreamConsumer" => {
            // Its creation time is a part of the ARN; one that is not known yet is any.
            let named = || format!("{}/consumer/{}:0", stream(), text("ConsumerName").unwrap_or_default());
            text("ConsumerARN").map_or_else(named, str::to_owned)
        }
        _ => stream(),
    }
}

/// The stream's name in an iterator, or in the token of a page, as the model of Kinesis makes them.
fn stream_in_token(body: &Value) -> Option<String> {
    let token = body["ShardIterator"].as_str().or_else(|| body["NextToken"].as_str())?;
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    text.split('/').nth(1).map(str::to_owned)
}

/// The actions of an operation, each with its table.
fn dynamodb_actions(operation: &str, body: &Value) -> Vec<(String, String)> {
    let table = |value: &Value| value["TableName"].as_str().unwrap_or_default().to_owned();
    match operation {
        "TransactWriteItems" => {
            let items = body["TransactItems"].as_array().into_iter().flatten();
            let writes = items.flat_map(|item| item.as_object().into_iter().flatten());
            let named = writes.map(|(write, content)| {
                let action =
                    if write == "ConditionCheck" { "ConditionCheckItem".to_owned() } else { format!("{write}Item") };
                (action, table(content))
            });
            named.collect()
        }
        "BatchGetItem" | "BatchWriteItem" => {
            let tables = body["RequestItems"].as_object().into_iter().flatten();
            tables.map(|(table, _)| (operation.to_owned(), table.clone())).collect()
        }
        _ => vec![(operation.to_owned(), table(body))],
    }
}

fn denial(service: ServiceName, denied: &Asked) -> Refusal {
    let of_kms = denied.action.starts_with("kms:");
    match service {
        ServiceName::S3 if of_kms => {
            let message = format!("User is not authorized to perform: {} on the key", denied.action);
            Refusal::new(403, "AccessDenied", &message)
        }
        ServiceName::S3 => Refusal::new(403, "AccessDenied", "Access Denied"),
        ServiceName::Kinesis if of_kms => {
            Refusal::new(400, "KMSAccessDeniedException", "The ciphertext refers to a key that you may not use.")
        }
        ServiceName::SecretsManager if of_kms => {
            Refusal::new(400, "AccessDeniedException", "Access to KMS is not allowed")
        }
        _ => Refusal::new(400, "AccessDeniedException", "You are not authorized to perform this operation."),
    }
}
