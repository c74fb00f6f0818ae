//! What a worker says of itself: metrics and traces at a collector, the fields of its log.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_model::faults::{Fault, Refusal, Rule, ServiceName, When};
use serde_json::Value;
use shardlake::telemetry::metrics::METRICS;

use crate::aws::cloud::{Cloud, Options};
use crate::common::collector::{Collector, HeaderTap};
use crate::common::network::{Proxy, silent_server};
use crate::common::{pause, wait_for};

/// Options of a worker that looks at the lake every second.
fn watching() -> Options {
    let lake = "\n[telemetry]\nlake_every = \"1s\"\n".to_owned();
    Options { lake, ..Options::default() }
}

fn pushing(cloud: &mut Cloud, collector: &Collector) {
    cloud.folder.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    cloud.folder.set("OTEL_METRIC_EXPORT_INTERVAL", "300");
    cloud.folder.set("OTEL_BSP_SCHEDULE_DELAY", "300");
    cloud.folder.set("OTEL_SERVICE_NAME", "orders");
    cloud.folder.set("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
    cloud.folder.set("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc");
}

#[test]
fn every_metric_of_the_table_is_pushed_by_a_real_run_and_none_that_it_lacks() {
    let mut cloud = Cloud::without_roles(2, &watching());
    let collector = Collector::start(200);
    pushing(&mut cloud, &collector);
    // What is rare: throttling, a service that fails.
    let throttled = Fault::Refuse(Refusal::throughput_exceeded());
    cloud.faults.add(Rule::new(ServiceName::Kinesis, "GetRecords", When::Nth(3), throttled));
    cloud.faults.add(Rule::new(ServiceName::S3, "PutObject", When::Nth(2), Fault::Refuse(Refusal::slow_down())));
    cloud.put(300);
    let worker = cloud.start(&[]);
    wait_for("a commit", 30, || cloud.everything_is_committed());
    let names = || collector.metrics().keys().cloned().collect::<BTreeSet<String>>();
    let expected: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    cloud.put(50);
    wait_for("every metric", 30, || {
        cloud.put(20);
        pause(300);
        names().is_superset(&expected)
    });
    assert_eq!(names(), expected);
    let pushed = collector.metrics();
    for metric in METRICS {
        let (unit, series) = &pushed[metric.name];
        assert_eq!(unit, metric.unit, "{}", metric.name);
        let all: String = series.iter().map(String::as_str).collect();
        for attribute in metric.attributes {
            assert!(all.contains(&format!("key: \\\"{attribute}\\\"")), "{} lacks {attribute}", metric.name);
        }
    }
    let requests: String = pushed["shardlake.aws.requests"].1.iter().map(String::as_str).collect();
    for outcome in ["ok", "throttled"] {
        assert!(requests.contains(&format!("StringValue(\\\"{outcome}\\\")")), "{outcome}");
    }
    let resource = collector.resource();
    let of = |name: &str| resource.get(name).map(String::as_str);
    assert_eq!((of("service.name"), of("deployment.environment.name")), (Some("orders"), Some("test")));
    assert!(of("service.instance.id").is_some() && of("service.version").is_some());
    let export = &collector.exports()[0];
    assert_eq!(export.headers["content-type"], "application/x-protobuf");
    assert_eq!(export.headers["x-token"], "abc");
    assert!(!export.headers.contains_key("authorization"), "only requests to CloudWatch are signed");
    worker.stop();
    cloud.audit();
}

#[test]
fn reads_epochs_and_the_steps_of_a_commit_are_spans_whose_context_goes_with_requests() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    let collector = Collector::start(200);
    pushing(&mut cloud, &collector);
    let server: SocketAddr = cloud.url().trim_start_matches("http://").parse().unwrap();
    let tap = HeaderTap::to(server, "traceparent");
    cloud.folder.set("AWS_ENDPOINT_URL", &format!("http://{}", tap.address));
    cloud.put(50);
    let worker = cloud.start(&[]);
    wait_for("a commit", 30, || cloud.everything_is_committed());
    worker.stop();
    let spans = collector.spans();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let read = of("read");
    assert!(read.iter().any(|span| span.attributes["stream"] == "orders" && !span.attributes["shard"].is_empty()));
    let epochs = of("epoch");
    assert!(!epochs.is_empty() && epochs.iter().all(|span| span.attributes.contains_key("epoch")));
    for step in ["stage", "intent", "decide", "publish", "enter", "advance"] {
        let steps = of(step);
        assert!(!steps.is_empty(), "{step}");
        for span in steps {
            let parent = epochs.iter().find(|epoch| epoch.id == span.parent);
            assert!(parent.is_some_and(|epoch| epoch.trace == span.trace), "{step} belongs to an epoch");
        }
    }
    let known: BTreeSet<String> = spans.iter().map(|span| format!("00-{}-{}-01", span.trace, span.id)).collect();
    let seen: BTreeSet<String> = tap.seen().into_iter().collect();
    assert!(!seen.is_empty() && seen.is_subset(&known), "{seen:?} of {known:?}");
    let carried = |name: &str| of(name).iter().any(|span| seen.contains(&format!("00-{}-{}-01", span.trace, span.id)));
    // GetRecords, the uploads, the intent in S3, the decision and the advance in DynamoDB.
    for name in ["read", "epoch", "intent", "decide", "publish", "advance"] {
        assert!(carried(name), "{name}");
    }
    cloud.audit();
}

#[test]
fn pushes_to_cloudwatch_are_signed_for_the_service_of_the_host() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    let collector = Collector::start(200);
    let proxy = Proxy::to(collector.address);
    pushing(&mut cloud, &collector);
    cloud.folder.set("OTEL_EXPORTER_OTLP_ENDPOINT", "");
    cloud.folder.set("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://monitoring.eu-west-1.amazonaws.com/v1/metrics");
    cloud.folder.set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://xray.eu-west-1.amazonaws.com/v1/traces");
    cloud.folder.set("HTTP_PROXY", &proxy.url());
    cloud.folder.set("NO_PROXY", "127.0.0.1");
    cloud.put(20);
    let worker = cloud.start(&[]);
    let signed = |path: &str| {
        let exports = collector.exports();
        exports.into_iter().find(|export| export.target.ends_with(path))
    };
    wait_for("both signals", 30, || signed("/v1/metrics").is_some() && signed("/v1/traces").is_some());
    worker.stop();
    for (path, service) in [("/v1/metrics", "monitoring"), ("/v1/traces", "xray")] {
        let headers = signed(path).unwrap().headers;
        let authorization = &headers["authorization"];
        let scope = format!("/eu-west-1/{service}/aws4_request");
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=test/"), "{authorization}");
        assert!(authorization.contains(&scope) && authorization.contains("Signature="), "{authorization}");
        assert!(headers.contains_key("x-amz-date") && headers["content-type"] == "application/x-protobuf");
    }
}

#[test]
fn a_collector_that_is_down_is_logged_once_and_costs_no_record_and_no_time() {
    for target in [silent_server(), "127.0.0.1:9".parse().unwrap(), Collector::start(500).address] {
        let mut cloud = Cloud::without_roles(1, &Options::default());
        cloud.folder.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{target}"));
        cloud.folder.set("OTEL_EXPORTER_OTLP_TIMEOUT", "500");
        cloud.folder.set("OTEL_METRIC_EXPORT_INTERVAL", "200");
        cloud.folder.set("OTEL_BSP_SCHEDULE_DELAY", "200");
        cloud.put(100);
        let worker = cloud.start(&[]);
        wait_for("a commit", 20, || cloud.everything_is_committed());
        pause(2_000);
        let log = worker.log();
        let lines = log.lines().filter(|line| line.contains("pushing metrics fails; retrying")).count();
        assert_eq!(lines, 1, "{target}: {log}");
        let begun = Instant::now();
        worker.stop();
        assert!(begun.elapsed() < Duration::from_secs(9), "{target}: {:?}", begun.elapsed());
        cloud.audit();
    }
}

#[test]
fn variables_that_cannot_be_used_are_reported_before_anything_is_touched() {
    for (name, value, problem) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "only http/protobuf is supported"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "expected milliseconds"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "is not the URL of a collector"),
    ] {
        let mut cloud = Cloud::without_roles(1, &Options::default());
        cloud.folder.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        cloud.folder.set(name, value);
        let printed = cloud.folder.exits(2, &["run", "--until-caught-up"]);
        assert!(printed.contains(name) && printed.contains(problem), "{printed}");
        assert!(cloud.dynamodb.requests().is_empty());
    }
}

#[test]
fn lines_of_the_json_log_have_their_shard_their_epoch_and_their_trace() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    let collector = Collector::start(200);
    pushing(&mut cloud, &collector);
    cloud.put(50);
    let worker = cloud.start(&["--log-format", "json"]);
    wait_for("a commit", 30, || cloud.everything_is_committed());
    wait_for("the line", 10, || worker.log().contains("\"committed\""));
    let log = worker.log();
    worker.stop();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let committed = lines.iter().find(|line| line["fields"]["message"] == "committed").unwrap();
    assert!(committed["fields"]["epoch"].is_string() && committed["fields"]["records"].is_u64(), "{committed}");
    assert!(committed["timestamp"].is_string() && committed["level"] == "INFO" && committed["target"].is_string());
    let (trace, span) = (committed["trace_id"].as_str().unwrap(), committed["span_id"].as_str().unwrap());
    let epoch = collector.spans().into_iter().find(|found| found.name == "epoch" && found.id == span).unwrap();
    assert_eq!(
        (epoch.trace.as_str(), &epoch.attributes["epoch"]),
        (trace, &committed["fields"]["epoch"].as_str().unwrap().to_owned())
    );
}
