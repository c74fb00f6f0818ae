//! Single objects: put, get, head, delete, copy, tags.
//!
//! Owns: conditional writes, ranges, the headers of an object. Does not own: uploads, listings.
//!
//! Limits: 5 GB in a put (not reached in memory), keys of 1,024 bytes, 1,000 keys in a DeleteObjects.

use bytes::Bytes;

use super::checksum::{Algorithm, md5, verify};
use super::error::{
    Refused, conflict, invalid_request, malformed_xml, no_such_key, not_implemented, precondition_failed,
};
use super::state::{Bucket, ChecksumType, Object, Settings, check_tags, http_date, iso8601};
use super::xml::{Element, tag, url_decode};
use super::{State, answer, xml_answer};
use crate::http::{Request, Response};

/// Checks `If-None-Match` and `If-Match` of a write.
pub(super) fn conditions(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<(), Refused> {
    let (none_match, matches) = (request.headers.get("if-none-match"), request.headers.get("if-match"));
    if none_match.is_none() && matches.is_none() {
        return Ok(());
    }
    if none_match.is_some_and(|etag| etag != "*") || (none_match.is_some() && matches.is_some()) {
        return Err(not_implemented());
    }
    if state.conditional_conflicts() {
        return Err(conflict(key));
    }
    let there = state.bucket(bucket)?.objects.get(key);
    match (matches, there) {
        (None, Some(_)) => Err(precondition_failed("If-None-Match")),
        (None, None) => Ok(()),
        (Some(_), None) => Err(no_such_key(key)),
        (Some(etag), Some(object)) if etag.trim_matches('"') == object.etag => Ok(()),
        (Some(_), Some(_)) => Err(precondition_failed("If-Match")),
    }
}

pub(super) fn check_key(key: &str) -> Result<(), Refused> {
    if key.len() > 1024 {
        return Err(Refused::new(400, "KeyTooLongError", "Your key is too long"));
    }
    Ok(())
}

/// The headers in the answer to a write.
pub(super) fn written(object: &Object) -> Vec<(String, String)> {
    let (algorithm, kind, value) = &object.checksum;
    let mut headers = vec![
        ("ETag".to_owned(), format!("\"{}\"", object.etag)),
        (algorithm.header(), value.clone()),
        ("x-amz-checksum-type".to_owned(), kind.name().to_owned()),
    ];
    headers.extend(object.settings.encryption());
    headers
}

/// PutObject.
pub(super) fn put(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    state.bucket(bucket)?;
    check_key(key)?;
    let claim = verify(request)?;
    let settings = Settings::of(request)?;
    conditions(state, bucket, key, request)?;
    let algorithm = claim.map_or(Algorithm::Crc64Nvme, |(algorithm, _)| algorithm);
    let object = Object {
        etag: settings.etag(&md5(&request.body)),
        checksum: (algorithm, ChecksumType::FullObject, algorithm.text(&request.body)),
        body: request.body.clone(),
        modified_ms: state.now_ms,
        settings,
        parts: None,
    };
    let headers = written(&object);
    state.bucket_mut(bucket)?.objects.insert(key.to_owned(), object);
    Ok(answer(200, headers, Bytes::new()))
}

/// GetObject and HeadObject.
pub(super) fn get(state: &State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    let object = state.bucket(bucket)?.objects.get(key).ok_or_else(|| no_such_key(key))?;
    let is = |header: &str| {
        let etags = request.headers.get(header)?;
        Some(etags.split(',').any(|etag| etag.trim() == "*" || etag.trim().trim_matches('"') == object.etag))
    };
    if is("if-match") == Some(false) {
        return Err(precondition_failed("If-Match"));
    }
    if is("if-none-match") == Some(true) {
        return Err(Refused::new(304, "NotModified", "Not Modified"));
    }
    let head = request.method == "HEAD";
    if !head && matches!(object.settings.storage_class(), "GLACIER" | "DEEP_ARCHIVE") {
        return Err(Refused::new(
            403,
            "InvalidObjectState",
            "The operation is not valid for the object's storage class",
        )
        .with("StorageClass", object.settings.storage_class()));
    }
    let total = object.body.len();
    let range = request.headers.get("range").map(|range| byte_range(range, total)).transpose()?.flatten();
    let mut headers = vec![
        ("ETag".to_owned(), format!("\"{}\"", object.etag)),
        ("Last-Modified".to_owned(), http_date(object.modified_ms)),
        ("Accept-Ranges".to_owned(), "bytes".to_owned()),
    ];
    for (name, value) in &object.settings.headers {
        let standard = name == "x-amz-storage-class" && value == "STANDARD";
        if !standard && !name.ends_with("-context") {
            headers.push((name.clone(), value.clone()));
        }
    }
    if !object.settings.headers.contains_key("content-type") {
        headers.push(("Content-Type".to_owned(), "binary/octet-stream".to_owned()));
    }
    if !object.settings.tags.is_empty() {
        headers.push(("x-amz-tagging-count".to_owned(), object.settings.tags.len().to_string()));
    }
    if let Some(parts) = object.parts.filter(|_| request.query.contains_key("partNumber")) {
        headers.push(("x-amz-mp-parts-count".to_owned(), parts.to_string()));
    }
    let mode = request.headers.get("x-amz-checksum-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED"));
    if mode && range.is_none() {
        let (algorithm, kind, value) = &object.checksum;
        headers.push((algorithm.header(), value.clone()));
        headers.push(("x-amz-checksum-type".to_owned(), kind.name().to_owned()));
    }
    let (status, body) = match range {
        None => (200, object.body.clone()),
        Some((first, last)) => {
            headers.push(("Content-Range".to_owned(), format!("bytes {first}-{last}/{total}")));
            (206, object.body.slice(first..=last))
        }
    };
    if head {
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
        return Ok(answer(status, headers, Bytes::new()));
    }
    Ok(answer(status, headers, body))
}

/// `bytes=1-2`, `bytes=1-`, `bytes=-2`: first and last byte; `None` for any other text, which S3 ignores.
fn byte_range(range: &str, total: usize) -> Result<Option<(usize, usize)>, Refused> {
    let unsatisfiable =
        || Refused::new(416, "InvalidRange", "The requested range is not satisfiable").with("RangeRequested", range);
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Ok(None);
    };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) if first > last => Ok(None),
        (Ok(first), Ok(last)) if first < total => Ok(Some((first, last.min(total - 1)))),
        (Ok(first), Err(_)) if last.is_empty() && first < total => Ok(Some((first, total - 1))),
        (Err(_), Ok(length)) if first.is_empty() && length > 0 && total > 0 => {
            Ok(Some((total - length.min(total), total - 1)))
        }
        (Ok(_), Ok(_)) => Err(unsatisfiable()),
        (Ok(_), Err(_)) if last.is_empty() => Err(unsatisfiable()),
        (Err(_), Ok(_)) if first.is_empty() => Err(unsatisfiable()),
        _ => Ok(None),
    }
}

/// DeleteObject: succeeds whether there was one or not.
pub(super) fn delete(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    let bucket = state.bucket_mut(bucket)?;
    match (request.headers.get("if-match"), bucket.objects.get(key)) {
        (Some(etag), Some(object)) if etag != "*" && etag.trim_matches('"') != object.etag => {
            return Err(precondition_failed("If-Match"));
        }
        (Some(_), None) => return Err(no_such_key(key)),
        _ => {}
    }
    bucket.objects.remove(key);
    Ok(answer(204, Vec::new(), Bytes::new()))
}

/// DeleteObjects.
pub(super) fn delete_many(state: &mut State, bucket: &str, request: &Request) -> Result<Response, Refused> {
    let claim = verify(request)?;
    if claim.is_none() && !request.headers.contains_key("content-md5") {
        return Err(invalid_request("Missing required header for this request: Content-MD5 OR x-amz-checksum-*"));
    }
    let document = std::str::from_utf8(&request.body).ok().and_then(Element::parse);
    let document = document.filter(|document| document.name == "Delete").ok_or_else(malformed_xml)?;
    let keys: Vec<&str> =
        document.all("Object").map(|object| object.child("Key").ok_or_else(malformed_xml)).collect::<Result<_, _>>()?;
    if !(1..=1000).contains(&keys.len()) {
        return Err(malformed_xml());
    }
    let quiet = document.child("Quiet") == Some("true");
    let bucket = state.bucket_mut(bucket)?;
    let mut body = String::from("<DeleteResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for key in keys {
        bucket.objects.remove(key);
        if !quiet {
            body.push_str(&format!("<Deleted>{}</Deleted>", tag("Key", key)));
        }
    }
    body.push_str("</DeleteResult>");
    Ok(xml_answer(&body))
}

/// The bucket and the key of the object that a request copies.
fn source_name(request: &Request) -> Result<(String, String), Refused> {
    let source = request.headers.get("x-amz-copy-source").map_or("", String::as_str);
    let source = url_decode(source.trim_start_matches('/')).unwrap_or_default();
    let (bucket, key) = source.split_once('/').ok_or_else(|| {
        super::error::invalid_argument("Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
    })?;
    Ok((bucket.to_owned(), key.to_owned()))
}

/// The object that a request copies.
pub(super) fn source<'s>(state: &'s State, request: &Request) -> Result<&'s Object, Refused> {
    let (bucket, key) = source_name(request)?;
    state.bucket(&bucket)?.objects.get(&key).ok_or_else(|| no_such_key(&key))
}

/// CopyObject.
pub(super) fn copy(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    check_key(key)?;
    let (from_bucket, from_key) = source_name(request)?;
    let (from_bucket, from_key) = (from_bucket.as_str(), from_key.as_str());
    let object = source(state, request)?.clone();
    let etag = |header: &str| request.headers.get(header).map(|etag| etag.trim_matches('"') == object.etag);
    if etag("x-amz-copy-source-if-match") == Some(false) || etag("x-amz-copy-source-if-none-match") == Some(true) {
        return Err(precondition_failed("x-amz-copy-source-If-Match"));
    }
    let directive = |header: &str| request.headers.get(header).is_some_and(|directive| directive == "REPLACE");
    let asked = Settings::of(request)?;
    let mut settings = if directive("x-amz-metadata-directive") {
        Settings { tags: object.settings.tags.clone(), ..asked.clone() }
    } else {
        let mut kept = object.settings.clone();
        // The copy has a storage class and encryption of its own.
        kept.headers
            .retain(|name, _| name != "x-amz-storage-class" && !name.starts_with("x-amz-server-side-encryption"));
        let own = asked
            .headers
            .iter()
            .filter(|(name, _)| *name == "x-amz-storage-class" || name.starts_with("x-amz-server-side-encryption"));
        kept.headers.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        kept
    };
    if directive("x-amz-tagging-directive") {
        settings.tags = asked.tags;
    }
    if (from_bucket, from_key) == (bucket, key) && settings == object.settings {
        return Err(invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's \
             metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    state.bucket(bucket)?;
    conditions(state, bucket, key, request)?;
    let (algorithm, kind, value) = &object.checksum;
    // A copy has one part, and a checksum of all its bytes.
    let checksum = match kind {
        ChecksumType::FullObject => (*algorithm, *kind, value.clone()),
        ChecksumType::Composite => (*algorithm, ChecksumType::FullObject, algorithm.text(&object.body)),
    };
    let copied = Object {
        etag: settings.etag(&md5(&object.body)),
        modified_ms: state.now_ms,
        checksum,
        settings,
        parts: None,
        body: object.body,
    };
    let body = format!(
        "<CopyObjectResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}{}{}</CopyObjectResult>",
        tag("LastModified", &iso8601(copied.modified_ms)),
        tag("ETag", &format!("\"{}\"", copied.etag)),
        tag(&format!("Checksum{}", copied.checksum.0.name()), &copied.checksum.2),
        tag("ChecksumType", copied.checksum.1.name()),
    );
    state.bucket_mut(bucket)?.objects.insert(key.to_owned(), copied);
    Ok(xml_answer(&body))
}

fn object<'a>(bucket: &'a mut Bucket, key: &str) -> Result<&'a mut Object, Refused> {
    bucket.objects.get_mut(key).ok_or_else(|| no_such_key(key))
}

/// GetObjectTagging.
pub(super) fn get_tags(state: &mut State, bucket: &str, key: &str) -> Result<Response, Refused> {
    let object = object(state.bucket_mut(bucket)?, key)?;
    let tags = object.settings.tags.iter();
    let tags: String =
        tags.map(|(name, value)| format!("<Tag>{}{}</Tag>", tag("Key", name), tag("Value", value))).collect();
    Ok(xml_answer(&format!(
        "<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>{tags}</TagSet></Tagging>"
    )))
}

/// PutObjectTagging.
pub(super) fn put_tags(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    verify(request)?;
    let document = std::str::from_utf8(&request.body).ok().and_then(Element::parse).ok_or_else(malformed_xml)?;
    let mut tags = Vec::new();
    for entry in document.all("TagSet").flat_map(|set| set.all("Tag")) {
        let name = entry.child("Key").ok_or_else(malformed_xml)?;
        tags.push((name.to_owned(), entry.child("Value").unwrap_or_default().to_owned()));
    }
    check_tags(&tags)?;
    object(state.bucket_mut(bucket)?, key)?.settings.tags = tags;
    Ok(answer(200, Vec::new(), Bytes::new()))
}
