//! The way to AWS: proxies, private certificates, endpoints by a profile, settings that are missing.

use std::net::SocketAddr;

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX, TABLE};
use crate::common::network::{CA, HOST, Proxy, silent_server, tls_to};
use crate::common::services::KEY;
use crate::common::{pause, wait_for};

/// The address of the services.
fn address(cloud: &Cloud) -> SocketAddr {
    cloud.url().trim_start_matches("http://").parse().unwrap()
}

/// A cloud that is only reached by the name of a host that does not exist, through a proxy.
fn behind_a_proxy(endpoint: &str, variable: &str, server: impl FnOnce(SocketAddr) -> SocketAddr) -> (Cloud, Proxy) {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    let proxy = Proxy::to(server(address(&cloud)));
    cloud.folder.set("AWS_ENDPOINT_URL", endpoint);
    cloud.folder.set(variable, &proxy.url());
    (cloud, proxy)
}

#[test]
fn requests_go_through_the_proxy_of_the_environment() {
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let (cloud, proxy) = behind_a_proxy(&format!("http://{HOST}:8000"), variable, |server| server);
        cloud.put(20);
        assert_eq!(cloud.catch_up()["ok"], true, "{variable}");
        assert!(cloud.everything_is_committed());
        let asked = proxy.asked();
        assert!(asked.iter().all(|line| line.contains(&format!(" http://{HOST}:8000/"))), "{variable}: {asked:?}");
        assert!(!asked.is_empty(), "{variable}");
    }
}

#[test]
fn requests_over_tls_go_through_a_tunnel_under_the_certificates_of_the_bundle() {
    for variable in ["HTTPS_PROXY", "all_proxy"] {
        let (mut cloud, proxy) = behind_a_proxy(&format!("https://{HOST}"), variable, tls_to);
        cloud.folder.write("ca.pem", CA);
        cloud.folder.set("AWS_CA_BUNDLE", "ca.pem");
        cloud.put(20);
        assert_eq!(cloud.catch_up()["ok"], true, "{variable}");
        assert!(cloud.everything_is_committed());
        let asked = proxy.asked();
        assert!(asked.iter().all(|line| *line == format!("CONNECT {HOST}:443")), "{variable}: {asked:?}");
        assert!(!asked.is_empty(), "{variable}");
    }
}

#[test]
fn no_proxy_and_the_credentials_of_a_container_bypass_the_proxy() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    let proxy = Proxy::to(silent_server());
    cloud.folder.set("HTTP_PROXY", &proxy.url());
    cloud.folder.set("NO_PROXY", "example.com,127.0.0.1");
    cloud.put(20);
    assert_eq!(cloud.catch_up()["ok"], true);
    assert_eq!(proxy.asked(), Vec::<String>::new());

    // Without NO_PROXY the services are behind the proxy, and the credentials are not.
    let credentials = Proxy::to(silent_server());
    cloud.folder.set("NO_PROXY", "");
    cloud.folder.set("AWS_ACCESS_KEY_ID", "");
    cloud.folder.set("AWS_SECRET_ACCESS_KEY", "");
    cloud.folder.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/credentials", credentials.url()));
    let mut worker = cloud.start(&["--until-caught-up"]);
    wait_for("a request for credentials", 10, || !credentials.asked().is_empty());
    assert_eq!(credentials.asked()[0], "GET /credentials", "it is sent to the container itself");
    assert_eq!(proxy.asked(), Vec::<String>::new());
    worker.signal("TERM");
    assert_eq!(worker.wait(5).code(), Some(0), "{}", worker.log());
}

#[test]
fn a_proxy_or_a_bundle_that_cannot_be_used_is_reported_before_anything_is_touched() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    cloud.folder.set("HTTPS_PROXY", "socks5://me:hush@proxy:1080");
    let printed = cloud.folder.exits(2, &["run", "--until-caught-up"]);
    assert!(printed.contains("HTTPS_PROXY names a proxy that is not http:// or https://"), "{printed}");
    assert!(!printed.contains("hush"));
    cloud.folder.set("HTTPS_PROXY", "");
    cloud.folder.write("no.pem", "hello");
    for (bundle, problem) in [("none.pem", "No such file"), ("no.pem", "has no certificates")] {
        cloud.folder.set("AWS_CA_BUNDLE", bundle);
        let printed = cloud.folder.exits(2, &["run", "--until-caught-up"]);
        assert!(
            printed.contains("AWS_CA_BUNDLE") && printed.contains(bundle) && printed.contains(problem),
            "{printed}"
        );
        cloud.folder.exits(2, &["config", "check"]);
    }
    assert!(cloud.faults.calls().is_empty());
}

#[test]
fn the_bundle_counts_instead_of_the_system_certificates_and_the_profile_may_name_it() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    let tls = tls_to(address(&cloud));
    cloud.folder.set("AWS_ENDPOINT_URL", &format!("https://{tls}"));
    cloud.folder.write("ca.pem", CA);
    cloud.folder.write("config", format!("[profile private]\nca_bundle = {}\n", cloud.folder.path("ca.pem").display()));
    cloud.folder.set("AWS_CONFIG_FILE", "config");
    cloud.folder.set("AWS_PROFILE", "private");
    cloud.put(20);
    assert_eq!(cloud.catch_up()["ok"], true);
    assert!(cloud.everything_is_committed());
}

#[test]
fn a_bucket_is_in_the_path_where_a_profile_or_the_configuration_names_the_endpoint() {
    for by_profile in [true, false] {
        let mut cloud = Cloud::without_roles(1, &Options::default());
        // A name, since with an address the SDK has the bucket in the path anyway.
        let endpoint = format!("http://localhost:{}", address(&cloud).port());
        cloud.folder.set("AWS_ENDPOINT_URL_KINESIS", &cloud.url());
        cloud.folder.set("AWS_ENDPOINT_URL_DYNAMODB", &cloud.url());
        cloud.folder.unset("AWS_ENDPOINT_URL");
        if by_profile {
            cloud.folder.write(
                "config",
                format!("[profile own]\nservices = own\n[services own]\ns3 =\n  endpoint_url = {endpoint}\n"),
            );
            cloud.folder.set("AWS_CONFIG_FILE", "config");
            cloud.folder.set("AWS_PROFILE", "own");
        } else {
            cloud.folder.write(
                "shardlake.toml",
                format!(
                    "[[source]]\nurl = \"kinesis://orders\"\n[lake]\nurl = \"s3://{BUCKET}/{PREFIX}\"\nendpoint = \"{endpoint}\"\n\
                     [checkpoints]\nurl = \"dynamodb://{TABLE}\"\n[anonymize]\nkey = \"env:{KEY}\"\n[limits]\nthreads = 1\n"
                ),
            );
        }
        cloud.put(20);
        assert_eq!(cloud.catch_up()["ok"], true, "by profile: {by_profile}");
        assert!(cloud.everything_is_committed());
    }
}

#[test]
fn without_a_region_every_command_names_the_variable() {
    let mut cloud = Cloud::without_roles(1, &Options::default());
    cloud.folder.unset("AWS_REGION");
    for command in [&["run", "--until-caught-up"][..], &["verify"], &["status"], &["leases", "list"], &["init"]] {
        let printed = cloud.folder.exits(1, command);
        assert!(printed.contains("no AWS region is set: set AWS_REGION"), "{command:?}: {printed}");
    }
    let printed = cloud.folder.exits(2, &["config", "check"]);
    assert!(printed.contains("no AWS region is set: set AWS_REGION"), "{printed}");
}

#[test]
fn a_stop_is_obeyed_while_a_service_hangs_at_the_start() {
    let silent = format!("http://{}", silent_server());
    let role = "role_arn = \"arn:aws:iam::222222222222:role/reader\"".to_owned();
    let secret = "secretsmanager:arn:aws:secretsmanager:us-east-1:222222222222:secret:key";
    for variable in ["SECRETS_MANAGER", "STS", "S3", "DYNAMODB", "KINESIS"] {
        let mut cloud = Cloud::without_roles(1, &Options { source: role.clone(), ..Options::default() });
        if variable == "SECRETS_MANAGER" {
            let path = cloud.folder.path("shardlake.toml");
            let text = std::fs::read_to_string(&path).unwrap().replace(&format!("env:{KEY}"), secret);
            cloud.folder.write("shardlake.toml", text);
        }
        cloud.folder.set(&format!("AWS_ENDPOINT_URL_{variable}"), &silent);
        let mut worker = cloud.start(&[]);
        pause(1500);
        assert_eq!(worker.exit_status(), None, "{variable}: {}", worker.log());
        worker.signal("TERM");
        assert_eq!(worker.wait(3).code(), Some(0), "{variable}: {}", worker.log());
    }
}
