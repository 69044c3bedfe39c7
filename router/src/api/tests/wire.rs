//! The routes behind real connections: what clients see who break off, dawdle, or send too much.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::fake::Script;
use super::fixture::Setup;
use crate::api::RequestLimits;
use crate::engine::GenerationError;
use crate::server::{HttpLimits, serve};

const PATIENCE: Duration = Duration::from_secs(20);

async fn listen(setup: &Setup) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, setup.router(), HttpLimits::default(), std::future::pending()));
    address
}

fn small_limits() -> Setup {
    let limits = RequestLimits {
        payload_limit: 1000,
        body_pause: Duration::from_millis(200),
        body_timeout: Duration::from_millis(600),
        ..RequestLimits::default()
    };
    Setup { limits, ..Setup::playing([Script::ended("x")]) }
}

/// Everything the server says to these pieces, sent with pauses between.
async fn conversation(setup: &Setup, pieces: &[&str]) -> String {
    let mut stream = TcpStream::connect(listen(setup).await).await.unwrap();
    for piece in pieces {
        // The server may have answered and closed already.
        let _ = stream.write_all(piece.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(length: &str) -> String {
    format!(
        "POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n{length}\r\n\r\n"
    )
}

#[track_caller]
fn check(answer: &str, status: &str, error_type: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains(&format!("\"error_type\":\"{error_type}\"")), "{answer}");
}

#[tokio::test]
async fn a_large_body_is_read_before_it_is_refused() {
    let body = "a".repeat(200_000);
    let answer = conversation(&small_limits(), &[&head("content-length: 200000"), &body]).await;
    check(&answer, "413", "payload_too_large");
}

#[tokio::test]
async fn a_large_body_in_chunks_is_refused_where_it_becomes_too_large() {
    let chunk = format!("400\r\n{}\r\n", "a".repeat(1024));
    let answer =
        conversation(&small_limits(), &[&head("transfer-encoding: chunked"), &chunk, &chunk, "0\r\n\r\n"]).await;
    check(&answer, "413", "payload_too_large");
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_told_to_go_on() {
    let answer = conversation(&small_limits(), &[&head("content-length: 200000\r\nexpect: 100-continue")]).await;
    check(&answer, "413", "payload_too_large");
    assert!(!answer.contains("100 Continue"), "{answer}");
}

#[tokio::test]
async fn broken_chunks_are_400() {
    let answer = conversation(&small_limits(), &[&head("transfer-encoding: chunked"), "zz\r\n{}\r\n"]).await;
    check(&answer, "400", "bad_request");
}

#[tokio::test]
async fn a_pause_in_a_body_is_408() {
    let started = Instant::now();
    let answer = conversation(&small_limits(), &[&head("content-length: 20"), "{\"inputs\""]).await;
    check(&answer, "408", "request_timeout");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_body_in_drips_is_408() {
    let drips = vec!["a"; 20];
    let pieces: Vec<&str> = std::iter::once(head("content-length: 500").leak() as &str).chain(drips).collect();
    check(&conversation(&small_limits(), &pieces).await, "408", "request_timeout");
}

fn stream_request() -> String {
    let body = r#"{"inputs": "q"}"#;
    let fields = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    format!("POST /generate_stream HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_stream_ends_with_the_last_chunk() {
    let setup = Setup::playing([Script::ended("ab")]);
    let close = stream_request().replacen("host: a", "host: a\r\nconnection: close", 1);
    let answer = conversation(&setup, &[&close]).await;
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_lost_shard_is_told_and_leaves_the_last_chunk_out() {
    let setup = Setup::playing([Script::text("ab").then_fails(GenerationError::ShardLost)]);
    let answer = conversation(&setup, &[&stream_request()]).await;
    assert!(answer.contains("\"error_type\":\"generation\"}\n\n"), "{answer}");
    assert!(!answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_sequence() {
    for (script, bytes) in [(Script::text("ab").then_hangs(), 200), (Script::default().then_hangs(), 0)] {
        let setup = Setup::playing([script]);
        let mut stream = TcpStream::connect(listen(&setup).await).await.unwrap();
        stream.write_all(stream_request().as_bytes()).await.unwrap();
        let mut answer = vec![0; bytes];
        stream.read_exact(&mut answer).await.unwrap();
        until(|| setup.fake.live() == 1).await;
        drop(stream);
        until(|| setup.fake.live() == 0).await;
    }
}

async fn until(met: impl Fn() -> bool) {
    let waited = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), waited).await.expect("in time");
}
