//! Server-sent events as TGI frames them: one `data: ` line of JSON and a blank line, a comment after 15 s of silence.
//! Knows nothing about what the JSON says.

use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream::unfold;
use http::{HeaderName, HeaderValue};
use serde::Serialize;

/// Silence after which a comment shows proxies that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Asks nginx and its kin not to collect tokens.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Ends a body without its last chunk, so that nobody takes it for complete.
#[derive(Debug, thiserror::Error)]
#[error("the stream was cut")]
pub(super) struct Cut;

/// What a route sends next.
pub(super) enum Frame {
    /// An event.
    Event(String),
    /// An event that says its name as well.
    Named(&'static str, String),
    /// Nothing more, and no clean end either.
    Cut,
}

impl Frame {
    /// An event of JSON.
    pub(super) fn json(body: &impl Serialize) -> Self {
        // Nothing that is sent here can fail to serialise: no maps with odd keys, no foreign implementations.
        Self::Event(serde_json::to_string(body).unwrap_or_default())
    }

    /// A named event of JSON.
    pub(super) fn named(name: &'static str, body: &impl Serialize) -> Self {
        match Self::json(body) {
            Self::Event(data) => Self::Named(name, data),
            other => other,
        }
    }
}

/// What yields frames until it gives `None`.
pub(super) trait Frames: Send + 'static {
    /// The next frame.
    fn next(&mut self) -> impl Future<Output = Option<Frame>> + Send;
}

/// A response that sends the frames as they come. Dropping it, when the client leaves, drops them.
pub(super) fn respond(frames: impl Frames) -> Response {
    let mut response = Sse::new(events(frames)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn events(frames: impl Frames) -> impl Stream<Item = Result<Event, Cut>> + Send {
    unfold(Some(frames), |frames| async move {
        let mut frames = frames?;
        match frames.next().await? {
            Frame::Event(data) => Some((Ok(Event::default().data(data)), Some(frames))),
            Frame::Named(name, data) => Some((Ok(Event::default().event(name).data(data)), Some(frames))),
            Frame::Cut => {
                // What was sent before has to reach the socket first; the server flushes when nothing is ready.
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Err(Cut), None))
            }
        }
    })
}
