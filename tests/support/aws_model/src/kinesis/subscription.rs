//! SubscribeToShard: a session that delivers records as they arrive.
//!
//! Owns: who may subscribe when, and what a session delivers until it ends. Does not own: how events are framed (`events`).
//!
//! A session ends after 5 minutes, or at the shard's end, after an event with the children and without a continuation. It ends
//! with an error when another subscription of the same consumer and shard takes over, or the consumer or stream is deleted. A second
//! subscription within 5 s of the last is refused. While no records arrive, an empty event is sent every 5 s (AWS sends
//! such events too, at an undocumented interval). A consumer has its own throughput: no limit slows a session.

use std::sync::Arc;

use super::Kinesis;
use super::api::{Error, Result, Start, SubscriptionEvent};

const SESSION_MS: i64 = 300_000;
const TAKES_OVER_AFTER_MS: i64 = 5000;
const IDLE_EVENT_MS: i64 = 5000;
const RECORDS_MAX: usize = 10_000;

/// A session.
#[derive(Debug)]
pub struct Subscription {
    kinesis: Kinesis,
    stream: String,
    consumer: String,
    shard: u32,
    number: u64,
    ordinal: u64,
    ends_ms: i64,
    next_event_ms: i64,
    over: bool,
}

/// The next step of a session.
enum Next {
    Bring(SubscriptionEvent),
    /// Waits until this time, or until something changes.
    Wait(i64),
    Over,
}

impl Kinesis {
    /// Subscribes a consumer to a shard.
    ///
    /// # Errors
    /// If there is no such stream, consumer or shard, the consumer is not ACTIVE, its last subscription to the shard is less than
    /// 5 s old, or `start` is invalid for an iterator too.
    pub fn subscribe(&self, stream: &str, consumer: &str, shard: &str, start: &Start) -> Result<Subscription> {
        let (shard, number, ordinal, now_ms) = self.change(|state, now_ms| {
            let (shard, ordinal) = state.place(stream, shard, start, now_ms)?;
            let (account, number) = (state.account.clone(), state.nonce());
            let missing = Error::not_found(format!(
                "Consumer {consumer} of stream {stream} under account {account} not found."
            ));
            let found = state.stream(stream, now_ms)?.consumers.get_mut(consumer).ok_or(missing)?;
            let status = found.status(now_ms);
            if status != "ACTIVE" {
                return Err(Error::in_use(format!(
                    "Consumer {consumer} under account {account} is not ACTIVE, instead in state {status}"
                )));
            }
            let last = found.subscribed.get(&shard).copied();
            if last.is_some_and(|(at_ms, _)| now_ms - at_ms < TAKES_OVER_AFTER_MS) {
                return Err(Error::in_use(format!(
                    "Another active subscription exists for this consumer: {account}:{stream}:shardId-{shard:012}:{consumer}"
                )));
            }
            found.subscribed.insert(shard, (now_ms, number));
            Ok((shard, number, ordinal, now_ms))
        })?;
        Ok(Subscription {
            kinesis: self.clone(),
            stream: stream.to_owned(),
            consumer: consumer.to_owned(),
            shard,
            number,
            ordinal,
            ends_ms: now_ms + SESSION_MS,
            next_event_ms: now_ms,
            over: false,
        })
    }
}

impl Subscription {
    /// Waits for the next event; `None` once the session is over.
    ///
    /// # Errors
    /// Once, if the session ends with an error.
    pub async fn next(&mut self) -> Option<Result<SubscriptionEvent>> {
        let changes = Arc::clone(&self.kinesis.changes);
        while !self.over {
            // Wait for changes from before the state is read, so that no change is missed.
            let mut changed = std::pin::pin!(changes.notified());
            changed.as_mut().enable();
            match self.step() {
                Ok(Next::Bring(event)) => return Some(Ok(event)),
                Ok(Next::Over) => self.over = true,
                Ok(Next::Wait(until_ms)) => {
                    tokio::select! {
                        // The order is fixed, so that a simulation can be repeated.
                        biased;
                        () = changed => {}
                        () = self.kinesis.clock.wait_until(until_ms) => {}
                    }
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn step(&mut self) -> Result<Next> {
        let kinesis = self.kinesis.clone();
        kinesis.look(|state, now_ms| {
            if now_ms >= self.ends_ms {
                return Ok(Next::Over);
            }
            let account = state.account.clone();
            let stream = state.stream(&self.stream, now_ms)?;
            let mine = stream.consumers.get(&self.consumer).and_then(|consumer| consumer.subscribed.get(&self.shard));
            match mine {
                None => return Err(Error::not_found(format!("Consumer {} is gone.", self.consumer))),
                Some((_, number)) if *number != self.number => {
                    return Err(Error::in_use(format!(
                        "Another active subscription exists for this consumer: {account}:{}:shardId-{:012}:{}",
                        self.stream, self.shard, self.consumer
                    )));
                }
                Some(_) => {}
            }
            let gone = || Error::not_found(format!("Shard shardId-{:012} does not exist", self.shard));
            let shard = stream.shards.get(&self.shard).ok_or_else(gone)?;
            let page = shard.read(self.ordinal, RECORDS_MAX, now_ms);
            if page.records.is_empty() && !page.is_end && now_ms < self.next_event_ms {
                let visible_ms = shard.visible_ms(page.next).unwrap_or(i64::MAX);
                return Ok(Next::Wait(self.next_event_ms.min(self.ends_ms).min(visible_ms)));
            }
            self.ordinal = page.next;
            self.next_event_ms = now_ms + IDLE_EVENT_MS;
            // The end is an event of its own, without records.
            let ends = page.is_end && page.records.is_empty();
            self.over = ends;
            Ok(Next::Bring(SubscriptionEvent {
                records: page.records,
                continuation: (!ends).then(|| shard.sequence_at(page.next, now_ms.max(shard.created_ms))),
                millis_behind_latest: page.millis_behind_latest,
                children: if ends { shard.children.clone() } else { Vec::new() },
            }))
        })
    }
}
