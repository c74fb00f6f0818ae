//! Multipart uploads: begin, parts, complete, abort.
//!
//! Owns: that nothing of an upload is visible until it is completed, that completing is atomic and ends the upload, and what is
//! refused: parts that are missing, changed, out of order or too small. A completion that is refused leaves the upload as it
//! was. A completed or aborted upload is unknown: completing it again is `NoSuchUpload`. Does not own: listings.
//!
//! Limits: parts 1 to 10,000; 5 MiB each but for the last.

use bytes::{Bytes, BytesMut};

use super::checksum::{claimed, md5, verify};
use super::error::{Refused, invalid_argument, invalid_request, malformed_xml, no_such_upload};
use super::objects::{check_key, conditions, source, written};
use super::state::{ChecksumType, Object, Part, Upload, iso8601};
use super::xml::{Element, tag};
use super::{State, answer, xml_answer};
use crate::http::{Request, Response};

const PART_BYTES_MIN: usize = 5 * 1024 * 1024;

/// CreateMultipartUpload.
pub(super) fn begin(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    state.bucket(bucket)?;
    check_key(key)?;
    let upload = Upload::of(request, key, state.now_ms)?;
    state.uploads_begun += 1;
    let id = format!("upload-{:016}", state.uploads_begun);
    let mut headers: Vec<(String, String)> = upload.settings.encryption().collect();
    if upload.named {
        headers.push(("x-amz-checksum-algorithm".to_owned(), upload.algorithm.name().to_owned()));
        headers.push(("x-amz-checksum-type".to_owned(), upload.kind.name().to_owned()));
    }
    state.bucket_mut(bucket)?.uploads.insert(id.clone(), upload);
    let mut response = xml_answer(&format!(
        "<InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}{}\
         </InitiateMultipartUploadResult>",
        tag("Bucket", bucket),
        tag("Key", key),
        tag("UploadId", &id)
    ));
    response.headers.extend(headers);
    Ok(response)
}

fn id(request: &Request) -> &str {
    request.query.get("uploadId").map_or("", String::as_str)
}

/// The upload of a request, if it is for this key.
pub(super) fn upload<'a>(
    state: &'a mut State,
    bucket: &str,
    key: &str,
    request: &Request,
) -> Result<&'a mut Upload, Refused> {
    let upload = state.bucket_mut(bucket)?.uploads.get_mut(id(request)).filter(|upload| upload.key == key);
    upload.ok_or_else(|| no_such_upload(id(request)))
}

fn part_number(request: &Request) -> Result<u32, Refused> {
    let number: Option<u32> = request.query.get("partNumber").and_then(|number| number.parse().ok());
    number
        .filter(|number| (1..=10_000).contains(number))
        .ok_or_else(|| invalid_argument("Part number must be an integer between 1 and 10000, inclusive"))
}

/// UploadPartCopy. Of a range, both ends are named, as in `bytes=0-9`; S3 refuses a range of an object of 5 MiB or less.
pub(super) fn copied_part(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    let number = part_number(request)?;
    let (now_ms, source) = (state.now_ms, source(state, request)?.body.clone());
    let body = match request.headers.get("x-amz-copy-source-range") {
        None => source,
        Some(range) => {
            let ends = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
            let ends = ends.and_then(|(first, last)| Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?)));
            let ends = ends.filter(|(first, last)| first <= last && *last < source.len());
            let (first, last) = ends.filter(|_| source.len() > PART_BYTES_MIN).ok_or_else(|| {
                invalid_argument("The x-amz-copy-source-range value must be of the form bytes=first-last")
            })?;
            source.slice(first..=last)
        }
    };
    let upload = upload(state, bucket, key, request)?;
    let sum = md5(&body);
    let checksum = (upload.algorithm, upload.algorithm.text(&body));
    let part = Part { etag: upload.settings.etag(&sum), sum, checksum, body, modified_ms: now_ms };
    let body = format!(
        "<CopyPartResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}</CopyPartResult>",
        tag("LastModified", &iso8601(now_ms)),
        tag("ETag", &format!("\"{}\"", part.etag)),
    );
    upload.parts.insert(number, part);
    Ok(xml_answer(&body))
}

/// UploadPart. It replaces an existing part.
pub(super) fn part(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    let number = part_number(request)?;
    let now_ms = state.now_ms;
    let upload = upload(state, bucket, key, request)?;
    let claim = verify(request)?;
    let other = claim.as_ref().is_some_and(|(algorithm, _)| *algorithm != upload.algorithm);
    let missing = claim.is_none() && upload.kind == ChecksumType::Composite;
    if upload.named && (other || missing) {
        return Err(invalid_request(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            upload.algorithm.name().to_lowercase(),
            claim.map_or("null".to_owned(), |(algorithm, _)| algorithm.name().to_lowercase())
        )));
    }
    let algorithm = claim.map_or(upload.algorithm, |(algorithm, _)| algorithm);
    let sum = md5(&request.body);
    let part = Part {
        etag: upload.settings.etag(&sum),
        sum,
        checksum: (algorithm, algorithm.text(&request.body)),
        body: request.body.clone(),
        modified_ms: now_ms,
    };
    let mut headers =
        vec![("ETag".to_owned(), format!("\"{}\"", part.etag)), (part.checksum.0.header(), part.checksum.1.clone())];
    headers.extend(upload.settings.encryption());
    upload.parts.insert(number, part);
    Ok(answer(200, headers, Bytes::new()))
}

/// CompleteMultipartUpload.
pub(super) fn complete(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    let now_ms = state.now_ms;
    let object = {
        let upload = upload(state, bucket, key, request)?;
        assembled(upload, request, now_ms)?
    };
    let ends_upload = state.conflicts_end_uploads;
    if let Err(refused) = conditions(state, bucket, key, request) {
        if ends_upload && refused == super::error::conflict(key) {
            state.bucket_mut(bucket)?.uploads.remove(id(request));
        }
        return Err(refused);
    }
    let (algorithm, kind, value) = object.checksum.clone();
    let mut response = xml_answer(&format!(
        "<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}{}{}{}{}{}\
         </CompleteMultipartUploadResult>",
        tag("Location", &format!("http://s3/{bucket}/{key}")),
        tag("Bucket", bucket),
        tag("Key", key),
        tag("ETag", &format!("\"{}\"", object.etag)),
        tag(&format!("Checksum{}", algorithm.name()), &value),
        tag("ChecksumType", kind.name()),
    ));
    response.headers.extend(written(&object).into_iter().filter(|(name, _)| name.contains("encryption")));
    let bucket = state.bucket_mut(bucket)?;
    bucket.uploads.remove(id(request));
    bucket.objects.insert(key.to_owned(), object);
    Ok(response)
}

/// The object that the parts named by the request make.
fn assembled(upload: &Upload, request: &Request, now_ms: u64) -> Result<Object, Refused> {
    let document = std::str::from_utf8(&request.body).ok().and_then(Element::parse);
    let document = document.filter(|document| document.name == "CompleteMultipartUpload").ok_or_else(malformed_xml)?;
    let invalid_part = || {
        Refused::new(
            400,
            "InvalidPart",
            "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified \
             entity tag may not match the part's entity tag.",
        )
    };
    let mut parts: Vec<&Part> = Vec::new();
    let mut last = 0;
    for entry in document.all("Part") {
        let number: u32 =
            entry.child("PartNumber").and_then(|number| number.trim().parse().ok()).ok_or_else(malformed_xml)?;
        if number <= last {
            return Err(Refused::new(
                400,
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
            ));
        }
        last = number;
        let part = upload.parts.get(&number).ok_or_else(invalid_part)?;
        let etag = entry.child("ETag").ok_or_else(malformed_xml)?.trim().trim_matches('"');
        if etag != part.etag {
            return Err(invalid_part());
        }
        let (algorithm, value) = &part.checksum;
        match entry.child(&format!("Checksum{}", algorithm.name())) {
            Some(given) if given != value => return Err(invalid_part()),
            None if upload.named && upload.kind == ChecksumType::Composite => {
                return Err(invalid_request(format!(
                    "The upload was created using a {} checksum. The complete request must include the checksum for each \
                     part. It was missing for part {number} in the request.",
                    algorithm.name().to_lowercase()
                )));
            }
            _ => {}
        }
        parts.push(part);
    }
    let Some((_, before_last)) = parts.split_last() else { return Err(malformed_xml()) };
    if before_last.iter().any(|part| part.body.len() < PART_BYTES_MIN) {
        return Err(Refused::new(
            400,
            "EntityTooSmall",
            "Your proposed upload is smaller than the minimum allowed size",
        ));
    }
    let mut body = BytesMut::with_capacity(parts.iter().map(|part| part.body.len()).sum());
    parts.iter().for_each(|part| body.extend_from_slice(&part.body));
    let value = match upload.kind {
        ChecksumType::FullObject => upload.algorithm.text(&body),
        ChecksumType::Composite => {
            let sums: Vec<u8> = parts.iter().flat_map(|part| upload.algorithm.sum(&part.body)).collect();
            format!("{}-{}", upload.algorithm.text(&sums), parts.len())
        }
    };
    // Of the object, not of this request's body.
    if let Some((algorithm, given)) = claimed(request)?
        && (algorithm != upload.algorithm || given != value)
    {
        return Err(Refused::new(
            400,
            "BadDigest",
            format!("The {} you specified did not match the calculated checksum.", algorithm.name()),
        ));
    }
    if let Some(size) = request.headers.get("x-amz-mp-object-size")
        && size.parse() != Ok(body.len())
    {
        return Err(invalid_request(
            "The provided 'x-amz-mp-object-size' header value does not match what was computed.",
        ));
    }
    let sums: Vec<u8> = parts.iter().flat_map(|part| part.sum.clone()).collect();
    Ok(Object {
        etag: format!("{}-{}", upload.settings.etag(&md5(&sums)), parts.len()),
        checksum: (upload.algorithm, upload.kind, value),
        modified_ms: now_ms,
        settings: upload.settings.clone(),
        parts: Some(parts.len()),
        body: body.freeze(),
    })
}

/// AbortMultipartUpload.
pub(super) fn abort(state: &mut State, bucket: &str, key: &str, request: &Request) -> Result<Response, Refused> {
    upload(state, bucket, key, request)?;
    state.bucket_mut(bucket)?.uploads.remove(id(request));
    Ok(answer(204, Vec::new(), Bytes::new()))
}
