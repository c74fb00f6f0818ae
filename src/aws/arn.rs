//! A resource of AWS as users name it: by its name, or by its ARN.
//!
//! Owns: reading both, with what is wrong with one. An ARN also says the region and the account, so a resource of another region
//! or account needs no other setting. Does not own: how a request names the resource (its backend).
//!
//! Format: `arn:PARTITION:SERVICE:REGION:ACCOUNT:TYPE/NAME`
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>).

use std::fmt;
use std::ops::RangeInclusive;

use crate::settings::url::is_aws_name;

/// What every ARN begins with.
const PREFIX: &str = "arn:";

/// A kind of resource.
#[derive(Debug, Clone)]
pub(crate) struct ResourceKind {
    /// Its service, as ARNs write it.
    pub(crate) service: &'static str,
    /// Its type, as ARNs write it.
    pub(crate) kind: &'static str,
    /// Characters that its name may have.
    pub(crate) length: RangeInclusive<usize>,
}

/// A resource, by name or by ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceName {
    /// The name or the ARN, as it was written.
    text: String,
    /// Where the name begins in the text.
    name_at: usize,
}

impl ResourceName {
    /// Reads a name or an ARN.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub(crate) fn parse(text: &str, kind: &ResourceKind) -> Result<Self, String> {
        let ResourceKind { service, kind, length } = kind;
        let name_at = if is_arn(text) {
            let form = || format!("an ARN of the form arn:aws:{service}:REGION:ACCOUNT:{kind}/NAME");
            let parts: Vec<&str> = text.splitn(6, ':').collect();
            let [_, partition, of, region, account, resource] = parts[..] else {
                return Err(format!("expected {}", form()));
            };
            if of != *service {
                return Err(format!("the ARN is of the service '{of}'; expected {}", form()));
            }
            let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            let name = resource.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/'));
            match name {
                Some(name) if is_word(partition) && is_word(region) && is_account => text.len() - name.len(),
                _ => return Err(format!("expected {}", form())),
            }
        } else {
            0
        };
        if !is_aws_name(&text[name_at..], length.clone()) {
            let (least, most) = (length.start(), length.end());
            return Err(format!(
                "expected the {kind}'s name ({least} to {most} of a-z, A-Z, 0-9, '.', '_', '-') or ARN"
            ));
        }
        Ok(ResourceName { text: text.to_owned(), name_at })
    }

    /// The resource's own name.
    pub fn name(&self) -> &str {
        &self.text[self.name_at..]
    }

    /// The name or the ARN, as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region, if the ARN says it.
    pub fn region(&self) -> Option<&str> {
        region(&self.text)
    }

    /// The account, if the ARN says it.
    pub fn account(&self) -> Option<&str> {
        arn_part(&self.text, 4)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a text is meant to be an ARN.
pub(crate) fn is_arn(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The service of an ARN; `None` for another text.
pub(crate) fn service(text: &str) -> Option<&str> {
    arn_part(text, 2)
}

/// The region of an ARN; `None` for another text, and for an ARN without a region.
pub(crate) fn region(text: &str) -> Option<&str> {
    arn_part(text, 3)
}

fn arn_part(text: &str, part: usize) -> Option<&str> {
    text.strip_prefix(PREFIX)?.splitn(5, ':').nth(part - 1).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> Result<ResourceName, String> {
        ResourceName::parse(text, &ResourceKind { service: "kinesis", kind: "stream", length: 1..=128 })
    }

    #[test]
    fn a_resource_has_a_name_and_an_arn_has_a_region_and_an_account_too() {
        let orders = stream("orders.v1").unwrap();
        assert_eq!((orders.name(), orders.region(), orders.account()), ("orders.v1", None, None));
        for arn in [
            "arn:aws:kinesis:eu-west-1:222222222222:stream/orders",
            "arn:aws-cn:kinesis:cn-north-1:222222222222:stream/a",
        ] {
            let named = stream(arn).unwrap();
            assert_eq!(named.as_str(), arn);
            assert_eq!(named.account(), Some("222222222222"));
            assert!(
                ["orders", "a"].contains(&named.name())
                    && ["eu-west-1", "cn-north-1"].contains(&named.region().unwrap())
            );
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("arn:aws:dynamodb:eu-west-1:222222222222:table/t", "is of the service 'dynamodb'"),
            ("arn:aws:kinesis:eu-west-1:222222222222:stream/orders/consumer/c:1", "the stream's name"),
            ("arn:aws:kinesis:eu-west-1:222222222222:stream", "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"),
            ("arn:aws:kinesis:eu-west-1:22222222222:stream/a", "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"),
            ("arn:aws:kinesis::222222222222:stream/a", "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"),
            ("arn:aws:kinesis", "arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"),
            ("a/b", "the stream's name (1 to 128"),
            ("", "the stream's name"),
        ] {
            let message = stream(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert_eq!(region("arn:aws:secretsmanager:eu-west-1:1:secret:x"), Some("eu-west-1"));
        assert_eq!(
            (region("arn:aws:s3:::bucket"), region("x:y:z:r"), service("arn:aws:s3:::bucket")),
            (None, None, Some("s3"))
        );
    }
}
