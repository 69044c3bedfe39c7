//! One connection from accept to close.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use super::HttpLimits;
use super::activity::{Activity, BusyBody, WatchedSocket};

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);

/// Serves a connection until either side closes it, its client dawdles, or the server stops.
pub(super) async fn serve(stream: TcpStream, router: Router, limits: HttpLimits, mut stopping: watch::Receiver<bool>) {
    let activity = Activity::new();
    let socket = TokioIo::new(WatchedSocket { socket: stream, activity: activity.clone() });
    let service = service_fn(|request| answer(router.clone(), activity.clone(), request));
    let mut connection = pin!(protocol(&limits).serve_connection(socket, service));
    let mut clock = tokio::time::interval(TICK);
    let mut stops = false;
    loop {
        tokio::select! {
            // How a connection ended is the client's business; what it did to a request has been told by its drop.
            _ended = connection.as_mut() => return,
            _changed = stopping.wait_for(|stops| *stops), if !stops => {
                stops = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = clock.tick() => {}
        }
        if activity.is_overdue(&limits, stops) {
            return;
        }
    }
}

fn protocol(limits: &HttpLimits) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        // Counts from the end of the previous response on, so it can only be the idle limit; the limit on heads is kept
        // by the clock above.
        .header_read_timeout(limits.idle_timeout)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_buffer_bytes);
    protocol
}

async fn answer(
    router: Router,
    activity: Activity,
    request: Request<Incoming>,
) -> Result<Response<BusyBody>, Infallible> {
    let busy = activity.busy();
    let response = router.oneshot(request.map(Body::new)).await?;
    Ok(response.map(|body| BusyBody { body: body.boxed_unsync(), _busy: busy }))
}
