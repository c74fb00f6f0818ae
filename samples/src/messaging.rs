//! One record of each event of Amazon SES and AWS End User Messaging, as AWS publishes them.
//!
//! Owns: the records. They follow the examples of AWS's developer guides, with other names and times. All personal values are
//! fictional: each contains `kim`, `lee`, `robin`, `secret`, a number that ends in 0156, 0152 or 0077, or an address that ends in 77.

/// SES events, one a line: each type once.
pub const SES: &str = include_str!("messaging/ses.ndjson");

/// End User Messaging events, one a line: SMS, MMS and voice.
pub const SMS: &str = include_str!("messaging/sms.ndjson");
