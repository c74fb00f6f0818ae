//! A model of the Security Token Service.
//!
//! Owns: AssumeRole: credentials that name the role's account. Does not own: policies; faults refuse a call instead.

use std::sync::{Arc, Mutex, PoisonError};

use crate::access::role_in_form;
use crate::http::{Request, Response, Service};

/// An STS; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Sts {
    assumed: Arc<Mutex<Vec<String>>>,
}

impl Sts {
    /// The forms of the calls that assumed a role, in order.
    pub fn assumed(&self) -> Vec<String> {
        self.assumed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The access key id of sessions of a role in this account.
    pub fn access_key(account: &str) -> String {
        format!("ASIA{account}")
    }
}

impl Service for Sts {
    fn answer(&self, request: &Request) -> Response {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let arn = role_in_form(request);
        let account = arn.split(':').nth(4).unwrap_or_default();
        let body = format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
             <AssumedRoleId>AROA:session</AssumedRoleId><Arn>arn:aws:sts::{account}:assumed-role/role/session</Arn>\
             </AssumedRoleUser><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
             <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
             </AssumeRoleResponse>",
            Self::access_key(account)
        );
        self.assumed.lock().unwrap_or_else(PoisonError::into_inner).push(form);
        Response { status: 200, headers: vec![("content-type".to_owned(), "text/xml".to_owned())], body: body.into() }
    }
}
