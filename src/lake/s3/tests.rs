//! S3 behind the SDK: requests, the meaning of responses, and what a real store keeps.
//!
//! The first half needs no S3: its responses are scripted. The second half, `stack`, is `#[ignore]`d because it needs a local
//! stack, as is S3's part of the conformance suite.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_s3::primitives::SdkBody;
use aws_sdk_s3::types::ServerSideEncryption;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::*;
use crate::aws::Access;

/// The response to a request.
#[derive(Debug, Clone)]
enum Answer {
    Lost,
    Is(u16, Vec<(&'static str, &'static str)>, String),
}

fn ok(headers: &[(&'static str, &'static str)], body: &str) -> Answer {
    Answer::Is(200, headers.to_vec(), body.to_owned())
}

fn error(status: u16, code: &str) -> Answer {
    let body = format!("<Error><Code>{code}</Code><Message>As S3 says it.</Message></Error>");
    Answer::Is(status, vec![("x-amz-request-id", "4442587FB7D0A2F9")], body)
}

/// A request as it was sent: its line, its headers, its body.
type Sent = (String, Vec<(String, String)>, String);

/// S3 as a script: each request takes the next response.
#[derive(Debug, Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl HttpConnector for Script {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let headers = request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        self.sent.lock().unwrap().push((format!("{} {}", request.method(), request.uri()), headers, body));
        let answer = self.answers.lock().unwrap().pop_front().expect("a response to every request");
        HttpConnectorFuture::ready(match answer {
            Answer::Lost => Err(ConnectorError::io("connection reset by peer".into())),
            Answer::Is(status, headers, body) => {
                let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
                for (name, value) in headers {
                    response.headers_mut().insert(name, value);
                }
                Ok(response)
            }
        })
    }
}

const SECRET: &str = "wJalrXUtnFEMI-not-a-real-secret";

fn config(script: &Script, retry: RetryConfig) -> aws_sdk_s3::config::Builder {
    let connector = SharedHttpConnector::new(script.clone());
    aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", SECRET, Some(SECRET.to_owned()), None, "test"))
        .retry_config(retry)
        .http_client(http_client_fn(move |_, _| connector.clone()))
}

fn location() -> S3Location {
    S3Location::new("lake", "p/").unwrap()
}

fn all_options() -> S3Options {
    S3Options {
        encryption: Encryption::Kms { key: Some("alias/lake".to_owned()), bucket_key: true },
        storage_class: Some("STANDARD_IA".to_owned()),
        tags: [("team".to_owned(), "data".to_owned())].into(),
        expected_bucket_owner: Some("111122223333".to_owned()),
        access: Access::default(),
    }
}

fn scripted_with(answers: Vec<Answer>, retry: RetryConfig, options: &S3Options) -> (S3Store, Script) {
    let script = Script { answers: Arc::new(Mutex::new(answers.into())), sent: Arc::default() };
    let client = Client::from_conf(config(&script, retry).build());
    (S3Store::new(client, location(), options).unwrap(), script)
}

fn scripted(answers: Vec<Answer>) -> (S3Store, Script) {
    scripted_with(answers, RetryConfig::disabled(), &S3Options::default())
}

fn header<'a>((_, headers, _): &'a Sent, name: &str) -> Option<&'a str> {
    headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
}

fn key(path: &str) -> ObjectKey {
    ObjectKey::new(path).unwrap()
}

fn id() -> UploadId {
    UploadId("VXBsb2FkIElE".to_owned())
}

const BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>VXBsb2FkIElE</UploadId></InitiateMultipartUploadResult>";

#[tokio::test]
async fn an_upload_request_has_every_option() {
    let (store, script) = scripted_with(vec![ok(&[], BEGUN)], RetryConfig::disabled(), &all_options());
    assert_eq!(store.begin_upload(&key("processed/x.parquet"), "ignored").await, Ok(id()));
    let sent = script.sent.lock().unwrap()[0].clone();
    assert!(sent.0.starts_with("POST https://lake.s3.eu-central-1.amazonaws.com/p/processed/x.parquet?uploads"));
    for (name, value) in [
        ("x-amz-checksum-algorithm", "CRC64NVME"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "alias/lake"),
        ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-tagging", "team=data"),
        ("x-amz-expected-bucket-owner", "111122223333"),
        ("content-type", "application/vnd.apache.parquet"),
    ] {
        assert_eq!(header(&sent, name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_small_object_is_standard_and_never_replaces_another() {
    let answers = vec![ok(&[], ""), error(412, "PreconditionFailed")];
    let (store, script) = scripted_with(answers, RetryConfig::disabled(), &all_options());
    let (key, bytes) = (key("_commits/e.json"), Bytes::from_static(b"123456789"));
    assert_eq!(store.put_new(&key, bytes.clone()).await, Ok(Written::New));
    assert_eq!(store.put_new(&key, bytes).await, Ok(Written::KeyTaken));
    let sent = script.sent.lock().unwrap()[0].clone();
    assert_eq!(header(&sent, "if-none-match"), Some("*"));
    // The check value of the algorithm's definition, ae8b14860a799888.
    assert_eq!(header(&sent, "x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="));
    assert_eq!(header(&sent, "x-amz-storage-class"), None);
    assert_eq!(header(&sent, "x-amz-tagging"), Some("team=data"));
    assert_eq!(header(&sent, "x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(header(&sent, "content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_part_is_sent_with_its_checksum_and_returns_its_etag() {
    let (store, script) = scripted(vec![ok(&[("etag", "\"b54357faf0632cce46e942fa68356b38\"")], "")]);
    let part = NewPart { number: 7, offset: 0, bytes: Bytes::from_static(b"123456789") };
    let part = store.upload_part(&key("x"), &id(), part).await.unwrap();
    assert_eq!(part, Part { number: 7, tag: "\"b54357faf0632cce46e942fa68356b38\"".to_owned() });
    let sent = script.sent.lock().unwrap()[0].clone();
    assert!(sent.0.contains("partNumber=7") && sent.0.contains("uploadId=VXBsb2FkIElE"), "{}", sent.0);
    assert_eq!(header(&sent, "x-amz-checksum-crc64nvme"), Some("rosUhgp5mIg="));
    assert_eq!(sent.2, "123456789");

    let part = NewPart { number: 10_001, offset: 0, bytes: Bytes::new() };
    let message = store.upload_part(&key("x"), &id(), part).await.unwrap_err();
    let expected = "could not upload part 10001 of x: S3 accepts 10000 parts for each object; \
                    set [parquet] file_bytes to 40 GiB at most";
    assert_eq!(message.to_string(), expected);
}

async fn completing(answers: Vec<Answer>, retry: RetryConfig) -> (Result<Completion, LakeError>, Vec<Sent>) {
    let (store, script) = scripted_with(answers, retry, &S3Options::default());
    let parts = [Part { number: 1, tag: "\"a\"".to_owned() }, Part { number: 2, tag: "\"b\"".to_owned() }];
    let completion = store.complete_upload(&key("x"), &id(), &parts).await;
    let sent = script.sent.lock().unwrap().clone();
    (completion, sent)
}

const COMPLETED: &str = "<CompleteMultipartUploadResult><ETag>\"c-2\"</ETag></CompleteMultipartUploadResult>";

#[tokio::test]
async fn the_response_to_a_completion_says_whether_the_key_was_taken() {
    let once = RetryConfig::disabled;
    let (completion, sent) = completing(vec![ok(&[], COMPLETED)], once()).await;
    assert_eq!(completion, Ok(Completion::Completed));
    assert_eq!(header(&sent[0], "if-none-match"), Some("*"));
    assert!(sent[0].2.contains("<PartNumber>1</PartNumber>") && sent[0].2.contains("<PartNumber>2</PartNumber>"));

    assert_eq!(completing(vec![error(412, "PreconditionFailed")], once()).await.0, Ok(Completion::KeyTaken));
    assert_eq!(completing(vec![error(404, "NoSuchUpload")], once()).await.0, Ok(Completion::NoSuchUpload));
    // S3 starts its response before it has completed the upload: status 200 may contain a failure.
    for passing in [error(409, "ConditionalRequestConflict"), error(200, "InternalError"), error(503, "SlowDown")] {
        let message = completing(vec![passing.clone()], once()).await.0;
        assert!(matches!(message, Err(LakeError::Unavailable { .. })), "{passing:?}: {message:?}");
    }
    for lasting in [error(400, "EntityTooSmall"), error(400, "InvalidPart"), error(200, "AccessDenied")] {
        let message = completing(vec![lasting.clone()], once()).await.0;
        assert!(matches!(message, Err(LakeError::Refused { .. })), "{lasting:?}: {message:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_repeated_after_a_lost_response_does_not_fail() {
    for lost in [Answer::Lost, error(500, "InternalError"), error(200, "InternalError")] {
        let (completion, sent) =
            completing(vec![lost.clone(), error(404, "NoSuchUpload")], RetryConfig::standard()).await;
        assert_eq!((completion, sent.len()), (Ok(Completion::NoSuchUpload), 2), "{lost:?}");
        let (completion, _) = completing(vec![lost, error(412, "PreconditionFailed")], RetryConfig::standard()).await;
        assert_eq!(completion, Ok(Completion::KeyTaken));
    }
}

#[tokio::test]
async fn temporary_failures_are_distinguished_from_refusals() {
    let passing = [
        Answer::Lost,
        error(503, "SlowDown"),
        error(500, "InternalError"),
        error(400, "RequestTimeout"),
        error(400, "KMS.ThrottlingException"),
        error(400, "BadDigest"),
        error(429, "Unheard"),
        error(400, "ExpiredToken"),
        error(400, "TokenRefreshRequired"),
        error(403, "RequestTimeTooSkewed"),
        Answer::Is(502, vec![], "<html>a proxy's own words</html>".to_owned()),
    ];
    for answer in passing {
        let (store, _) = scripted(vec![answer.clone()]);
        let message = store.put_new(&key("x"), Bytes::new()).await.unwrap_err();
        assert!(message.is_retryable(), "{answer:?}: {message}");
        assert!(message.to_string().starts_with("could not write x: "), "{message}");
    }
    let said = |code: &str| format!("could not write x: S3 returned {code}: As S3 says it (request 4442587FB7D0A2F9)");
    let credentials = "; renew the session, or give credentials by AWS_PROFILE, by the environment or by a role";
    let refused = [
        (
            403,
            "AccessDenied",
            "; allow s3:PutObject on bucket 'lake', keys 'p/*'; if a policy of the bucket denies it, set encryption, kms_key, tags, \
             storage_class or bucket_owner in [lake] as the policy wants",
        ),
        (404, "NoSuchBucket", "; there is no bucket 'lake': create it, or use another lake"),
        (403, "InvalidAccessKeyId", credentials),
        (403, "SignatureDoesNotMatch", credentials),
        (400, "KMS.DisabledException", "; check the KMS key of bucket 'lake'"),
        (301, "PermanentRedirect", "; set region in [lake] to the region of bucket 'lake'"),
        (400, "KeyTooLongError", ""),
    ];
    for (status, code, advice) in refused {
        let (store, _) = scripted(vec![error(status, code)]);
        let message = store.put_new(&key("x"), Bytes::new()).await.unwrap_err();
        assert!(matches!(message, LakeError::Refused { .. }), "{code}");
        assert_eq!(message.to_string(), said(code) + advice);
        assert!(!format!("{message:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn a_denial_names_the_actions_that_are_missing() {
    let denied = || vec![error(403, "AccessDenied")];
    let message_of = async |store: S3Store, call: &str| {
        let (key, id) = (key("x"), id());
        let result = match call {
            "begin" => store.begin_upload(&key, "").await.map(drop),
            "abort" => store.abort_upload(&key, &id).await,
            "uploads" => store.list_uploads().await.map(drop),
            "list" => store.list("raw/").await.map(drop),
            "get" => store.get(&key).await.map(drop),
            "checksum" => store.checksum(&key).await.map(drop),
            "delete" => store.delete(&key).await,
            _ => store.probe().await,
        };
        result.unwrap_err().to_string()
    };
    for (call, action) in [
        ("begin", "allow s3:PutObject on"),
        ("abort", "allow s3:AbortMultipartUpload on"),
        ("uploads", "allow s3:ListBucketMultipartUploads on"),
        ("list", "allow s3:ListBucket on"),
        ("get", "allow s3:GetObject and s3:ListBucket,"),
        ("checksum", "allow s3:GetObject and s3:ListBucket,"),
        ("delete", "allow s3:DeleteObject on"),
        ("probe", "allow s3:ListBucket on"),
    ] {
        let text = message_of(scripted(denied()).0, call).await;
        assert!(text.contains(action) && text.contains("bucket 'lake', keys 'p/*'"), "{call}: {text}");
    }
    let (store, _) = scripted_with(denied(), RetryConfig::disabled(), &all_options());
    let text = message_of(store, "begin").await;
    let actions =
        "s3:PutObject and s3:PutObjectTagging, and kms:GenerateDataKey and kms:Decrypt with the key 'alias/lake',";
    assert!(text.contains(actions), "{text}");
}

#[tokio::test]
async fn another_region_is_named() {
    let answer = Answer::Is(301, vec![("x-amz-bucket-region", "us-west-2")], String::new());
    let (store, _) = scripted(vec![answer]);
    let message = store.checksum(&key("x")).await.unwrap_err();
    assert!(matches!(message, LakeError::Refused { .. }));
    assert!(
        message.to_string().ends_with("bucket 'lake' is in us-west-2: set region = \"us-west-2\" in [lake]"),
        "{message}"
    );
}

#[tokio::test]
async fn missing_credentials_are_reported_with_what_to_do() {
    let connector = SharedHttpConnector::new(Script::default());
    let nowhere = ProviderConfig::empty().with_http_client(http_client_fn(move |_, _| connector.clone()));
    let nowhere = ProfileFileCredentialsProvider::builder().configure(&nowhere).profile_name("no-such-profile").build();
    let config = config(&Script::default(), RetryConfig::disabled());
    let client = Client::from_conf(config.credentials_provider(SharedCredentialsProvider::new(nowhere)).build());
    let store = S3Store::new(client, location(), &S3Options::default()).unwrap();
    let message = store.probe().await.unwrap_err();
    assert!(matches!(message, LakeError::Refused { .. }), "{message:?}");
    assert!(
        message.to_string().starts_with("could not open the lake s3://lake/p: there are no usable AWS credentials (")
    );
}

#[tokio::test]
async fn without_a_checksum_of_the_whole_object_the_object_is_read() {
    let looked = |headers: &[(&'static str, &'static str)]| Answer::Is(200, headers.to_vec(), String::new());
    let whole = looked(&[
        ("content-length", "9"),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ]);
    let (store, script) = scripted(vec![whole]);
    let expected = Some((9, Checksum::of(b"123456789")));
    assert_eq!(store.checksum(&key("x")).await, Ok(expected));
    let sent = script.sent.lock().unwrap()[0].clone();
    assert_eq!(header(&sent, "x-amz-checksum-mode"), Some("ENABLED"));

    let others = [
        looked(&[("content-length", "9")]),
        looked(&[("content-length", "9"), ("x-amz-checksum-crc64nvme", "no checksum")]),
        looked(&[
            ("content-length", "9"),
            ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="),
            ("x-amz-checksum-type", "COMPOSITE"),
        ]),
    ];
    for head in others {
        let (store, script) = scripted(vec![head, ok(&[], "123456789")]);
        assert_eq!(store.checksum(&key("x")).await, Ok(expected));
        assert!(script.sent.lock().unwrap()[1].0.starts_with("GET "));
    }
    let (store, _) = scripted(vec![Answer::Is(404, vec![], String::new())]);
    assert_eq!(store.checksum(&key("x")).await, Ok(None));
}

#[tokio::test]
async fn a_download_that_does_not_match_its_checksum_is_an_error() {
    let changed = [("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="), ("x-amz-checksum-type", "FULL_OBJECT")];
    let (store, _) = scripted(vec![ok(&changed, "123456789")]);
    let message = store.get(&key("x")).await.unwrap_err();
    assert!(message.is_retryable(), "{message:?}");
}

#[tokio::test]
async fn lists_continue_after_a_page_and_skip_foreign_objects() {
    let page = |keys: &[&str], next: Option<&str>| {
        let entry = |key: &&str| {
            format!(
                "<Contents><Key>{key}</Key><Size>3</Size><LastModified>2025-01-13T10:30:00.000Z</LastModified></Contents>"
            )
        };
        let next =
            next.map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>")).unwrap_or_default();
        let truncated = !next.is_empty();
        let entries: String = keys.iter().map(entry).collect();
        let body =
            format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{next}{entries}</ListBucketResult>");
        ok(&[], &body)
    };
    let first = page(&["p/a/", "p/a/b%3Dc+d%2B%252F", "elsewhere", "p/a/%01"], Some("t1"));
    let (store, script) = scripted(vec![first, page(&["p/a/%C3%A4"], None)]);
    let found = store.list("a/").await.unwrap();
    let keys: Vec<&str> = found.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["a/b=c d+%2F", "a/ä"]);
    assert_eq!((found[0].bytes, found[0].modified_ms), (3, 1_736_764_200_000));
    let sent = script.sent.lock().unwrap().clone();
    assert!(sent[0].0.contains("prefix=p%2Fa%2F") && sent[0].0.contains("encoding-type=url"), "{}", sent[0].0);
    assert!(sent[1].0.contains("continuation-token=t1"), "{}", sent[1].0);
}

#[tokio::test]
async fn lists_of_uploads_continue_after_a_page() {
    let upload = |key: &str, id: &str| {
        format!(
            "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>2025-01-13T10:30:00.000Z</Initiated></Upload>"
        )
    };
    let first = format!(
        "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/a=b%2Fc+d</NextKeyMarker>\
         <NextUploadIdMarker>u1</NextUploadIdMarker>{}{}</ListMultipartUploadsResult>",
        upload("p/", "foreign"),
        upload("p/&#x1;", "foreign") + &upload("p/a=b%2Fc+d", "u1")
    );
    let second = format!(
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{}</ListMultipartUploadsResult>",
        upload("p/a=b%2Fc+d", "u2")
    );
    let (store, script) = scripted(vec![ok(&[], &first), ok(&[], &second)]);
    let info =
        |id: &str| UploadInfo { key: Some(key("a=b%2Fc+d")), id: UploadId(id.to_owned()), begun_ms: 1_736_764_200_000 };
    assert_eq!(store.list_uploads().await, Ok(vec![info("u1"), info("u2")]));
    let sent = script.sent.lock().unwrap()[1].0.clone();
    assert!(sent.contains("key-marker=p%2Fa%3Db%252Fc%2Bd") && sent.contains("upload-id-marker=u1"), "{sent}");
}

/// A new lake in a bucket of the local stack.
pub(in crate::lake) async fn store() -> S3Store {
    stack::store_with(&S3Options::default()).await
}

mod stack {
    use super::*;
    use crate::aws::Aws;
    use crate::clock::random_bytes;
    use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
    use futures::{StreamExt, stream};

    const BUCKET: &str = "shardlake-tests";

    async fn client() -> Client {
        let local = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(local, "set AWS_ENDPOINT_URL to the local stack: these tests make a bucket");
        Aws::load().await.unwrap().s3()
    }

    pub(super) async fn store_with(options: &S3Options) -> S3Store {
        let client = client().await;
        let region = client.config().region().map(ToString::to_string).filter(|region| region != "us-east-1");
        let constraint = region.map(|region| {
            let region = BucketLocationConstraint::from(region.as_str());
            CreateBucketConfiguration::builder().location_constraint(region).build()
        });
        let made = client.create_bucket().bucket(BUCKET).set_create_bucket_configuration(constraint).send().await;
        if let Err(error) = made {
            assert_eq!(code(&error), Some("BucketAlreadyOwnedByYou"), "{error:?}");
        }
        let random = u64::from_be_bytes(random_bytes().unwrap());
        let location = S3Location::new(BUCKET, &format!("test-{random:016x}/")).unwrap();
        S3Store::new(client, location, options).unwrap()
    }

    async fn completed(store: &S3Store, path: &str) -> ObjectKey {
        let key = key(path);
        let id = store.begin_upload(&key, "").await.unwrap();
        let part = NewPart { number: 1, offset: 0, bytes: Bytes::from_static(b"PAR1") };
        let parts = [store.upload_part(&key, &id, part).await.unwrap()];
        assert_eq!(store.complete_upload(&key, &id, &parts).await, Ok(Completion::Completed));
        key
    }

    /// Prints the figures of `docs/benchmarks.md`: what entering costs where a process is alone, and the entries a second of several.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn several_processes_enter_the_lake_log_side_by_side() {
        use crate::commit::lake_log::testing::{commit, process};
        use tokio::time::Instant;

        const ALONE: u32 = 100;
        const EACH: u32 = 25;
        let store = store_with(&S3Options::default()).await;
        let alone = process(&store);
        commit(&alone, 0, 0).await;
        let began = Instant::now();
        let mut intent_ms = 0.0;
        for number in 1..=ALONE {
            let before = Instant::now();
            store.put_new(&key(&format!("_intents/x-{number}.json")), Bytes::from_static(b"{}")).await.unwrap();
            intent_ms += before.elapsed().as_secs_f64() * 1000.0;
            assert_eq!(commit(&alone, 0, u64::from(number)).await, u64::from(number) + 1);
        }
        let whole_ms = began.elapsed().as_secs_f64() * 1000.0;
        // A commit here is an intent, the entry and the removal of the intent.
        println!(
            "alone: {:.1} ms for each commit without its data; a PUT alone takes {:.1} ms",
            (whole_ms - intent_ms) / f64::from(ALONE),
            intent_ms / f64::from(ALONE)
        );
        let mut expected = ALONE + 1;
        for count in [2_u8, 4, 10] {
            let began = Instant::now();
            let entering = (1..=count).map(|me| {
                let stores = process(&store);
                tokio::spawn(async move {
                    for number in 0..EACH {
                        commit(&stores, me * 10 + count % 10, u64::from(number)).await;
                    }
                })
            });
            for done in entering.collect::<Vec<_>>() {
                done.await.unwrap();
            }
            let entries = u32::from(count) * EACH;
            let seconds = began.elapsed().as_secs_f64();
            println!("{count} processes at full speed: {:.1} entries a second", f64::from(entries) / seconds);
            expected += entries;
            let listed = store.list(pipeline::layout::LAKE_LOG_ENTRIES).await.unwrap();
            assert_eq!(u32::try_from(listed.len()), Ok(expected), "each entered once");
        }
    }

    #[tokio::test]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn stored_objects_have_the_options() {
        let options = S3Options {
            encryption: Encryption::Aes256,
            storage_class: Some("STANDARD_IA".to_owned()),
            tags: [("team".to_owned(), "data + more=x".to_owned())].into(),
            ..S3Options::default()
        };
        let store = store_with(&options).await;
        let data = completed(&store, "processed/x.parquet").await;
        let small = key("_commits/x.json");
        store.put_new(&small, Bytes::from_static(b"{}")).await.unwrap();
        for (key, class) in [(&data, Some("STANDARD_IA")), (&small, None)] {
            let head = store.client.head_object().bucket(BUCKET).key(store.full(key)).send().await.unwrap();
            assert_eq!(head.server_side_encryption, Some(ServerSideEncryption::Aes256), "{key}");
            let found = head.storage_class.as_ref().map(AsRef::as_ref).filter(|class: &&str| *class != "STANDARD");
            assert_eq!(found, class, "{key}");
            let tags = store.client.get_object_tagging().bucket(BUCKET).key(store.full(key)).send().await.unwrap();
            let tags: Vec<_> = tags.tag_set.iter().map(|tag| (tag.key(), tag.value())).collect();
            assert_eq!(tags, [("team", "data + more=x")], "{key}");
        }
    }

    #[tokio::test]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn objects_are_encrypted_with_the_configured_key() {
        let arn = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let encryption = Encryption::Kms { key: Some(arn.to_owned()), bucket_key: true };
        let store = store_with(&S3Options { encryption, ..S3Options::default() }).await;
        let key = completed(&store, "processed/x.parquet").await;
        let head = store.client.head_object().bucket(BUCKET).key(store.full(&key)).send().await.unwrap();
        assert_eq!(head.server_side_encryption, Some(ServerSideEncryption::AwsKms));
        assert_eq!(head.ssekms_key_id.as_deref(), Some(arn));
        assert_eq!(store.checksum(&key).await, Ok(Some((4, Checksum::of(b"PAR1")))));
    }

    #[tokio::test]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn lists_have_every_key_once_and_in_order_for_any_page_size() {
        let store = store_with(&S3Options::default()).await.with_page(7);
        let keys: Vec<ObjectKey> = (0..40).map(|number| key(&format!("a/k= +%2F{number:03}"))).collect();
        stream::iter(&keys)
            .for_each_concurrent(8, |key| async {
                store.put_new(key, Bytes::from_static(b"x")).await.unwrap();
            })
            .await;
        store.put_new(&key("b"), Bytes::new()).await.unwrap();
        // What the AWS console creates as a folder.
        let folder = store.client.put_object().bucket(BUCKET).key(format!("{}a/", store.location.prefix()));
        folder.send().await.unwrap();
        let listed: Vec<ObjectKey> = store.list("a/").await.unwrap().into_iter().map(|object| object.key).collect();
        assert_eq!(listed, keys);

        let mut begun = Vec::new();
        for number in 0..9 {
            begun.push(store.begin_upload(&key(&format!("a/u=é +%2F{}", number / 2)), "").await.unwrap());
        }
        let mut listed: Vec<UploadId> =
            store.clone().with_page(2).list_uploads().await.unwrap().into_iter().map(|upload| upload.id).collect();
        begun.sort();
        listed.sort();
        assert_eq!(listed, begun);
    }

    #[tokio::test]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn more_keys_than_one_page_are_listed() {
        let store = store_with(&S3Options::default()).await;
        stream::iter(0..1010)
            .for_each_concurrent(16, |number| {
                let key = key(&format!("n/{number:04}"));
                let store = &store;
                async move {
                    store.put_new(&key, Bytes::new()).await.unwrap();
                }
            })
            .await;
        assert_eq!(store.list("n/").await.unwrap().len(), 1010);
    }

    /// Some local stacks accept any checksum. This proves for all of them that a wrong one is either refused or visible in the
    /// stored checksum.
    #[tokio::test]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn bytes_with_a_wrong_checksum_are_refused_or_detected() {
        let store = store_with(&S3Options::default()).await;
        let (path, wrong) = (key("x"), Checksum::of(b"other bytes"));
        let request = store.client.put_object().bucket(BUCKET).key(store.full(&path));
        let request = request.checksum_crc64_nvme(to_base64(wrong)).body(ByteStream::from_static(b"these bytes"));
        match request.send().await {
            Ok(_) => {
                let found = store.checksum(&path).await.unwrap().unwrap();
                assert!(found == (11, wrong) || found == (11, Checksum::of(b"these bytes")), "{found:?}");
            }
            Err(error) => {
                assert!(matches!(status(&error), Some(400)), "{error:?}");
                assert_eq!(store.checksum(&path).await, Ok(None));
            }
        }
    }

    #[tokio::test]
    #[ignore = "needs the local AWS stack: localstack/run"]
    async fn a_probe_distinguishes_a_bucket_from_a_missing_one() {
        assert_eq!(store().await.probe().await, Ok(()));
        let location = S3Location::new("shardlake-no-such-bucket", "").unwrap();
        let message = S3Store::new(client().await, location, &S3Options::default()).unwrap().probe().await.unwrap_err();
        assert!(matches!(message, LakeError::Refused { .. }), "{message:?}");
        assert!(message.to_string().contains("there is no bucket 'shardlake-no-such-bucket'"), "{message}");
    }
}
