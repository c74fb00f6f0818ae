//! S3's errors: status, code, message.

use bytes::Bytes;

use super::xml::escape;
use crate::http::Response;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    status: u16,
    code: &'static str,
    message: String,
    detail: Option<(&'static str, String)>,
    header: Option<Box<(&'static str, String)>>,
}

impl Refused {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Refused { status, code, message: message.into(), detail: None, header: None }
    }

    /// Adds an element to the error document.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.detail = Some((name, value.to_owned()));
        self
    }

    /// Adds a header.
    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.header = Some(Box::new((name, value.to_owned())));
        self
    }

    /// The answer as S3 sends it; an answer to HEAD has no body.
    pub(super) fn response(&self, head: bool) -> Response {
        let detail =
            self.detail.as_ref().map(|(name, value)| format!("<{name}>{}</{name}>", escape(value))).unwrap_or_default();
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>{detail}\
             <RequestId>0000000000000000</RequestId><HostId>model</HostId></Error>",
            self.code,
            escape(&self.message)
        );
        let body = if head || self.status == 304 { Bytes::new() } else { Bytes::from(body) };
        let mut headers = vec![("Content-Type".to_owned(), "application/xml".to_owned())];
        headers.extend(self.header.as_deref().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Response { status: self.status, headers, body }
    }
}

pub(super) fn invalid_request(message: impl Into<String>) -> Refused {
    Refused::new(400, "InvalidRequest", message)
}

pub(super) fn invalid_argument(message: impl Into<String>) -> Refused {
    Refused::new(400, "InvalidArgument", message)
}

pub(super) fn malformed_xml() -> Refused {
    Refused::new(
        400,
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

pub(super) fn no_such_bucket(bucket: &str) -> Refused {
    Refused::new(404, "NoSuchBucket", "The specified bucket does not exist").with("BucketName", bucket)
}

pub(super) fn no_such_key(key: &str) -> Refused {
    Refused::new(404, "NoSuchKey", "The specified key does not exist.").with("Key", key)
}

pub(super) fn no_such_upload(id: &str) -> Refused {
    Refused::new(
        404,
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
    )
    .with("UploadId", id)
}

pub(super) fn precondition_failed(condition: &str) -> Refused {
    Refused::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
        .with("Condition", condition)
}

pub(super) fn conflict(key: &str) -> Refused {
    Refused::new(
        409,
        "ConditionalRequestConflict",
        "The conditional request cannot succeed due to a conflicting operation against this resource.",
    )
    .with("Key", key)
}

pub(super) fn not_implemented() -> Refused {
    Refused::new(501, "NotImplemented", "A header or query you provided implies functionality that is not implemented.")
}
