//! Registered consumers: RegisterStreamConsumer, DescribeStreamConsumer, ListStreamConsumers, DeregisterStreamConsumer.
//!
//! Does not own: what a consumer reads (`subscription`).

use std::collections::BTreeMap;

use super::api::{ConsumerInfo, Error, Result};
use super::{Kinesis, State};

/// Consumers of one stream.
const CONSUMERS_MAX: usize = 20;

#[derive(Debug, Clone)]
pub(super) struct Consumer {
    pub(super) created_ms: i64,
    pub(super) active_ms: i64,
    /// The last subscription of each shard: when, and its number.
    pub(super) subscribed: BTreeMap<u32, (i64, u64)>,
}

impl Consumer {
    pub(super) fn status(&self, now_ms: i64) -> &'static str {
        if now_ms < self.active_ms { "CREATING" } else { "ACTIVE" }
    }
}

impl Kinesis {
    /// Registers a consumer. It is CREATING in the answer, and becomes ACTIVE later.
    ///
    /// # Errors
    /// If the name is taken, or there are 20 consumers.
    pub fn register_consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo> {
        self.change(|state, now_ms| {
            let (wait_ms, account) = (i64::from(state.settings.consumer_status_ms), state.account.clone());
            let consumers = &mut state.stream(stream, now_ms)?.consumers;
            if consumers.contains_key(name) {
                return Err(Error::in_use(format!(
                    "Consumer {name} under stream {stream} already exists for account {account}."
                )));
            }
            if consumers.len() >= CONSUMERS_MAX {
                return Err(Error::limit(format!(
                    "This request would exceed the limit of {CONSUMERS_MAX} consumers of stream {stream} under account {account}."
                )));
            }
            let consumer = Consumer { created_ms: now_ms, active_ms: now_ms + wait_ms, subscribed: BTreeMap::new() };
            consumers.insert(name.to_owned(), consumer);
            Ok(ConsumerInfo { status: "CREATING", ..state.consumer_info(stream, name, now_ms)? })
        })
    }

    /// A consumer by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn describe_consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo> {
        self.look(|state, now_ms| state.consumer_info(stream, name, now_ms))
    }

    /// All consumers of a stream, by name.
    ///
    /// # Errors
    /// If there is no such stream.
    pub fn list_consumers(&self, stream: &str) -> Result<Vec<ConsumerInfo>> {
        self.look(|state, now_ms| {
            let names: Vec<String> = state.stream(stream, now_ms)?.consumers.keys().cloned().collect();
            names.iter().map(|name| state.consumer_info(stream, name, now_ms)).collect()
        })
    }

    /// Removes a consumer immediately; its subscriptions end.
    ///
    /// # Errors
    /// If there is none.
    pub fn deregister_consumer(&self, stream: &str, name: &str) -> Result<()> {
        self.change(|state, now_ms| {
            state.consumer_info(stream, name, now_ms)?;
            state.stream(stream, now_ms)?.consumers.remove(name);
            Ok(())
        })
    }

    /// The stream and the name of a consumer's ARN.
    ///
    /// # Errors
    /// If there is no such consumer: ARNs of consumers end with the second of their registration.
    pub fn consumer_by_arn(&self, arn: &str) -> Result<(String, String)> {
        let missing = || Error::not_found(format!("Consumer {arn} not found."));
        let (_, path) = arn.split_once(":stream/").ok_or_else(missing)?;
        let (stream, consumer) = path.split_once("/consumer/").ok_or_else(missing)?;
        let (name, _) = consumer.rsplit_once(':').ok_or_else(missing)?;
        match self.describe_consumer(stream, name) {
            Ok(found) if found.arn == arn => Ok((stream.to_owned(), name.to_owned())),
            _ => Err(missing()),
        }
    }
}

impl State {
    fn consumer_info(&mut self, stream: &str, name: &str, now_ms: i64) -> Result<ConsumerInfo> {
        let stream_arn = self.arn(stream);
        let missing = format!("Consumer {name} of stream {stream} under account {} not found.", self.account);
        let consumers = &self.stream(stream, now_ms)?.consumers;
        let consumer = consumers.get(name).ok_or_else(|| Error::not_found(missing))?;
        Ok(ConsumerInfo {
            name: name.to_owned(),
            arn: format!("{stream_arn}/consumer/{name}:{}", consumer.created_ms / 1000),
            status: consumer.status(now_ms),
            created_ms: consumer.created_ms,
            stream_arn,
        })
    }
}
