//! Connections: accepted up to a limit, watched for clients that dawdle, let go one by one at the end. Knows HTTP/1.1
//! framing and time, no routes.
//!
//! `axum::serve` installs no timer, so that hyper's own limits would be inert; hence a loop of our own.

mod activity;
mod connection;

use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Pause after a failed accept: descriptors are short, and asking again at once helps nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits on connections, each with a default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpLimits {
    /// Connections at once; more wait in the listener's backlog.
    pub max_connections: usize,
    /// Time from the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Time a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Time a client may go without reading while there is something for it to read.
    pub write_timeout: Duration,
    /// The same once the server is about to stop.
    pub drain_write_timeout: Duration,
    /// Fields of a head before hyper refuses it without a body. The routes' own limit lies below.
    pub max_headers: usize,
    /// Bytes of a head, likewise; also what is buffered of a response.
    pub max_buffer_bytes: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            drain_write_timeout: Duration::from_secs(5),
            max_headers: 200,
            max_buffer_bytes: 128 << 10,
        }
    }
}

/// Serves until `shutdown` is done, then accepts nothing more and waits for responses that are under way; idle
/// connections are closed at once. Dropping the future cuts what is left.
pub async fn serve(listener: TcpListener, router: Router, limits: HttpLimits, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let connections = Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS));
    let mut server = Server { router, limits, stopping, connections: connections.into(), tasks: JoinSet::new() };
    tokio::select! {
        () = server.accept(&listener) => {}
        () = shutdown => {}
    }
    drop(listener);
    let _ = stop.send(true);
    while server.tasks.join_next().await.is_some() {}
}

struct Server {
    router: Router,
    limits: HttpLimits,
    stopping: watch::Receiver<bool>,
    connections: std::sync::Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Accepts for ever.
    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            let Ok(permit) = std::sync::Arc::clone(&self.connections).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _peer)) => self.start(stream, permit),
                Err(error) => pause(&error).await,
            }
            // Finished tasks are kept until somebody asks for them.
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn start(&mut self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Tokens are small and each is to go out at once.
        let _ = stream.set_nodelay(true);
        let connection = connection::serve(stream, self.router.clone(), self.limits.clone(), self.stopping.clone());
        self.tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
}

async fn pause(error: &io::Error) {
    // A client that was gone before it was accepted is no news.
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "no connection could be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
