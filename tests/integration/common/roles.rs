//! The roles that `deploy/worker.yaml` makes, and what they and the endpoints allow.
//!
//! Owns: which role a command has, and the decision about a request. Does not own: the policies (`deploy/`), how they are evaluated
//! (`tests/support/access`), which requests there are (`aws_model::access`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use access::{Grant, Policy, Request, Template};
use aws_model::access::{Access, Asked, Keys};

/// The access key of the worker's role.
pub(crate) const WORKER: &str = "worker";
/// The access key of the role for maintenance.
pub(crate) const MAINTENANCE: &str = "maintenance";
/// The access key of somebody who may only read.
pub(crate) const READER: &str = "reader";
/// The access key of a developer, who may do everything.
pub(crate) const DEVELOPER: &str = "developer";
/// The keys of KMS, if there are any.
pub(crate) const LAKE_KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/lake";
pub(crate) const STREAM_KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/stream";
pub(crate) const SECRET_KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/secret";

/// The policies of a stack.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    pub(crate) worker: Policy,
    pub(crate) maintenance: Policy,
    endpoints: [(&'static str, Policy); 2],
}

impl Roles {
    /// Those of the template with these parameters.
    pub(crate) fn of(parameters: &[(&str, &str)]) -> Self {
        let network = [("VpcId", "vpc-01234567"), ("RouteTableIds", "rtb-01234567"), ("CreateService", "false")];
        let template = Template::read(&template("worker"), &[parameters, &network].concat()).unwrap();
        Roles {
            worker: template.role("WorkerRole").unwrap(),
            maintenance: template.role("MaintenanceRole").unwrap(),
            endpoints: [
                ("s3:", template.policy("S3Endpoint").unwrap()),
                ("dynamodb:", template.policy("DynamoDbEndpoint").unwrap()),
            ],
        }
    }

    /// The policy of a role; `None` for somebody who may do everything.
    pub(crate) fn policy(&self, principal: &str) -> Option<&Policy> {
        match principal {
            WORKER => Some(&self.worker),
            MAINTENANCE => Some(&self.maintenance),
            _ => None,
        }
    }

    /// A request must be allowed by its role, and by the endpoint that it passes.
    pub(crate) fn allow(&self, asked: &Asked) -> bool {
        if asked.principal == READER {
            return is_read(&asked.action);
        }
        let request = request(asked);
        self.policy(&asked.principal).is_none_or(|policy| {
            let mut endpoints = self.endpoints.iter().filter(|(service, _)| asked.action.starts_with(service));
            policy.allows(&request) && endpoints.all(|(_, endpoint)| endpoint.allows(&request))
        })
    }

    /// The grants of a role that allow a request.
    pub(crate) fn used_by(&self, asked: &Asked) -> BTreeSet<Grant> {
        self.policy(&asked.principal).map(|policy| policy.used_by(&request(asked))).unwrap_or_default()
    }

    /// Decides about the requests of a server.
    pub(crate) fn into_access(self, keys: Keys) -> Access {
        Access::new(keys, move |asked| self.allow(asked))
    }
}

/// Whether a request reads the bucket, the stream or the pseudonym key, and changes nothing. The lease table is not among them.
fn is_read(action: &str) -> bool {
    const READ: [&str; 7] = [
        "s3:GetObject",
        "s3:ListBucket",
        "kinesis:DescribeStreamSummary",
        "kinesis:ListShards",
        "kinesis:GetShardIterator",
        "kinesis:GetRecords",
        "secretsmanager:GetSecretValue",
    ];
    READ.contains(&action)
}

fn request(asked: &Asked) -> Request {
    let Asked { action, resource, context, .. } = asked.clone();
    Request { action, resource, context }
}

/// A template of `deploy/`.
pub(crate) fn template(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/{name}.yaml"))
}
