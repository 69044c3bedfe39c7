//! A load client that costs next to nothing: counts the events of many `/generate_stream` answers at once.
//!
//!     streams HOST:PORT NUM_STREAMS TOKENS_PER_STREAM
//!
//! Prints one JSON line: tokens per second of all streams together, the longest that any of them waited for the next
//! bytes (the first ones included), and the median time to the first token of one stream at a time. `benchmarks/run.py` starts the router and a shard that computes nothing.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Requests sent one after the other to time the first token.
const SINGLE_REQUESTS: usize = 200;

/// What every event of a stream starts with.
const EVENT: &[u8] = b"data:";

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Answer {
    first: Duration,
    longest_wait: Duration,
    events: usize,
}

async fn stream(address: &str, tokens: usize) -> Result<Answer, Failure> {
    let body = format!(
        r#"{{"inputs":"Count for me, please.","parameters":{{"max_new_tokens":{tokens},"do_sample":false,"details":true}}}}"#
    );
    let head = format!(
        "POST /generate_stream HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    let start = Instant::now();
    connection.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Answer { first: Duration::ZERO, longest_wait: Duration::ZERO, events: 0 };
    let (mut buffer, mut kept, mut last) = (vec![0; 1 << 16], 0, start);
    loop {
        let read = connection.read(&mut buffer[kept..]).await?;
        answer.longest_wait = answer.longest_wait.max(last.elapsed());
        last = Instant::now();
        if read == 0 {
            return if answer.events == tokens { Ok(answer) } else { Err(format!("{} events", answer.events).into()) };
        }
        let filled = kept + read;
        answer.events += count(&buffer[..filled]);
        if answer.first.is_zero() && answer.events > 0 {
            answer.first = start.elapsed();
        }
        // An event's start may be cut in two by the end of a read.
        kept = (EVENT.len() - 1).min(filled);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

fn count(bytes: &[u8]) -> usize {
    bytes.windows(EVENT.len()).filter(|window| *window == EVENT).count()
}

/// Tokens per second, and the longest wait of any stream.
async fn together(address: &str, streams: usize, tokens: usize) -> Result<(f64, Duration), Failure> {
    let start = Instant::now();
    let answers = futures::future::try_join_all((0..streams).map(|_| stream(address, tokens))).await?;
    let events: usize = answers.iter().map(|answer| answer.events).sum();
    let longest = answers.iter().map(|answer| answer.longest_wait).max().unwrap_or_default();
    Ok((events as f64 / start.elapsed().as_secs_f64(), longest))
}

async fn first_token(address: &str) -> Result<f64, Failure> {
    let mut times = Vec::with_capacity(SINGLE_REQUESTS);
    for _ in 0..SINGLE_REQUESTS {
        times.push(stream(address, 8).await?.first);
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").skip(1).collect();
    let [address, streams, tokens] = arguments.as_slice() else {
        return Err("usage: streams HOST:PORT NUM_STREAMS TOKENS_PER_STREAM".into());
    };
    let (streams, tokens) = (streams.parse()?, tokens.parse()?);
    together(address, streams, 16).await?;
    let first = first_token(address).await?;
    let (rate, wait) = together(address, streams, tokens).await?;
    let line = format!(
        "{{\"tokens_per_second\": {rate:.0}, \"longest_wait_ms\": {}, \"first_token_us\": {first:.0}}}\n",
        wait.as_millis()
    );
    tokio::io::stdout().write_all(line.as_bytes()).await?;
    Ok(())
}
