//! Listings, in pages: objects, uploads, parts.
//!
//! Owns: the order (bytes of keys; uploads of one key by age), common prefixes by a delimiter, continuing at a page. Does not own:
//! what is listed.
//!
//! Limits: 1,000 entries a page.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::{Refused, invalid_argument};
use super::multipart::upload;
use super::state::iso8601;
use super::xml::{tag, url_encode};
use super::{State, xml_answer};
use crate::http::{Request, Response};

const PAGE: usize = 1_000;
const NAMESPACE: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

fn parameter<'a>(request: &'a Request, name: &str) -> &'a str {
    request.query.get(name).map_or("", String::as_str)
}

fn page(state: &State, request: &Request, name: &str) -> Result<usize, Refused> {
    let most = state.page_max.unwrap_or(PAGE);
    match request.query.get(name) {
        None => Ok(most),
        Some(given) => given
            .parse::<usize>()
            .map(|given| given.min(most))
            .map_err(|_| invalid_argument(format!("Provided {name} not an integer or within integer range"))),
    }
}

/// A text of an answer, encoded if the request asks for it.
fn encoder(request: &Request) -> Result<impl Fn(&str) -> String, Refused> {
    let encode = match parameter(request, "encoding-type") {
        "" => false,
        "url" => true,
        _ => return Err(invalid_argument("Invalid Encoding Method specified in Request")),
    };
    Ok(move |text: &str| if encode { url_encode(text) } else { text.to_owned() })
}

/// ListObjectsV2.
pub(super) fn objects(state: &State, bucket: &str, request: &Request) -> Result<Response, Refused> {
    let objects = &state.bucket(bucket)?.objects;
    let (prefix, delimiter) = (parameter(request, "prefix"), parameter(request, "delimiter"));
    let most = page(state, request, "max-keys")?;
    let encoded = encoder(request)?;
    let token = parameter(request, "continuation-token");
    let after = if token.is_empty() {
        parameter(request, "start-after").to_owned()
    } else {
        let decoded = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.ok_or_else(|| invalid_argument("The continuation token provided is incorrect"))?
    };
    let (mut contents, mut folders) = (String::new(), BTreeSet::new());
    let (mut count, mut last, mut more) = (0, String::new(), false);
    for (key, object) in objects.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded)) {
        if !key.starts_with(prefix) {
            break;
        }
        let folder = (!delimiter.is_empty())
            .then(|| key[prefix.len()..].find(delimiter))
            .flatten()
            .map(|end| &key[..prefix.len() + end + delimiter.len()]);
        // A page that ended with a common prefix continues after all its keys.
        let entry = folder.unwrap_or(key);
        if entry <= after.as_str() || folders.contains(entry) {
            continue;
        }
        if count >= most {
            more = true;
            break;
        }
        count += 1;
        entry.clone_into(&mut last);
        if folder.is_some() {
            folders.insert(entry.to_owned());
            continue;
        }
        contents.push_str(&format!(
            "<Contents>{}{}{}{}{}{}{}</Contents>",
            tag("Key", &encoded(key)),
            tag("LastModified", &iso8601(object.modified_ms)),
            tag("ETag", &format!("\"{}\"", object.etag)),
            tag("ChecksumAlgorithm", object.checksum.0.name()),
            tag("ChecksumType", object.checksum.1.name()),
            tag("Size", &object.body.len().to_string()),
            tag("StorageClass", object.settings.storage_class()),
        ));
    }
    let more = more && most > 0;
    let mut body = format!(
        "<ListBucketResult {NAMESPACE}>{}{}{}{}{}",
        tag("Name", bucket),
        tag("Prefix", &encoded(prefix)),
        tag("KeyCount", &count.to_string()),
        tag("MaxKeys", &most.to_string()),
        tag("IsTruncated", if more { "true" } else { "false" }),
    );
    for (name, value) in [("Delimiter", delimiter), ("StartAfter", parameter(request, "start-after"))] {
        if !value.is_empty() {
            body.push_str(&tag(name, &encoded(value)));
        }
    }
    for (name, value) in [("EncodingType", parameter(request, "encoding-type")), ("ContinuationToken", token)] {
        if !value.is_empty() {
            body.push_str(&tag(name, value));
        }
    }
    if more {
        body.push_str(&tag("NextContinuationToken", &STANDARD.encode(&last)));
    }
    body.push_str(&contents);
    for folder in &folders {
        body.push_str(&format!("<CommonPrefixes>{}</CommonPrefixes>", tag("Prefix", &encoded(folder))));
    }
    body.push_str("</ListBucketResult>");
    Ok(xml_answer(&body))
}

/// ListMultipartUploads.
pub(super) fn uploads(state: &State, bucket: &str, request: &Request) -> Result<Response, Refused> {
    let uploads = &state.bucket(bucket)?.uploads;
    let prefix = parameter(request, "prefix");
    let most = page(state, request, "max-uploads")?;
    let encoded = encoder(request)?;
    let (key_marker, id_marker) = (parameter(request, "key-marker"), parameter(request, "upload-id-marker"));
    let mut found: Vec<_> = uploads.iter().map(|(id, upload)| (upload.key.as_str(), id.as_str(), upload)).collect();
    found.sort_by_key(|(key, id, _)| (*key, *id));
    found.retain(|(key, id, _)| {
        key.starts_with(prefix)
            && (*key > key_marker || (*key == key_marker && !id_marker.is_empty() && *id > id_marker))
    });
    let more = found.len() > most && most > 0;
    found.truncate(most);
    let mut body = format!(
        "<ListMultipartUploadsResult {NAMESPACE}>{}{}{}{}{}{}",
        tag("Bucket", bucket),
        tag("KeyMarker", &encoded(key_marker)),
        tag("UploadIdMarker", id_marker),
        tag("Prefix", &encoded(prefix)),
        tag("MaxUploads", &most.to_string()),
        tag("IsTruncated", if more { "true" } else { "false" }),
    );
    if let (true, Some((key, id, _))) = (more, found.last()) {
        body.push_str(&tag("NextKeyMarker", &encoded(key)));
        body.push_str(&tag("NextUploadIdMarker", id));
    }
    if !parameter(request, "encoding-type").is_empty() {
        body.push_str(&tag("EncodingType", parameter(request, "encoding-type")));
    }
    for (key, id, upload) in found {
        body.push_str(&format!(
            "<Upload>{}{}{}{}{}{}</Upload>",
            tag("Key", &encoded(key)),
            tag("UploadId", id),
            tag("Initiated", &iso8601(upload.begun_ms)),
            tag("StorageClass", upload.settings.storage_class()),
            tag("ChecksumAlgorithm", upload.algorithm.name()),
            tag("ChecksumType", upload.kind.name()),
        ));
    }
    body.push_str("</ListMultipartUploadsResult>");
    Ok(xml_answer(&body))
}

/// ListParts.
pub(super) fn parts(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    let most = page(state, request, "max-parts")?;
    let marker: u32 = match parameter(request, "part-number-marker") {
        "" => 0,
        given => given.parse().map_err(|_| invalid_argument("Provided part-number-marker not an integer"))?,
    };
    let upload = upload(state, bucket, key, request)?;
    let mut found: Vec<_> = upload.parts.range(marker.saturating_add(1)..).collect();
    let more = found.len() > most && most > 0;
    found.truncate(most);
    let last = found.last().map_or(0, |(number, _)| **number);
    let mut body = format!(
        "<ListPartsResult {NAMESPACE}>{}{}{}{}{}{}{}{}",
        tag("Bucket", bucket),
        tag("Key", key),
        tag("UploadId", parameter(request, "uploadId")),
        tag("StorageClass", upload.settings.storage_class()),
        tag("PartNumberMarker", &marker.to_string()),
        tag("NextPartNumberMarker", &last.to_string()),
        tag("MaxParts", &most.to_string()),
        tag("IsTruncated", if more { "true" } else { "false" }),
    );
    for (number, part) in found {
        body.push_str(&format!(
            "<Part>{}{}{}{}{}</Part>",
            tag("PartNumber", &number.to_string()),
            tag("LastModified", &iso8601(part.modified_ms)),
            tag("ETag", &format!("\"{}\"", part.etag)),
            tag("Size", &part.body.len().to_string()),
            tag(&format!("Checksum{}", part.checksum.0.name()), &part.checksum.1),
        ));
    }
    body.push_str(&format!(
        "{}{}</ListPartsResult>",
        tag("ChecksumAlgorithm", upload.algorithm.name()),
        tag("ChecksumType", upload.kind.name())
    ));
    Ok(xml_answer(&body))
}
