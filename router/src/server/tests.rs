//! Connections over real sockets, with limits short enough to wait for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{HttpLimits, serve};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn short() -> HttpLimits {
    HttpLimits {
        head_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_millis(500),
        drain_write_timeout: Duration::from_millis(300),
        ..HttpLimits::default()
    }
}

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    /// Handlers and bodies nobody has dropped.
    live: Arc<AtomicU32>,
}

struct Counted(Arc<AtomicU32>);

impl Counted {
    fn new(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Running {
    async fn start(limits: HttpLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let live = Arc::new(AtomicU32::new(0));
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, routes(&live), limits, shutdown));
        Self { address, stop, task, live }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn until_live(&self, expected: u32) {
        let waited = async {
            while self.live.load(Ordering::SeqCst) != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, waited).await.expect("work is dropped when its client is gone");
    }
}

fn routes(live: &Arc<AtomicU32>) -> Router {
    let (waiting, endless, slow) = (Arc::clone(live), Arc::clone(live), Arc::clone(live));
    Router::new()
        .route("/quick", get(|| async { "ok" }))
        .route(
            "/never",
            get(|| async move {
                let _counted = Counted::new(&waiting);
                std::future::pending::<&str>().await
            }),
        )
        .route("/endless", get(|| async move { body(Counted::new(&endless), Duration::ZERO, 64 << 10, u32::MAX) }))
        .route("/slow", get(|| async move { body(Counted::new(&slow), Duration::from_millis(100), 1, 10) }))
}

/// `count` pieces of `bytes` bytes, one every `pause`.
fn body(counted: Counted, pause: Duration, bytes: usize, count: u32) -> Body {
    let pieces = futures::stream::unfold((counted, 0), move |(counted, sent)| async move {
        tokio::time::sleep(pause).await;
        (sent < count).then(|| ("x".repeat(bytes), (counted, sent + 1)))
    });
    Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>))
}

const QUICK: &str = "GET /quick HTTP/1.1\r\nhost: a\r\n\r\n";

/// Everything until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the server closes");
    String::from_utf8_lossy(&text).into_owned()
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let length = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn connections_are_reused() {
    let server = Running::start(short()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(QUICK.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut() {
    let server = Running::start(short()).await;
    let started = Instant::now();
    assert_eq!(rest(server.send("GET /quick HTTP/1.1\r\nhost").await).await, "");
    assert!(started.elapsed() < Duration::from_secs(2), "sooner than idle connections");
}

#[tokio::test]
async fn a_second_head_that_does_not_end_is_cut_too() {
    let server = Running::start(short()).await;
    let mut stream = server.send(QUICK).await;
    answer(&mut stream).await;
    stream.write_all(b"GET").await.unwrap();
    let started = Instant::now();
    assert_eq!(rest(stream).await, "");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn idle_connections_are_closed_later() {
    let server = Running::start(short()).await;
    let started = Instant::now();
    assert_eq!(rest(server.connect().await).await, "");
    assert!(started.elapsed() >= Duration::from_millis(1500));
}

#[tokio::test]
async fn broken_framing_is_400() {
    let server = Running::start(short()).await;
    let text = rest(server.send("GET /quick HTTP/1.1\r\nbad header\r\n\r\n").await).await;
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut() {
    let server = Running::start(short()).await;
    let stream = server.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.until_live(1).await;
    server.until_live(0).await;
    drop(stream);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_handler_along() {
    let server = Running::start(short()).await;
    let stream = server.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.until_live(1).await;
    drop(stream);
    server.until_live(0).await;
}

#[tokio::test]
async fn waiting_for_an_answer_is_not_idle() {
    let limits = HttpLimits { idle_timeout: Duration::from_millis(300), ..short() };
    let server = Running::start(limits).await;
    let text = rest(server.send("GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await).await;
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
    assert_eq!(text.matches("1\r\nx\r\n").count(), 10);
}

#[tokio::test]
async fn more_connections_wait_for_a_place() {
    let server = Running::start(HttpLimits { max_connections: 1, ..short() }).await;
    let first = server.send(QUICK).await;
    let mut second = server.send(QUICK).await;
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(200), second.read(&mut byte)).await.is_err());
    drop(first);
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn shutdown_lets_answers_finish_and_no_more() {
    let server = Running::start(short()).await;
    let (idle, half) = (server.connect().await, server.send("GET /qu").await);
    let slow = server.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.until_live(1).await;
    server.stop.send(()).unwrap();
    assert!(rest(slow).await.ends_with("0\r\n\r\n"));
    timeout(PATIENCE, server.task).await.expect("nothing is left").unwrap();
    assert_eq!((rest(idle).await, rest(half).await), (String::new(), String::new()));
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_clients_that_stopped_reading() {
    let server = Running::start(HttpLimits { write_timeout: Duration::from_hours(1), ..short() }).await;
    let stalled = server.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.until_live(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.stop.send(()).unwrap();
    timeout(PATIENCE, server.task).await.expect("the stalled client is cut").unwrap();
    drop(stalled);
}

#[tokio::test]
async fn dropping_the_server_cuts_everything() {
    let server = Running::start(short()).await;
    let stream = server.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.until_live(1).await;
    server.task.abort();
    assert_eq!(rest(stream).await, "");
    assert_eq!(server.live.load(Ordering::SeqCst), 0);
}
