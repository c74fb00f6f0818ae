//! S3's API through the official SDK: what the commit relies on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use aws_model::http::{Request, Response, Service};
use aws_model::s3::S3;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::operation::upload_part_copy::UploadPartCopyOutput;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete, EncodingType,
    ObjectIdentifier, ServerSideEncryption, StorageClass,
};
use bytes::Bytes;

use crate::memory;

const BUCKET: &str = "lake";
const MIB: usize = 1024 * 1024;

fn model() -> (S3, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
    let now = Arc::clone(&clock);
    let model = S3::new(move || now.load(Ordering::Relaxed));
    assert_eq!(raw(&model, "PUT", "/lake", "", &[], b"").status, 200);
    (model, clock)
}

/// A request without the SDK.
pub(crate) fn raw(
    model: &S3,
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    model.answer(&Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: pairs.map(own).collect(),
        headers: headers.iter().copied().map(own).collect(),
        body: Bytes::copy_from_slice(body),
    })
}

fn text(response: &Response) -> String {
    String::from_utf8(response.body.to_vec()).unwrap()
}

fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", text(response));
    assert!(text(response).contains(&format!("<Code>{code}</Code>")), "{}", text(response));
}

fn client(model: &S3) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url("http://127.0.0.1:1")
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .http_client(memory::client(model.clone()));
    Client::from_conf(config.build())
}

async fn begin(client: &Client, key: &str) -> String {
    let request = client.create_multipart_upload().bucket(BUCKET).key(key);
    let request = request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
    request.send().await.unwrap().upload_id.unwrap()
}

async fn part(client: &Client, key: &str, id: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let request = client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number);
    let part = request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).body(body.into()).send().await.unwrap();
    CompletedPart::builder().part_number(number).e_tag(part.e_tag.unwrap()).build()
}

/// The error's code, or none.
async fn complete(client: &Client, key: &str, id: &str, parts: Vec<CompletedPart>) -> Option<String> {
    let request = client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).if_none_match("*");
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let answer = request.multipart_upload(parts).send().await;
    answer.err().map(|error| error.code().unwrap().to_owned())
}

#[tokio::test]
async fn an_upload_is_visible_once_it_is_completed_and_is_completed_once() {
    let (model, _) = model();
    let client = client(&model);
    let id = begin(&client, "a b/é+%2F.parquet").await;
    let mut parts = Vec::new();
    for (number, bytes) in [(1, vec![1; 5 * MIB]), (2, vec![2; 5 * MIB]), (3, vec![3; 7])] {
        parts.push(part(&client, "a b/é+%2F.parquet", &id, number, bytes).await);
        let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        assert!(listed.contents().is_empty());
        let got = client.get_object().bucket(BUCKET).key("a b/é+%2F.parquet").send().await;
        assert_eq!(got.unwrap_err().code(), Some("NoSuchKey"));
    }
    let message = client.list_parts().bucket(BUCKET).key("a b/é+%2F.parquet").upload_id(&id).send().await.unwrap();
    assert_eq!(message.parts().iter().map(|part| part.size().unwrap()).collect::<Vec<_>>(), [5 << 20, 5 << 20, 7]);
    assert_eq!(complete(&client, "a b/é+%2F.parquet", &id, parts.clone()).await, None);
    assert_eq!(complete(&client, "a b/é+%2F.parquet", &id, parts).await.as_deref(), Some("NoSuchUpload"));
    let whole = [vec![1; 5 * MIB], vec![2; 5 * MIB], vec![3; 7]].concat();
    assert_eq!(model.object(BUCKET, "a b/é+%2F.parquet").unwrap(), whole);
    let head = client.head_object().bucket(BUCKET).key("a b/é+%2F.parquet").checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.unwrap();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &whole).to_be_bytes();
    use base64::Engine;
    assert_eq!(head.checksum_crc64_nvme(), Some(base64::engine::general_purpose::STANDARD.encode(sum).as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    assert_eq!(head.content_length(), Some(10 * 1024 * 1024 + 7));
    assert!(head.e_tag().unwrap().ends_with("-3\""));
    let got = client.get_object().bucket(BUCKET).key("a b/é+%2F.parquet").range("bytes=-9").send().await.unwrap();
    assert_eq!(got.body.collect().await.unwrap().into_bytes(), vec![2, 2, 3, 3, 3, 3, 3, 3, 3]);
}

#[tokio::test]
async fn a_completion_never_replaces_an_object_and_leaves_the_upload() {
    let (model, _) = model();
    let client = client(&model);
    let (one, two) = (begin(&client, "k").await, begin(&client, "k").await);
    let first = vec![part(&client, "k", &one, 1, b"one".to_vec()).await];
    let second = vec![part(&client, "k", &two, 1, b"two".to_vec()).await];
    assert_eq!(complete(&client, "k", &one, first).await, None);
    assert_eq!(complete(&client, "k", &two, second.clone()).await.as_deref(), Some("PreconditionFailed"));
    assert_eq!(model.object(BUCKET, "k").unwrap(), "one");
    assert_eq!(model.uploads(BUCKET), [("k".to_owned(), two.clone())]);
    // If somebody deletes the object, the same upload can still be completed.
    assert!(model.remove_object(BUCKET, "k"));
    model.conflict_with(1);
    assert_eq!(complete(&client, "k", &two, second.clone()).await.as_deref(), Some("ConditionalRequestConflict"));
    assert_eq!(complete(&client, "k", &two, second).await, None);
    assert_eq!(model.object(BUCKET, "k").unwrap(), "two");
    // If a conflict ends the upload, it is unknown afterwards.
    let id = begin(&client, "l").await;
    let parts = vec![part(&client, "l", &id, 1, b"x".to_vec()).await];
    model.set_conflicts_end_uploads(true);
    model.conflict_with(1);
    assert_eq!(complete(&client, "l", &id, parts.clone()).await.as_deref(), Some("ConditionalRequestConflict"));
    assert_eq!(complete(&client, "l", &id, parts).await.as_deref(), Some("NoSuchUpload"));
}

#[tokio::test]
async fn a_completion_must_name_each_part_with_its_tag() {
    let (model, _) = model();
    let client = client(&model);
    let id = begin(&client, "k").await;
    let small = part(&client, "k", &id, 1, vec![0; 5 * MIB - 1]).await;
    let last = part(&client, "k", &id, 2, vec![0; 1]).await;
    let wrong = CompletedPart::builder().part_number(1).e_tag("\"0123\"").build();
    let absent = CompletedPart::builder().part_number(3).e_tag(last.e_tag.clone().unwrap()).build();
    for (parts, code) in [
        (vec![small.clone(), last.clone()], "EntityTooSmall"),
        (vec![last.clone(), small.clone()], "InvalidPartOrder"),
        (vec![wrong], "InvalidPart"),
        (vec![absent], "InvalidPart"),
        (vec![], "MalformedXML"),
    ] {
        assert_eq!(complete(&client, "k", &id, parts).await.as_deref(), Some(code));
    }
    // A repeated part replaces the earlier one.
    let large = part(&client, "k", &id, 1, vec![7; 5 * MIB]).await;
    assert_eq!(complete(&client, "k", &id, vec![small, last.clone()]).await.as_deref(), Some("InvalidPart"));
    let other = complete(&client, "other", &id, vec![large.clone(), last.clone()]).await;
    assert_eq!(other.as_deref(), Some("NoSuchUpload"), "an upload belongs to its key");
    assert_eq!(complete(&client, "k", &id, vec![large, last]).await, None);
}

#[tokio::test]
async fn an_aborted_upload_cannot_be_completed() {
    let (model, clock) = model();
    let client = client(&model);
    let id = begin(&client, "k").await;
    let parts = vec![part(&client, "k", &id, 1, b"x".to_vec()).await];
    client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap();
    assert_eq!(complete(&client, "k", &id, parts).await.as_deref(), Some("NoSuchUpload"));
    let again = client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(&id).send().await.unwrap_err();
    assert_eq!(again.code(), Some("NoSuchUpload"));
    let old = begin(&client, "k").await;
    let begun = clock.fetch_add(1_000, Ordering::Relaxed);
    let new = begin(&client, "k").await;
    assert_eq!(model.abort_uploads(BUCKET, begun + 1), 1);
    let parts = client.upload_part().bucket(BUCKET).key("k").upload_id(&old).part_number(1).body(vec![0].into());
    assert_eq!(parts.send().await.unwrap_err().code(), Some("NoSuchUpload"));
    assert_eq!(model.uploads(BUCKET), [("k".to_owned(), new)]);
}

#[tokio::test]
async fn puts_are_conditional_and_store_their_metadata() {
    let (model, _) = model();
    let client = client(&model);
    let put = || {
        let request = client.put_object().bucket(BUCKET).key("k").if_none_match("*").body(b"body".to_vec().into());
        let request = request.storage_class(StorageClass::StandardIa).tagging("team=data+%2B%20more&x=");
        request.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id("arn").content_type("text/plain")
    };
    let written = put().send().await.unwrap();
    assert_eq!(written.ssekms_key_id(), Some("arn"));
    let again = put().send().await.unwrap_err();
    assert_eq!((again.raw_response().unwrap().status().as_u16(), again.code()), (412, Some("PreconditionFailed")));
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.storage_class(), Some(&StorageClass::StandardIa));
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(head.content_type(), Some("text/plain"));
    assert_eq!(head.checksum_crc32(), None, "only if asked for");
    let tags = client.get_object_tagging().bucket(BUCKET).key("k").send().await.unwrap();
    let tags: Vec<_> = tags.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
    assert_eq!(tags, [("team", "data + more"), ("x", "")]);
    let replace = |etag: &str| client.put_object().bucket(BUCKET).key("k").if_match(etag).body(b"new".to_vec().into());
    assert_eq!(replace("\"no\"").send().await.unwrap_err().code(), Some("PreconditionFailed"));
    replace(written.e_tag().unwrap()).send().await.unwrap();
    assert_eq!(model.object(BUCKET, "k").unwrap(), "new");
    let copied = client.copy_object().bucket(BUCKET).key("c").copy_source("lake/k").send().await.unwrap();
    assert!(copied.copy_object_result().unwrap().e_tag().is_some());
    assert_eq!(model.object(BUCKET, "c").unwrap(), "new");
    let named = |key: &str| ObjectIdentifier::builder().key(key).build().unwrap();
    let all = Delete::builder().objects(named("k")).objects(named("c")).objects(named("absent")).build().unwrap();
    let deleted = client.delete_objects().bucket(BUCKET).delete(all).send().await.unwrap();
    assert_eq!(deleted.deleted().len(), 3);
    assert!(model.keys(BUCKET).is_empty());
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    assert!(head.into_service_error().is_not_found());
    let owner = client.list_objects_v2().bucket(BUCKET).expected_bucket_owner("111111111111").send().await;
    assert_eq!(owner.unwrap_err().code(), Some("AccessDenied"));
    let nowhere = client.list_objects_v2().bucket("nowhere").send().await;
    assert_eq!(nowhere.unwrap_err().code(), Some("NoSuchBucket"));
}

#[tokio::test]
async fn a_part_may_be_copied_from_an_object_or_a_range_of_a_large_one() {
    let (model, _) = model();
    let client = client(&model);
    let large: Vec<u8> = (0..6 << 20).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
    for (key, body) in [("a b=é", b"small".to_vec()), ("large", large.clone())] {
        client.put_object().bucket(BUCKET).key(key).body(body.into()).send().await.unwrap();
    }
    let begun =
        client.create_multipart_upload().bucket(BUCKET).key("k").checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let id = begun.send().await.unwrap().upload_id().unwrap().to_owned();
    let copy = |number: i32, source: &str, range: Option<&str>| {
        let request = client.upload_part_copy().bucket(BUCKET).key("k").upload_id(&id).part_number(number);
        request.copy_source(format!("{BUCKET}/{source}")).set_copy_source_range(range.map(str::to_owned)).send()
    };
    let first = copy(1, "large", Some("bytes=0-5242879")).await.unwrap();
    let last = copy(2, "a%20b%3D%C3%A9", None).await.unwrap();
    for (source, range, code) in [
        ("none", None, "NoSuchKey"),
        ("large", Some("bytes=0-6291456"), "InvalidArgument"),
        ("large", Some("5-9"), "InvalidArgument"),
        ("a%20b%3D%C3%A9", Some("bytes=0-1"), "InvalidArgument"),
    ] {
        assert_eq!(copy(3, source, range).await.unwrap_err().code(), Some(code), "{source} {range:?}");
    }
    let part = |number: i32, tag: &str| CompletedPart::builder().part_number(number).e_tag(tag).build();
    let tag = |copied: &UploadPartCopyOutput| copied.copy_part_result().unwrap().e_tag().unwrap().to_owned();
    let parts = CompletedMultipartUpload::builder().parts(part(1, &tag(&first))).parts(part(2, &tag(&last))).build();
    let done = client.complete_multipart_upload().bucket(BUCKET).key("k").upload_id(&id).multipart_upload(parts);
    done.send().await.unwrap();
    assert_eq!(model.object(BUCKET, "k").unwrap(), [&large[..5 << 20], b"small"].concat());
}

#[tokio::test]
async fn every_checksum_algorithm_is_stored_and_returned() {
    let (model, _) = model();
    let client = client(&model);
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
        ChecksumAlgorithm::Crc64Nvme,
    ] {
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key("k")
            .checksum_algorithm(algorithm.clone())
            .body(b"body".to_vec().into());
        put.send().await.unwrap();
        // The SDK verifies the checksum itself.
        let got =
            client.get_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled).send().await.unwrap();
        let sums = [
            got.checksum_crc32(),
            got.checksum_crc32_c(),
            got.checksum_sha1(),
            got.checksum_sha256(),
            got.checksum_crc64_nvme(),
        ];
        assert_eq!(sums.iter().flatten().count(), 1, "{algorithm:?}");
        assert_eq!(got.body.collect().await.unwrap().into_bytes(), "body");
    }
}

#[test]
fn a_body_that_does_not_match_its_checksum_is_refused() {
    let (model, _) = model();
    let put = |headers: &[(&str, &str)]| raw(&model, "PUT", "/lake/k", "", headers, b"body");
    for (headers, code) in [
        (vec![("x-amz-checksum-crc32", "AAAAAA==")], "BadDigest"),
        (vec![("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")], "BadDigest"),
        (vec![("x-amz-checksum-crc64nvme", "AAAA")], "InvalidRequest"),
        (vec![("x-amz-checksum-sha256", "c2hvcnQ=")], "InvalidRequest"),
        (vec![("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32c", "AAAAAA==")], "InvalidRequest"),
        (vec![("x-amz-trailer", "x-amz-checksum-crc32")], "MalformedTrailerError"),
        (vec![("x-amz-decoded-content-length", "5")], "IncompleteBody"),
        (vec![("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], "BadDigest"),
        (vec![("x-amz-storage-class", "FAST")], "InvalidStorageClass"),
        (vec![("x-amz-server-side-encryption-aws-kms-key-id", "k")], "InvalidArgument"),
    ] {
        refused(&put(&headers), 400, code);
    }
    refused(&put(&[("if-none-match", "\"etag\"")]), 501, "NotImplemented");
    assert!(model.keys(BUCKET).is_empty(), "nothing refused is stored");
    let begin = |headers: &[(&str, &str)]| raw(&model, "POST", "/lake/k", "uploads", headers, b"");
    refused(
        &begin(&[("x-amz-checksum-algorithm", "SHA256"), ("x-amz-checksum-type", "FULL_OBJECT")]),
        400,
        "InvalidRequest",
    );
    refused(
        &begin(&[("x-amz-checksum-algorithm", "CRC64NVME"), ("x-amz-checksum-type", "COMPOSITE")]),
        400,
        "InvalidRequest",
    );
    assert_eq!(begin(&[("x-amz-checksum-algorithm", "CRC64NVME")]).status, 200);
    let (_, id) = model.uploads(BUCKET).remove(0);
    let part =
        |headers: &[(&str, &str)]| raw(&model, "PUT", "/lake/k", &format!("partNumber=1&uploadId={id}"), headers, b"");
    refused(&part(&[("x-amz-checksum-crc32", "AAAAAA==")]), 400, "InvalidRequest");
    refused(
        &raw(&model, "PUT", "/lake/k", &format!("partNumber=10001&uploadId={id}"), &[], b""),
        400,
        "InvalidArgument",
    );
    let done = part(&[("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")]);
    assert_eq!(done.status, 200);
    let body = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>d41d8cd98f00b204e9800998ecf8427e</ETag></Part></CompleteMultipartUpload>";
    let complete = |sum: &str| {
        raw(&model, "POST", "/lake/k", &format!("uploadId={id}"), &[("x-amz-checksum-crc64nvme", sum)], body.as_bytes())
    };
    refused(&complete("AAAAAAAAAAE="), 400, "BadDigest");
    assert_eq!(complete("AAAAAAAAAAA=").status, 200);
}

#[tokio::test]
async fn listings_have_every_key_once_and_in_order_whatever_the_pages() {
    let (model, _) = model();
    let client = client(&model);
    let mut keys: Vec<String> = (0..23).map(|n| format!("a/{n:02} +%é/x")).collect();
    keys.extend(["a/z".to_owned(), "b/1".to_owned(), "a".to_owned()]);
    for key in &keys {
        client.put_object().bucket(BUCKET).key(key).send().await.unwrap();
    }
    keys.retain(|key| key.starts_with("a/"));
    let (mut seen, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let request = client.list_objects_v2().bucket(BUCKET).prefix("a/").max_keys(5).set_continuation_token(token);
        let page = request.send().await.unwrap();
        seen.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        pages += 1;
        token = page.next_continuation_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (keys, 5));
    let (mut folders, mut token) = (Vec::new(), None);
    loop {
        let request = client
            .list_objects_v2()
            .bucket(BUCKET)
            .prefix("a/")
            .delimiter("/")
            .max_keys(4)
            .set_continuation_token(token);
        let page = request.send().await.unwrap();
        folders.extend(page.common_prefixes().iter().map(|folder| folder.prefix().unwrap().to_owned()));
        folders.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        token = page.next_continuation_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!((folders.len(), folders[0].as_str(), folders[23].as_str()), (24, "a/00 +%é/", "a/z"));
    let after = client
        .list_objects_v2()
        .bucket(BUCKET)
        .start_after("a/z")
        .encoding_type(EncodingType::Url)
        .send()
        .await
        .unwrap();
    assert_eq!(after.contents().iter().map(|object| object.key().unwrap()).collect::<Vec<_>>(), ["b/1"]);
    let encoded = text(&raw(&model, "GET", "/lake", "list-type=2&encoding-type=url&max-keys=2", &[], b""));
    assert!(encoded.contains("<Key>a/00+%2B%25%C3%A9/x</Key>"), "{encoded}");

    let mut begun = Vec::new();
    for n in 0..9 {
        begun.push(begin(&client, &format!("u{}", n / 2)).await);
    }
    let (mut seen, mut markers) = (Vec::new(), (None, None));
    loop {
        let request = client.list_multipart_uploads().bucket(BUCKET).max_uploads(2);
        let page = request.set_key_marker(markers.0).set_upload_id_marker(markers.1).send().await.unwrap();
        seen.extend(page.uploads().iter().map(|upload| upload.upload_id().unwrap().to_owned()));
        if page.is_truncated() != Some(true) {
            break;
        }
        markers = (page.next_key_marker, page.next_upload_id_marker);
    }
    assert_eq!(seen, begun);
}

#[test]
fn ranges_follow_the_http_specification() {
    let (model, _) = model();
    raw(&model, "PUT", "/lake/k", "", &[], b"0123456789");
    let get = |range: &str| raw(&model, "GET", "/lake/k", "", &[("range", range)], b"");
    for (range, status, body) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=8-99", 206, "89"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=-99", 206, "0123456789"),
        ("bytes=4-2", 200, "0123456789"),
        ("lines=1-2", 200, "0123456789"),
    ] {
        let answer = get(range);
        assert_eq!((answer.status, text(&answer).as_str()), (status, body), "{range}");
    }
    refused(&get("bytes=10-"), 416, "InvalidRange");
    refused(&get("bytes=-0"), 416, "InvalidRange");
    raw(&model, "PUT", "/lake/cold", "", &[("x-amz-storage-class", "GLACIER")], b"x");
    refused(&raw(&model, "GET", "/lake/cold", "", &[], b""), 403, "InvalidObjectState");
    assert_eq!(raw(&model, "HEAD", "/lake/absent", "", &[], b"").body, "");
}

#[test]
fn of_eight_writers_of_a_key_exactly_one_wins() {
    let (model, _) = model();
    let writers: Vec<_> = (0..8)
        .map(|writer: u8| {
            let model = model.clone();
            thread::spawn(move || {
                let put =
                    |n| raw(&model, "PUT", &format!("/lake/{n}"), "", &[("if-none-match", "*")], &[writer]).status;
                (0..300)
                    .filter(|n| match put(*n) {
                        200 => true,
                        status => {
                            assert_eq!(status, 412);
                            false
                        }
                    })
                    .count()
            })
        })
        .collect();
    assert_eq!(writers.into_iter().map(|writer| writer.join().unwrap()).sum::<usize>(), 300);
    assert_eq!(model.keys(BUCKET).len(), 300);
}
