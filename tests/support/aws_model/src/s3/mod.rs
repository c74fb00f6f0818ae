//! A model of S3.
//!
//! Owns: the REST API with which Shardlake commits: objects, conditional writes, multipart uploads, listings, checksums, with AWS's
//! limits and errors, buckets in the path. It also has switches for what a test must cause: conflicts of conditional writes, uploads
//! that a lifecycle rule aborts, objects that somebody deletes. Does not own: transport and its faults (503, a lost reply),
//! signatures, policies, versions, Select.
//!
//! Every request is answered under one lock: every later read sees a write, whole or not at all.
//! The requests and the given clock determine everything that it does.

mod checksum;
mod error;
mod list;
mod multipart;
mod objects;
mod state;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::http::{Request, Response, Service};
use error::{Refused, no_such_bucket, not_implemented};
use state::Bucket;

pub(crate) use state::http_date;

/// The account that owns every bucket.
pub const ACCOUNT: &str = "000000000000";

/// The settings of a bucket that are kept as they were put: the name of the sub-resource, and the code of the answer where there is none.
const BUCKET_SETTINGS: [(&str, Option<&str>); 3] = [
    ("lifecycle", Some("NoSuchLifecycleConfiguration")),
    ("publicAccessBlock", Some("NoSuchPublicAccessBlockConfiguration")),
    // A bucket that never had versions answers with an empty document.
    ("versioning", None),
];

/// What a new bucket has.
const BLOCKS_PUBLIC_ACCESS: &str = "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls>\
    <IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy>\
    <RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>";

/// An S3; clones share it.
#[derive(Clone)]
pub struct S3 {
    state: Arc<Mutex<State>>,
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    now_ms: u64,
    buckets: BTreeMap<String, Bucket>,
    uploads_begun: u64,
    conditional_writes: u64,
    conflicts: BTreeSet<u64>,
    conflicts_end_uploads: bool,
    page_max: Option<usize>,
    region: Option<String>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").finish_non_exhaustive()
    }
}

impl S3 {
    /// An S3 without buckets; `now_ms` returns the milliseconds since 1970.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        S3 { state: Arc::default(), now_ms: Arc::new(now_ms) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now_ms = (self.now_ms)();
        state
    }

    /// Creates a bucket.
    ///
    /// # Panics
    /// If S3 would refuse it.
    pub fn create_bucket(&self, name: &str) {
        if let Err(refused) = self.lock().create_bucket(name) {
            panic!("the bucket '{name}' was not created: {refused:?}");
        }
    }

    /// Answers the `nth` conditional write from now on (the next is 1) with 409 `ConditionalRequestConflict`; nothing is
    /// written.
    pub fn conflict_with(&self, nth: u64) {
        let mut state = self.lock();
        let at = state.conditional_writes + nth;
        state.conflicts.insert(at);
    }

    /// Whether a completion that meets a conflict loses its upload. S3's guide says to start a new one after a conflict.
    pub fn set_conflicts_end_uploads(&self, end: bool) {
        self.lock().conflicts_end_uploads = end;
    }

    /// Sets `lifecycle`, `versioning` or `publicAccessBlock` of a bucket to this document; `None` removes it. Nothing is expired, moved or
    /// versioned by it: readers of the settings see it.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn set_bucket_setting(&self, bucket: &str, name: &str, document: Option<&str>) {
        let mut state = self.lock();
        let settings = &mut state.buckets.get_mut(bucket).expect("the bucket exists").settings;
        match document {
            Some(document) => drop(settings.insert(name.to_owned(), Bytes::from(document.to_owned()))),
            None => drop(settings.remove(name)),
        }
    }

    /// Puts all buckets into this region. Requests that are signed for another one are redirected.
    pub fn set_region(&self, region: &str) {
        self.lock().region = Some(region.to_owned());
    }

    /// Limits pages of listings to this number of entries, whatever the request says.
    pub fn set_page_max(&self, entries: Option<usize>) {
        self.lock().page_max = entries;
    }

    /// Aborts the uploads of a bucket that began before `before_ms`, as a lifecycle rule does. Returns how many there were.
    pub fn abort_uploads(&self, bucket: &str, before_ms: u64) -> usize {
        let mut state = self.lock();
        let Some(bucket) = state.buckets.get_mut(bucket) else { return 0 };
        let count = bucket.uploads.len();
        bucket.uploads.retain(|_, upload| upload.begun_ms >= before_ms);
        count - bucket.uploads.len()
    }

    /// Writes an object, as another program does.
    ///
    /// # Panics
    /// If S3 would refuse it.
    pub fn put_object(&self, bucket: &str, key: &str, body: impl Into<Bytes>) {
        let request = Request {
            method: "PUT".to_owned(),
            path: format!("/{bucket}/{key}"),
            query: BTreeMap::new(),
            headers: BTreeMap::new(),
            body: body.into(),
        };
        if let Err(refused) = objects::put(&mut self.lock(), bucket, key, &request) {
            panic!("the object '{key}' was not written: {refused:?}");
        }
    }

    /// Deletes an object, as a user with that permission might. Returns whether there was one.
    pub fn remove_object(&self, bucket: &str, key: &str) -> bool {
        let mut state = self.lock();
        state.buckets.get_mut(bucket).is_some_and(|bucket| bucket.objects.remove(key).is_some())
    }

    /// Says that an object was written at another time. Returns whether there is one.
    pub fn set_modified_ms(&self, bucket: &str, key: &str, ms: u64) -> bool {
        let mut state = self.lock();
        let object = state.buckets.get_mut(bucket).and_then(|bucket| bucket.objects.get_mut(key));
        object.map(|object| object.modified_ms = ms).is_some()
    }

    /// The bytes of an object.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        Some(self.lock().buckets.get(bucket)?.objects.get(key)?.body.clone())
    }

    /// The keys of a bucket's objects, in order.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.lock().buckets.get(bucket).map(|bucket| bucket.objects.keys().cloned().collect()).unwrap_or_default()
    }

    /// Keys and ids of a bucket's uploads, in the order in which they began.
    pub fn uploads(&self, bucket: &str) -> Vec<(String, String)> {
        let state = self.lock();
        let uploads = state.buckets.get(bucket).map(|bucket| &bucket.uploads);
        uploads.into_iter().flatten().map(|(id, upload)| (upload.key.clone(), id.clone())).collect()
    }

    fn operate(&self, request: &Request) -> Result<Response, Refused> {
        let mut state = self.lock();
        let state = &mut *state;
        let path = request.path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if let Some(owner) = request.headers.get("x-amz-expected-bucket-owner")
            && owner != ACCOUNT
        {
            return Err(Refused::new(403, "AccessDenied", "Access Denied"));
        }
        let signed_for = request.headers.get("authorization").and_then(|signature| signature.split('/').nth(2));
        if let Some(region) = state.region.as_deref().filter(|region| signed_for != Some(region)) {
            let message = "The bucket you are attempting to access must be addressed using the specified endpoint.";
            return Err(Refused::new(301, "PermanentRedirect", message).with_header("x-amz-bucket-region", region));
        }
        let has = |name: &str| request.query.contains_key(name);
        if key.is_empty() {
            return match request.method.as_str() {
                _ if bucket.is_empty() => Err(not_implemented()),
                "PUT" if only_id(request) => state.create_bucket(bucket),
                "HEAD" => state.bucket(bucket).map(|_| {
                    let region = state.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
                    answer(200, vec![("x-amz-bucket-region".to_owned(), region)], Bytes::new())
                }),
                "DELETE" if only_id(request) => state.delete_bucket(bucket),
                "GET" if has("uploads") => list::uploads(state, bucket, request),
                "GET" if request.query.get("list-type").is_some_and(|kind| kind == "2") => {
                    list::objects(state, bucket, request)
                }
                "POST" if has("delete") => objects::delete_many(state, bucket, request),
                method => match BUCKET_SETTINGS.iter().find(|(name, ..)| has(name)) {
                    Some((name, absent)) => state.bucket_setting(method, bucket, name, *absent, request),
                    None => Err(not_implemented()),
                },
            };
        }
        match request.method.as_str() {
            "PUT" if has("uploadId") && request.headers.contains_key("x-amz-copy-source") => {
                multipart::copied_part(state, bucket, key, request)
            }
            "PUT" if has("uploadId") => multipart::part(state, bucket, key, request),
            "PUT" if has("tagging") => objects::put_tags(state, bucket, key, request),
            "PUT" if request.headers.contains_key("x-amz-copy-source") => objects::copy(state, bucket, key, request),
            "PUT" if only_id(request) => objects::put(state, bucket, key, request),
            "GET" if has("uploadId") => list::parts(state, bucket, key, request),
            "GET" if has("tagging") => objects::get_tags(state, bucket, key),
            "GET" | "HEAD" if !has("attributes") && !has("acl") => objects::get(state, bucket, key, request),
            "POST" if has("uploads") => multipart::begin(state, bucket, key, request),
            "POST" if has("uploadId") => multipart::complete(state, bucket, key, request),
            "DELETE" if has("uploadId") => multipart::abort(state, bucket, key, request),
            "DELETE" if only_id(request) => objects::delete(state, bucket, key, request),
            _ => Err(not_implemented()),
        }
    }
}

/// Whether the query names no sub-resource; the SDK adds `x-id` with the name of the operation.
fn only_id(request: &Request) -> bool {
    request.query.keys().all(|name| name == "x-id")
}

impl Service for S3 {
    fn answer(&self, request: &Request) -> Response {
        let mut response = self.operate(request).unwrap_or_else(|refused| refused.response(request.method == "HEAD"));
        response.headers.push(("x-amz-request-id".to_owned(), "0000000000000000".to_owned()));
        response
    }
}

impl State {
    fn bucket(&self, name: &str) -> Result<&Bucket, Refused> {
        self.buckets.get(name).ok_or_else(|| no_such_bucket(name))
    }

    fn bucket_mut(&mut self, name: &str) -> Result<&mut Bucket, Refused> {
        self.buckets.get_mut(name).ok_or_else(|| no_such_bucket(name))
    }

    /// Counts a conditional write, and returns whether it meets a conflict.
    fn conditional_conflicts(&mut self) -> bool {
        self.conditional_writes += 1;
        self.conflicts.remove(&self.conditional_writes)
    }

    fn create_bucket(&mut self, name: &str) -> Result<Response, Refused> {
        let good = (3..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
            && !name.starts_with(['-', '.'])
            && !name.ends_with(['-', '.']);
        if !good {
            return Err(
                Refused::new(400, "InvalidBucketName", "The specified bucket is not valid.").with("BucketName", name)
            );
        }
        if self.buckets.contains_key(name) {
            return Err(Refused::new(
                409,
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
            )
            .with("BucketName", name));
        }
        let mut bucket = Bucket::default();
        bucket.settings.insert("publicAccessBlock".to_owned(), Bytes::from(BLOCKS_PUBLIC_ACCESS));
        self.buckets.insert(name.to_owned(), bucket);
        Ok(answer(200, vec![("Location".to_owned(), format!("/{name}"))], Bytes::new()))
    }

    /// Reads, replaces or removes a setting of a bucket.
    fn bucket_setting(
        &mut self,
        method: &str,
        bucket: &str,
        name: &str,
        absent: Option<&'static str>,
        request: &Request,
    ) -> Result<Response, Refused> {
        let settings = &mut self.bucket_mut(bucket)?.settings;
        match method {
            "GET" => match (settings.get(name), absent) {
                (Some(document), _) => Ok(xml_answer(&String::from_utf8_lossy(document))),
                (None, None) => Ok(xml_answer("<VersioningConfiguration/>")),
                (None, Some(code)) => {
                    Err(Refused::new(404, code, "The configuration does not exist").with("BucketName", bucket))
                }
            },
            "PUT" => {
                let text = std::str::from_utf8(&request.body).ok();
                let document =
                    text.filter(|text| xml::Element::parse(text).is_some()).ok_or_else(error::malformed_xml)?;
                // The answer has a declaration of its own.
                let document = document.split_once("?>").map_or(document, |(_, rest)| rest.trim_start());
                settings.insert(name.to_owned(), Bytes::from(document.to_owned()));
                Ok(answer(200, Vec::new(), Bytes::new()))
            }
            "DELETE" => {
                settings.remove(name);
                Ok(answer(204, Vec::new(), Bytes::new()))
            }
            _ => Err(not_implemented()),
        }
    }

    fn delete_bucket(&mut self, name: &str) -> Result<Response, Refused> {
        if !self.bucket(name)?.objects.is_empty() {
            return Err(Refused::new(409, "BucketNotEmpty", "The bucket you tried to delete is not empty")
                .with("BucketName", name));
        }
        self.buckets.remove(name);
        Ok(answer(204, Vec::new(), Bytes::new()))
    }
}

fn answer(status: u16, headers: Vec<(String, String)>, body: Bytes) -> Response {
    Response { status, headers, body }
}

fn xml_answer(body: &str) -> Response {
    let body = Bytes::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"));
    answer(200, vec![("Content-Type".to_owned(), "application/xml".to_owned())], body)
}
