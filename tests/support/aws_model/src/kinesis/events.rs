//! A subscription as an event stream (`application/vnd.amazon.eventstream`).
//!
//! Owns: frames (`initial-response`, `SubscribeToShardEvent`, exceptions). Does not own: the contents of an event (`json`).

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::api::Error;
use super::json;
use super::subscription::Subscription;

/// The frames of a session, the initial response first.
pub(super) fn frames(session: Subscription) -> BoxStream<'static, Bytes> {
    let beginning = frame("event", "initial-response", b"{}".to_vec());
    let events = stream::unfold(session, |mut session| async {
        let next = match session.next().await? {
            Ok(event) => frame("event", "SubscribeToShardEvent", json::event(&event).to_string().into_bytes()),
            Err(error) => exception(&error),
        };
        Some((next, session))
    });
    stream::iter([beginning]).chain(events).boxed()
}

fn exception(error: &Error) -> Bytes {
    frame("exception", error.kind.name(), json::error(error).to_string().into_bytes())
}

fn frame(message_type: &'static str, name: &'static str, payload: Vec<u8>) -> Bytes {
    let text = |value: &'static str| HeaderValue::String(value.into());
    let kind = if message_type == "event" { ":event-type" } else { ":exception-type" };
    let message = Message::new_from_parts(
        vec![
            Header::new(":message-type", text(message_type)),
            Header::new(kind, text(name)),
            Header::new(":content-type", text("application/x-amz-json-1.1")),
        ],
        payload,
    );
    let mut written = Vec::new();
    write_message_to(&message, &mut written).expect("an event is smaller than a frame may be");
    written.into()
}
