//! What a connection is doing, noted by those who know (its socket, its service) for the one who watches the clock.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::HttpLimits;

/// What a connection is doing.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Phase {
    /// Waiting for a request.
    Idle,
    /// Receiving a head.
    Head,
    /// Receiving a body, working, answering.
    Busy,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has not read.
    stalled: Option<Instant>,
}

/// Shared between the parts of one connection.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { phase: Phase::Idle, since: Instant::now(), stalled: None })))
    }

    /// Whether the client has taken longer than it may. When the server is `stopping`, whoever is not being answered
    /// has to go.
    pub(super) fn is_overdue(&self, limits: &HttpLimits, stopping: bool) -> bool {
        self.with(|state| {
            let over = |since: Instant, limit: Duration| since.elapsed() >= limit;
            let write_timeout = if stopping { limits.drain_write_timeout } else { limits.write_timeout };
            let stalled = state.stalled.is_some_and(|since| over(since, write_timeout));
            stalled
                || match state.phase {
                    Phase::Idle => stopping || over(state.since, limits.idle_timeout),
                    Phase::Head => stopping || over(state.since, limits.head_timeout),
                    Phase::Busy => false,
                }
        })
    }

    /// A head is complete. The connection is busy until what comes back is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.enter(Phase::Busy);
        Busy(self.clone())
    }

    fn enter(&self, phase: Phase) {
        self.with(|state| (state.phase, state.since) = (phase, Instant::now()));
    }

    fn read(&self) {
        self.with(|state| {
            if state.phase == Phase::Idle {
                (state.phase, state.since) = (Phase::Head, Instant::now());
            }
        });
    }

    fn wrote(&self, progress: bool) {
        self.with(|state| match (progress, state.stalled) {
            (true, _) => state.stalled = None,
            (false, None) => state.stalled = Some(Instant::now()),
            (false, Some(_)) => {}
        });
    }

    fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Held while a request is worked on and answered.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// A body that keeps its connection busy until it is through or dropped.
pub(super) struct BusyBody {
    pub(super) body: UnsyncBoxBody<Bytes, axum::Error>,
    pub(super) _busy: Busy,
}

impl Body for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that notes when bytes come and when they do not go.
pub(super) struct WatchedSocket<S> {
    pub(super) socket: S,
    pub(super) activity: Activity,
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.activity.wrote(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.activity.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
