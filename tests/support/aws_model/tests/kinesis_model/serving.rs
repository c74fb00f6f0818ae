//! The server itself, with hand-written HTTP: routes, framed bodies, HEAD requests, the server's end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_model::faults::{Fault, Faults, Refusal, Rule, ServiceName, When};
use aws_model::http::{Request, Response, Service};
use aws_model::server::{Server, Services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keeps its requests, and answers "content".
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<Request>>>);

impl Service for Listener {
    fn answer(&self, request: &Request) -> Response {
        self.0.lock().unwrap().push(request.clone());
        let headers = vec![("etag".to_owned(), "\"1\"".to_owned())];
        Response { status: 200, headers, body: "content".into() }
    }
}

struct Served {
    server: Server,
    asked: Listener,
    faults: Arc<Faults>,
}

fn served(name: ServiceName) -> Served {
    let (asked, faults) = (Listener::default(), Arc::new(Faults::new(0)));
    let server = Server::start(Services::new().with(name, asked.clone()), Arc::clone(&faults));
    Served { server, asked, faults }
}

impl Served {
    async fn send(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(self.server.url().trim_start_matches("http://")).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn last(&self) -> Request {
        self.asked.0.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test]
async fn a_model_sees_the_request_decoded() {
    let served = served(ServiceName::S3);
    let request = "GET /bucket/a%2Fb%20c+d%C3%A4?list&prefix=x%26y%3D HTTP/1.1\r\nhost: a\r\nX-Amz-Meta: 1\r\nx-amz-meta: 2\r\n\
                   connection: close\r\n\r\n";
    let answer = served.send(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\netag: \"1\"\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\ncontent"), "{answer}");
    let seen = served.last();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("GET", "/bucket/a/b c+dä"));
    let query = [("list", ""), ("prefix", "x&y=")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(seen.query, BTreeMap::from(query));
    assert_eq!(seen.headers["x-amz-meta"], "1,2");
}

#[tokio::test]
async fn a_framed_body_is_unframed_and_its_trailers_are_headers() {
    let served = served(ServiceName::S3);
    let head = "PUT /bucket/key HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-encoding: aws-chunked\r\n\
                x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-trailer: x-amz-checksum-crc32\r\n";
    let body = "5\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    served.send(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    let seen = served.last();
    assert_eq!((&seen.body[..], seen.headers["x-amz-checksum-crc32"].as_str()), (&b"hello!"[..], "AAAAAA=="));
    assert!(!seen.headers.contains_key("content-encoding"));

    // The SDK also sends it in HTTP chunks.
    served.send(&format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())).await;
    assert_eq!(&served.last().body[..], b"hello!");

    let broken = served.send(&format!("{head}content-length: 7\r\n\r\n5\r\nhell")).await;
    assert!(broken.starts_with("HTTP/1.1 400") && broken.contains("<Code>IncompleteBody</Code>"), "{broken}");
    assert_eq!(served.asked.0.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_answer_to_a_head_has_the_length_and_no_body() {
    let served = served(ServiceName::S3);
    let answer = served.send("HEAD /bucket/key HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: 7\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn each_request_is_routed_to_its_service_and_operation() {
    let served = served(ServiceName::S3);
    let cases = [
        ("GET /", "ListBuckets"),
        ("PUT /b", "CreateBucket"),
        ("GET /b?list-type=2", "ListObjectsV2"),
        ("GET /b/?uploads", "ListMultipartUploads"),
        ("POST /b?delete", "DeleteObjects"),
        ("PUT /b/k?x-id=PutObject", "PutObject"),
        ("PUT /b/k?partNumber=1&uploadId=u", "UploadPart"),
        ("POST /b/k?uploads", "CreateMultipartUpload"),
        ("POST /b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE /b/k?uploadId=u", "AbortMultipartUpload"),
        ("GET /b/k?uploadId=u", "ListParts"),
        ("HEAD /b/k", "HeadObject"),
        ("DELETE /b/k", "DeleteObject"),
    ];
    for (line, operation) in cases {
        served.send(&format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(served.faults.calls().get(&(ServiceName::S3, operation.to_owned())), Some(&1), "{line}");
    }
    let target = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-amz-target: DynamoDB_20120810.PutItem\r\n\r\n";
    let answer = served.send(target).await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    assert_eq!(served.faults.calls()[&(ServiceName::DynamoDb, "PutItem".to_owned())], 1);
}

#[tokio::test]
async fn errors_have_the_form_of_their_service() {
    let served = served(ServiceName::S3);
    served.faults.add(Rule::new(ServiceName::S3, "PutObject", When::Always, Fault::Refuse(Refusal::slow_down())));
    let canceled = Refusal::transaction_canceled(["None", "ConditionalCheckFailed"]);
    served.faults.add(Rule::new(ServiceName::DynamoDb, "*", When::Always, Fault::Refuse(canceled)));
    let slow = served.send("PUT /b/k HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert!(slow.starts_with("HTTP/1.1 503") && slow.contains("<Error><Code>SlowDown</Code>"), "{slow}");
    let target =
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-amz-target: DynamoDB_20120810.TransactWriteItems\r\n\r\n";
    let answer = served.send(target).await;
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["__type"], "com.amazonaws.dynamodb.v20120810#TransactionCanceledException");
    assert_eq!(body["CancellationReasons"][0]["Code"], "None");
    assert_eq!(body["CancellationReasons"][1]["Code"], "ConditionalCheckFailed");
    assert!(body["message"].as_str().unwrap().ends_with("[None, ConditionalCheckFailed]"));
}

#[tokio::test]
async fn a_dropped_server_closes_its_connections() {
    let served = served(ServiceName::S3);
    served.faults.add(Rule::new(ServiceName::S3, "*", When::Always, Fault::Hang));
    let address = served.server.url().trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.write_all(b"GET /b/k HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    while served.faults.happened().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(served.server);
    let mut rest = Vec::new();
    // Closed or reset: in both cases no bytes arrived, and none will.
    let _ = socket.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(TcpStream::connect(&address).await.is_err());
}
