//! A subscription to a shard, whose events wait outside of this process until they are asked for.
//!
//! Owns: the response's body, which is passed on to the SDK one event at a time, and only when an event is received. So a reader can
//! wait for an event without holding it, and take memory from the budget before it is read and decoded. Does not own: when a shard is
//! subscribed to, and what an event means (`fanout`).
//!
//! Without this, the SDK would read ahead: each shard would hold an event of megabytes beside the budget, while its reader waits for
//! a share of it.
//!
//! Format of the body: messages, each of which begins with its length as four bytes, big-endian
//! (<https://smithy.io/2.0/aws/amazon-eventstream.html>).
//!
//! Limits: beside the budget a subscription holds one piece of the body, as the HTTP library hands it out: at most 16 KiB over
//! HTTP/2. What else the service has sent waits in HTTP/2's flow control, which is one window for all subscriptions of a connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::operation::subscribe_to_shard::builders::SubscribeToShardFluentBuilder;
use aws_sdk_kinesis::types::SubscribeToShardEventStream;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::Instant;

use crate::source::kinesis::identity::ServiceClock;
use crate::source::kinesis::service::Failure;

/// Bytes of the length at the beginning of a message.
const LENGTH_BYTES: usize = 4;

/// A subscription.
pub(super) struct Subscription {
    output: SubscribeToShardOutput,
    gate: Gate,
    begun: Instant,
}

impl Subscription {
    /// Subscribes. `clock` takes the time of the response.
    pub(super) async fn begin(call: SubscribeToShardFluentBuilder, clock: ServiceClock) -> Result<Self, Failure> {
        let gate = Gate::default();
        let call = call.customize().interceptor(gate.clone()).interceptor(clock);
        let output = call.send().await.map_err(|error| Failure::of("SubscribeToShard", &error))?;
        Ok(Subscription { output, gate, begun: Instant::now() })
    }

    /// When it began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Waits until an event, or the end, has begun to arrive. It may be dropped while it waits.
    pub(super) async fn ready(&self) {
        std::future::poll_fn(|context| self.gate.state().poll_arrived(context)).await;
    }

    /// The next event; `None` at the end. What has arrived of it is lost if this is dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Option<SubscribeToShardEventStream>, Failure> {
        self.output.event_stream.recv().await.map_err(|error| Failure::of_event(&error))
    }
}

/// The body of the response, shared by the subscription and the SDK.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    body: Option<Pin<Box<SdkBody>>>,
    /// What was received and not passed on.
    held: Bytes,
    /// The failure or the end that was received.
    last: Option<Option<BoxError>>,
    /// The bytes of the current message's length that were passed on.
    length: Vec<u8>,
    /// Bytes of the current message after its length that were not passed on.
    left: usize,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    /// Whether something can be passed on. Receives at most one piece of the body.
    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.held.is_empty() && self.last.is_none() {
            let Some(body) = &mut self.body else { return Poll::Ready(()) };
            match std::task::ready!(body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => self.held = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => self.last = Some(Some(error)),
                None => self.last = Some(None),
            }
        }
        Poll::Ready(())
    }

    /// The next bytes of the current message, and never some of the one after it.
    fn pass_on(&mut self) -> Bytes {
        let missing = LENGTH_BYTES - self.length.len();
        if missing > 0 {
            let bytes = self.held.split_to(missing.min(self.held.len()));
            self.length.extend_from_slice(&bytes);
            if let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(self.length.as_slice()) {
                // What is not a message is passed on as it is; the SDK says what is wrong with it.
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.left = length.checked_sub(LENGTH_BYTES).filter(|left| *left > 0).unwrap_or(usize::MAX);
            }
            return bytes;
        }
        let bytes = self.held.split_to(self.left.min(self.held.len()));
        self.left -= bytes.len();
        if self.left == 0 {
            self.length.clear();
        }
        bytes
    }
}

impl Intercept for Gate {
    fn name(&self) -> &'static str {
        "Gate"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if response.status().as_u16() == 200 {
            // An earlier attempt may have left something.
            *self.state() = GateState { body: Some(Box::pin(response.take_body())), ..GateState::default() };
            *response.body_mut() = SdkBody::from_body_1_x(GatedBody(self.clone()));
        }
        Ok(())
    }
}

/// The body as the SDK reads it.
struct GatedBody(Gate);

impl Body for GatedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.0.state();
        std::task::ready!(state.poll_arrived(context));
        if !state.held.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(state.pass_on()))));
        }
        // After a failure there is nothing more.
        let last = state.last.replace(None).flatten();
        Poll::Ready(last.map(Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::task::Waker;

    /// A body of these pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(LENGTH_BYTES + bytes).unwrap();
        [&length.to_be_bytes()[..], &vec![7; bytes]].concat()
    }

    fn gate(pieces: impl IntoIterator<Item = Vec<u8>>) -> Gate {
        let body = SdkBody::from_body_1_x(Pieces(pieces.into_iter().collect()));
        let state = GateState { body: Some(Box::pin(body)), ..GateState::default() };
        Gate(Arc::new(Mutex::new(state)))
    }

    fn poll(gate: &Gate) -> Option<Vec<u8>> {
        let mut body = GatedBody(gate.clone());
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame.map(|frame| frame.unwrap().into_data().unwrap().to_vec()),
            Poll::Pending => panic!("everything is there"),
        }
    }

    #[test]
    fn messages_are_passed_on_one_by_one_however_they_are_cut() {
        let messages = [message(1), message(900), message(30), message(5000)];
        let all = messages.concat();
        for piece in [1, 3, 4, 5, 64, 1000, all.len()] {
            let gate = gate(all.chunks(piece).map(<[u8]>::to_vec));
            for expected in &messages {
                let mut received = Vec::new();
                while received.len() < expected.len() {
                    received.extend(poll(&gate).unwrap());
                }
                assert_eq!(&received, expected, "pieces of {piece} bytes: exactly one message");
            }
            assert_eq!((poll(&gate), poll(&gate)), (None, None));
        }
    }

    #[test]
    fn waiting_receives_one_piece_and_no_more() {
        let gate = gate(message(1 << 20).chunks(1 << 10).map(<[u8]>::to_vec));
        for _ in 0..100 {
            assert!(gate.state().poll_arrived(&mut Context::from_waker(Waker::noop())).is_ready());
        }
        assert_eq!(gate.state().held.len(), 1 << 10);
    }

    #[test]
    fn what_is_not_a_message_is_passed_on_as_it_is() {
        for text in [&b"\0\0\0\0hello"[..], b"no event stream", b"x"] {
            let gate = gate([text.to_vec()]);
            let mut received = Vec::new();
            while let Some(bytes) = poll(&gate) {
                received.extend(bytes);
            }
            assert_eq!(received, text);
        }
    }
}
