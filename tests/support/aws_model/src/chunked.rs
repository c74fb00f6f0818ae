//! The `aws-chunked` framing of request bodies: size-prefixed pieces, a piece of size 0, trailing headers.
//!
//! Format: `HEX-SIZE[;chunk-signature=…]CRLF DATA CRLF … 0[;…]CRLF NAME:VALUE CRLF … CRLF`, as S3's reference describes under
//! "streaming upload" for `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`, `…-TRAILER` and `STREAMING-UNSIGNED-PAYLOAD-TRAILER`. Does not
//! own: signatures and checksums, which it does not verify.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

/// Whether the headers declare that the body is framed.
pub(crate) fn is_framed(headers: &BTreeMap<String, String>) -> bool {
    let framed_encoding =
        headers.get("content-encoding").is_some_and(|names| names.split(',').any(|name| name.trim() == "aws-chunked"));
    framed_encoding || headers.get("x-amz-content-sha256").is_some_and(|sum| sum.starts_with("STREAMING-"))
}

/// Removes the framing from `body`; `None` if it is cut off or malformed. Trailers join `headers`, and `aws-chunked` is removed
/// from `content-encoding`: S3 stores the object so.
pub(crate) fn unframe(body: &Bytes, headers: &mut BTreeMap<String, String>) -> Option<Bytes> {
    let mut rest = body.clone();
    let mut whole = BytesMut::with_capacity(body.len());
    loop {
        let line = take_line(&mut rest)?;
        let size = std::str::from_utf8(&line).ok()?.split(';').next()?.trim().to_owned();
        let size = usize::from_str_radix(&size, 16).ok()?;
        if size == 0 {
            break;
        }
        if rest.len() < size + 2 {
            return None;
        }
        whole.extend_from_slice(&rest.split_to(size));
        if rest.split_to(2) != "\r\n" {
            return None;
        }
    }
    while !rest.is_empty() {
        let line = take_line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = std::str::from_utf8(&line).ok()?.split_once(':')?;
        headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(names) = headers.remove("content-encoding") {
        let kept: Vec<&str> = names.split(',').map(str::trim).filter(|name| *name != "aws-chunked").collect();
        if !kept.is_empty() {
            headers.insert("content-encoding".to_owned(), kept.join(","));
        }
    }
    Some(whole.freeze())
}

fn take_line(rest: &mut Bytes) -> Option<Bytes> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = rest.split_to(end);
    let _ = rest.split_to(2);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(encoding: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("content-encoding".to_owned(), encoding.to_owned())])
    }

    #[test]
    fn pieces_are_joined_and_trailers_become_headers() {
        let mut headers = headers("gzip,aws-chunked");
        assert!(is_framed(&headers));
        let body = Bytes::from_static(
            b"5\r\nhel\r\n\r\n3;chunk-signature=ab\r\nlo!\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        );
        assert_eq!(unframe(&body, &mut headers).as_deref(), Some(&b"hel\r\nlo!"[..]));
        assert_eq!(headers["x-amz-checksum-crc32"], "AAAAAA==");
        assert_eq!(headers["content-encoding"], "gzip");
    }

    #[test]
    fn a_content_encoding_of_aws_chunked_alone_is_removed() {
        let mut headers = headers("aws-chunked");
        assert_eq!(unframe(&Bytes::from_static(b"0\r\n\r\n"), &mut headers).as_deref(), Some(&b""[..]));
        assert!(!headers.contains_key("content-encoding"));
    }

    #[test]
    fn a_body_that_is_cut_off_is_refused() {
        for broken in [&b"5\r\nhel"[..], b"", b"5\r\nhello", b"x\r\n", b"2\r\nhello\r\n0\r\n\r\n"] {
            assert_eq!(unframe(&Bytes::copy_from_slice(broken), &mut headers("aws-chunked")), None, "{broken:?}");
        }
    }
}
