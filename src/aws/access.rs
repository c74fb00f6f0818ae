//! How one resource is reached, where that is not how everything else is reached: its region, the role, the endpoint.
//!
//! Owns: the keys of the configuration that sources, lakes and lease stores on AWS share, and assuming a role. Does not own: the
//! SDK's own settings, which count for everything that has no such key (the parent module).
//!
//! A role is assumed by STS with the SDK's own credentials. The SDK renews it before it expires (after an hour), and all clients
//! that use the same role share it. It is assumed once at the start, so that a refusal is reported before anything is touched.

use std::sync::Arc;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{Region, SdkConfig};
use aws_sdk_kinesis::config::{ProvideCredentials, SharedCredentialsProvider};
use checkpoints::error_chain;

use crate::aws::{Aws, SMALL_ATTEMPT};
use crate::retry::{RetryPolicy, Retryable};
use crate::settings::{Fallback, Key, Kind, Setting, Within};

/// The name of the role's sessions, as CloudTrail shows it.
const SESSION: &str = "shardlake";
/// What an error of the SDK says where another attempt may succeed.
const PASSING: [&str; 8] = [
    "dispatch failure",
    "timeout",
    "timed out",
    "Throttling",
    "Expired",
    "InternalFailure",
    "ServiceUnavailable",
    "IDPCommunicationError",
];
/// What it says where there are no credentials to assume the role with. The SDK reports it as a failure to send.
const NO_CREDENTIALS: [&str; 3] = [
    "the credential provider was not enabled",
    "the credentials provider was not properly configured",
    "no providers in chain provided credentials",
];

/// How a resource is reached. What is `None` is as in the SDK's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Its region.
    pub region: Option<String>,
    /// The ARN of the role to assume.
    pub role_arn: Option<String>,
    /// The external id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The URL of the service.
    pub endpoint: Option<String>,
}

/// A resource that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct AccessError {
    /// What is wrong and what to do.
    pub problem: String,
    /// Whether it may pass.
    pub passing: bool,
}

impl Retryable for AccessError {
    fn is_retryable(&self) -> bool {
        self.passing
    }
}

/// The keys.
fn keys() -> Vec<Key<Access>> {
    vec![
        Key {
            name: "region",
            kind: Kind::Text {
                form: "region",
                read: |access, text| {
                    if text.is_empty()
                        || !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                    {
                        return Err(format!("region must be a region of AWS such as eu-west-1, not '{text}'"));
                    }
                    access.region = Some(text.to_owned());
                    Ok(())
                },
                show: |access| access.region.clone(),
            },
            default: Fallback::Depends("the ARN's, or `AWS_REGION`"),
            doc: "The region, if it is not that of the rest.",
        },
        Key {
            name: "role_arn",
            kind: Kind::Text {
                form: "ARN of a role",
                read: |access, text| {
                    let mut parts = text.splitn(6, ':').skip(2);
                    let (service, resource) = (parts.next(), parts.nth(2));
                    if !crate::aws::arn::is_arn(text)
                        || service != Some("iam")
                        || resource.and_then(|resource| resource.strip_prefix("role/")).is_none_or(str::is_empty)
                    {
                        return Err("role_arn must be the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME".to_owned());
                    }
                    access.role_arn = Some(text.to_owned());
                    Ok(())
                },
                show: |access| access.role_arn.clone(),
            },
            default: Fallback::Depends("none"),
            doc: "A role that is assumed for these requests ([aws.md](aws.md#other-accounts-and-regions)).",
        },
        Key {
            name: "external_id",
            kind: Kind::Text {
                form: "text",
                read: |access, text| {
                    if access.role_arn.is_none() {
                        return Err("external_id needs role_arn".to_owned());
                    }
                    access.external_id = Some(text.to_owned());
                    Ok(())
                },
                show: |access| access.external_id.clone(),
            },
            default: Fallback::Depends("none"),
            doc: "The external id that the role's trust policy asks for. Needs `role_arn`.",
        },
        Key {
            name: "endpoint",
            kind: Kind::Text {
                form: "URL",
                read: |access, text| {
                    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
                    // The text is not repeated: a password may be in it.
                    if host.is_none_or(|host| host.is_empty() || host.contains(['@', '?', '#', ' '])) {
                        return Err("endpoint must be a URL such as https://HOST:PORT, without a user name".to_owned());
                    }
                    access.endpoint = Some(text.to_owned());
                    Ok(())
                },
                show: |access| access.endpoint.clone(),
            },
            default: Fallback::Depends("AWS, or `AWS_ENDPOINT_URL` and the like"),
            doc: "The URL of the service: a VPC endpoint, or a service that is compatible with AWS.",
        },
    ]
}

/// The keys for a structure that an access is a part of.
pub(crate) fn keys_of<S: 'static>(part: fn(&mut S) -> &mut Access) -> impl Iterator<Item = Box<dyn Setting<S>>> {
    keys().into_iter().map(move |key| Box::new(Within { key: Box::new(key), part, only: None }) as Box<dyn Setting<S>>)
}

impl Access {
    /// Checks that an ARN of another region does not contradict the key `region`.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn check_region(&self, of_arn: Option<&str>) -> Result<(), String> {
        match (of_arn, self.region.as_deref()) {
            (Some(of_arn), Some(region)) if of_arn != region => {
                Err(format!("region is {region}, and the ARN in url is of the region {of_arn}: remove region"))
            }
            _ => Ok(()),
        }
    }
}

/// The roles that are assumed, each with its credentials. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Roles(Arc<tokio::sync::Mutex<Vec<(Role, SharedCredentialsProvider)>>>);

/// A role and how it is assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Role {
    arn: String,
    external_id: Option<String>,
}

impl Roles {
    /// The credentials of a role.
    async fn credentials(&self, config: &SdkConfig, role: Role) -> Result<SharedCredentialsProvider, AccessError> {
        let mut assumed = self.0.lock().await;
        if let Some((_, provider)) = assumed.iter().find(|(other, _)| *other == role) {
            return Ok(provider.clone());
        }
        let mut builder = AssumeRoleProvider::builder(&role.arn).configure(config).session_name(SESSION);
        if let Some(id) = &role.external_id {
            builder = builder.external_id(id);
        }
        let provider = builder.build().await;
        let attempt = || async { provider.provide_credentials().await.map_err(|error| refused(&role.arn, &error)) };
        RetryPolicy::CALL.run(&format!("assuming the role {}", role.arn), attempt).await?;
        let provider = SharedCredentialsProvider::new(provider);
        assumed.push((role, provider.clone()));
        Ok(provider)
    }
}

fn refused(role: &str, error: &(dyn std::error::Error + 'static)) -> AccessError {
    let said = error_chain(error);
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    let advice = if says(&NO_CREDENTIALS) {
        "there are no AWS credentials to assume it with: give some by the environment, a profile or a role of the machine"
    } else {
        "allow sts:AssumeRole on it, and let its trust policy name the worker's own role"
    };
    let passing = says(&PASSING) && !says(&NO_CREDENTIALS);
    AccessError { problem: format!("cannot assume the role {role}: {said}; {advice}"), passing }
}

impl Aws {
    /// Clients that reach a resource in this way. `of_arn` is the region that its ARN says, if it has one.
    ///
    /// # Errors
    /// There is no region; the role cannot be assumed.
    pub async fn reach(&self, access: &Access, of_arn: Option<&str>) -> Result<Aws, AccessError> {
        let own = of_arn.or(access.region.as_deref()).map(|region| Region::new(region.to_owned()));
        let Some(region) = own.or_else(|| self.config.region().cloned()) else {
            return Err(AccessError { problem: NO_REGION.to_owned(), passing: false });
        };
        let mut config = self.config.to_builder().region(region.clone());
        if let Some(arn) = &access.role_arn {
            let role = Role { arn: arn.clone(), external_id: access.external_id.clone() };
            // STS is asked in the region of everything else, if there is one.
            let of_sts = self.config.region().cloned().unwrap_or(region);
            let base = self.config.to_builder().region(of_sts).timeout_config(Aws::attempt(SMALL_ATTEMPT)).build();
            config.set_credentials_provider(Some(self.roles.credentials(&base, role).await?));
        }
        Ok(Aws { config: config.build(), endpoint: access.endpoint.clone(), ..self.clone() })
    }
}

/// What to do without a region.
const NO_REGION: &str = "no AWS region is set: set AWS_REGION, or region in the profile, or region in this section of the \
                         configuration";

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, text: &str) -> Result<Access, String> {
        let mut access = Access::default();
        let keys = keys();
        let key = keys.iter().find(|key| key.name() == name).unwrap();
        key.set(&mut access, text).map(|()| access)
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_what_to_write() {
        for (name, text, expected) in [
            ("region", "EU", "such as eu-west-1"),
            ("region", "", "such as eu-west-1"),
            ("role_arn", "worker", "arn:aws:iam::ACCOUNT:role/NAME"),
            ("role_arn", "arn:aws:iam::222222222222:user/me", "arn:aws:iam::ACCOUNT:role/NAME"),
            ("role_arn", "arn:aws:iam::222222222222:role/", "arn:aws:iam::ACCOUNT:role/NAME"),
            ("external_id", "x", "needs role_arn"),
            ("endpoint", "minio:9000", "https://HOST:PORT"),
            ("endpoint", "https://me:hush@minio", "https://HOST:PORT"),
        ] {
            let message = set(name, text).unwrap_err();
            assert!(message.contains(expected) && !message.contains("hush"), "{message}");
        }
        for (name, text) in [
            ("region", "us-gov-west-1"),
            ("role_arn", "arn:aws:iam::222222222222:role/path/reader"),
            ("endpoint", "http://127.0.0.1:9000"),
        ] {
            assert!(set(name, text).is_ok(), "{name} {text}");
        }
        let access = set("region", "eu-west-1").unwrap();
        assert!(access.check_region(Some("eu-west-1")).is_ok() && access.check_region(None).is_ok());
        assert!(access.check_region(Some("us-east-1")).unwrap_err().contains("remove region"));
    }

    #[tokio::test]
    async fn without_a_region_the_message_names_the_variable() {
        let config = SdkConfig::builder().build();
        let error = Aws::with(config).reach(&Access::default(), None).await.unwrap_err();
        assert!(error.to_string().contains("AWS_REGION") && !error.is_retryable(), "{error}");
    }
}
