use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::images::budget::SourceMemory;
use crate::images::limits::ImageLimits;
use crate::images::resolve::SystemLookup;

const PNG: &[u8] = b"\x89PNG not decoded here";
const MAX_BYTES: u64 = 1 << 20;

/// What a server does after it has read a request head.
#[derive(Clone)]
enum Act {
    Send(Vec<u8>),
    Wait(Duration),
}

fn send(text: impl Into<Vec<u8>>) -> Act {
    Act::Send(text.into())
}

/// An HTTP server that plays a script per path and remembers the heads it was sent.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
}

impl Server {
    async fn start(ip: &str, script: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
            open: Arc::default(),
            most_open: Arc::default(),
        };
        let (heads, open, most_open) = (server.heads.clone(), server.open.clone(), server.most_open.clone());
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heads, open, most_open, script) = (heads.clone(), open.clone(), most_open.clone(), script.clone());
                tokio::spawn(async move {
                    most_open.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = answer(stream, &heads, &*script).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

async fn answer(
    mut stream: TcpStream,
    heads: &Mutex<Vec<String>>,
    script: &(dyn Fn(&str) -> Vec<Act> + Sync),
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().unwrap().push(head);
    for act in script(&path) {
        match act {
            Act::Send(bytes) => stream.write_all(&bytes).await?,
            Act::Wait(time) => tokio::time::sleep(time).await,
        }
    }
    stream.shutdown().await
}

fn ok(body: &[u8]) -> Vec<Act> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![send([head.as_bytes(), body].concat())]
}

fn status(line: &str) -> Vec<Act> {
    vec![send(format!("HTTP/1.1 {line}\r\ncontent-length: 3\r\n\r\nabc"))]
}

fn redirect(location: &str) -> Vec<Act> {
    vec![send(format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"))]
}

/// A resolver that gives each answer once and the last one for ever.
struct Script {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: answers.iter().map(parse).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for Script {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let answer = self.answers[turn].clone();
        Box::pin(async move { Ok(answer) })
    }
}

fn allowing(targets: &[&str]) -> FetchPolicy {
    FetchPolicy { allow: targets.iter().map(|target| target.parse().unwrap()).collect(), ..FetchPolicy::default() }
}

fn fetcher(policy: FetchPolicy) -> Fetcher {
    Fetcher::new(policy, Arc::new(SystemLookup::default())).unwrap()
}

fn budget(limits: &ImageLimits) -> RequestBudget {
    SourceMemory::new(limits).budget(limits)
}

async fn fetch(fetcher: &Fetcher, url: &Url) -> Result<Bytes, ImageFault> {
    fetcher.fetch(url, MAX_BYTES, &budget(&ImageLimits::default())).await
}

/// Fetches `path` of a server at an allowed address.
async fn fetch_from(
    script: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static,
    path: &str,
) -> Result<Bytes, ImageFault> {
    let server = Server::start("127.0.0.1", script).await;
    fetch(&fetcher(allowing(&["127.0.0.1"])), &server.url(path)).await
}

#[tokio::test]
async fn an_allowed_address_is_fetched_without_traces_of_this_server() {
    let server = Server::start("127.0.0.1", |_| ok(PNG)).await;
    assert_eq!(fetch(&fetcher(allowing(&["127.0.0.0/8"])), &server.url("/a?b")).await.unwrap(), PNG);
    let head = server.heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with("get /a?b http/1.1\r\n") && head.contains("user-agent: text-generation-vlm\r\n"),
        "{head}"
    );
    for field in ["accept-encoding", "cookie", "authorization", "referer", "forwarded", "via", "range"] {
        assert!(!head.contains(field), "{head}");
    }
}

#[tokio::test]
async fn a_private_address_is_not_even_connected_to() {
    let server = Server::start("127.0.0.1", |_| ok(PNG)).await;
    let port = server.address.port();
    let fetcher = Fetcher::new(FetchPolicy::default(), Script::new(&[&["127.0.0.1", "::1"]])).unwrap();
    for host in ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "public.example", "localhost"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        assert_eq!(fetch(&fetcher, &url).await, Err(ImageFault::Unavailable), "{host}");
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn refused_unreachable_and_useless_are_one_text() {
    let unreachable = fetch(&fetcher(allowing(&["127.0.0.1"])), &"http://127.0.0.1:1/".parse().unwrap()).await;
    let refused = fetch(&fetcher(allowing(&[])), &"http://127.0.0.1:1/".parse().unwrap()).await;
    assert_eq!(unreachable, refused);
    assert_eq!(fetch_from(|_| status("404 Not Found"), "/").await, refused);
}

#[tokio::test]
async fn the_judged_address_is_the_connected_one_and_is_asked_for_once() {
    let judged = Server::start("127.0.0.2", |_| ok(PNG)).await;
    let lookup = Script::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let fetcher = Fetcher::new(allowing(&["127.0.0.2"]), lookup.clone()).unwrap();
    let url = format!("http://changing.example:{}/", judged.address.port()).parse().unwrap();
    assert_eq!(fetch(&fetcher, &url).await.unwrap(), PNG);
    assert_eq!(lookup.asked.load(Ordering::SeqCst), 1);
    assert_eq!(fetch(&fetcher, &url).await, Err(ImageFault::Unavailable), "the second answer is refused");
    assert_eq!(lookup.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn of_several_addresses_only_the_permitted_ones_are_tried() {
    let permitted = Server::start("127.0.0.2", |_| ok(PNG)).await;
    let refused = TcpListener::bind(("127.0.0.1", permitted.address.port())).await.unwrap();
    let fetcher = Fetcher::new(allowing(&["127.0.0.2"]), Script::new(&[&["127.0.0.1", "127.0.0.2"]])).unwrap();
    let url = format!("http://both.example:{}/", permitted.address.port()).parse().unwrap();
    assert_eq!(fetch(&fetcher, &url).await.unwrap(), PNG);
    assert!(tokio::time::timeout(Duration::from_millis(50), refused.accept()).await.is_err());
}

#[tokio::test]
async fn an_allowed_host_is_fetched_wherever_it_lives() {
    let server = Server::start("127.0.0.1", |_| ok(PNG)).await;
    let fetcher = Fetcher::new(allowing(&["images.internal"]), Script::new(&[&["127.0.0.1"]])).unwrap();
    let url = |host: &str| format!("http://{host}:{}/", server.address.port()).parse().unwrap();
    assert_eq!(fetch(&fetcher, &url("images.internal")).await.unwrap(), PNG);
    assert_eq!(fetch(&fetcher, &url("other.internal")).await, Err(ImageFault::Unavailable));
}

#[tokio::test]
async fn a_redirect_is_judged_like_the_first_url() {
    let inner = Server::start("127.0.0.1", |_| ok(PNG)).await;
    let target = inner.url("/secret").to_string();
    let outer = Server::start("127.0.0.2", move |_| redirect(&target)).await;
    assert_eq!(fetch(&fetcher(allowing(&["127.0.0.2"])), &outer.url("/")).await, Err(ImageFault::Unavailable));
    assert_eq!((outer.requests(), inner.requests()), (1, 0));
}

#[tokio::test]
async fn redirects_to_what_is_no_image_url_are_refused() {
    for location in [
        "file:///etc/passwd",
        "ftp://a/",
        "data:image/png;base64,AAAA",
        "http://u:p@127.0.0.1/",
        "http://",
        "/a b",
        "\\\\a\\b",
        "",
    ] {
        let location = location.to_owned();
        let found = fetch_from(move |path| if path == "/" { redirect(&location) } else { ok(PNG) }, "/").await;
        // An empty location means the same document again, until the redirects are used up.
        assert_eq!(found, Err(ImageFault::Unavailable));
    }
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    let script = |path: &str| match path {
        "/4" => redirect("/3"),
        "/3" => redirect("2?x#y"),
        "/2?x" => redirect("./1"),
        "/1" => redirect("/0"),
        _ => ok(PNG),
    };
    assert_eq!(fetch_from(script, "/3").await.unwrap(), PNG);
    assert_eq!(fetch_from(script, "/4").await, Err(ImageFault::Unavailable));
}

#[tokio::test]
async fn cookies_are_not_kept_between_hops() {
    let server = Server::start("127.0.0.1", |path| if path == "/" { redirect("/next") } else { ok(PNG) }).await;
    assert!(fetch(&fetcher(allowing(&["127.0.0.1"])), &server.url("/")).await.is_ok());
    assert!(server.heads.lock().unwrap().iter().all(|head| !head.contains("cookie")));
}

#[tokio::test]
async fn only_status_200_counts() {
    for line in [
        "201 Created",
        "204 No Content",
        "206 Partial Content",
        "304 Not Modified",
        "401 Unauthorized",
        "404 Not Found",
        "500 Oops",
    ] {
        assert_eq!(fetch_from(move |_| status(line), "/").await, Err(ImageFault::Unavailable), "{line}");
    }
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_not_read() {
    let script =
        |_: &str| vec![send("HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n"), Act::Wait(Duration::from_mins(1))];
    assert_eq!(fetch_from(script, "/").await, Err(ImageFault::TooManyBytes { limit: MAX_BYTES }));
}

#[tokio::test]
async fn an_undeclared_length_is_counted() {
    let endless = |_: &str| {
        let mut acts = vec![send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")];
        acts.extend(std::iter::repeat_n(send(vec![7; 64 << 10]), 64));
        acts
    };
    assert_eq!(fetch_from(endless, "/").await, Err(ImageFault::TooManyBytes { limit: MAX_BYTES }));
    let chunked = |_: &str| {
        let chunk = [b"80000\r\n".as_slice(), &vec![7; 0x8_0000], b"\r\n"].concat();
        vec![
            send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            send(chunk.clone()),
            send(chunk.clone()),
            send(chunk),
        ]
    };
    assert_eq!(fetch_from(chunked, "/").await, Err(ImageFault::TooManyBytes { limit: MAX_BYTES }));
}

#[tokio::test]
async fn exactly_the_limit_passes() {
    let body = vec![7; MAX_BYTES as usize];
    assert_eq!(fetch_from(move |_| ok(&body), "/").await.unwrap().len() as u64, MAX_BYTES);
}

#[tokio::test]
async fn a_length_that_lies_is_no_answer() {
    let short = |_: &str| vec![send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")];
    assert_eq!(fetch_from(short, "/").await, Err(ImageFault::Unavailable));
    let long = |_: &str| vec![send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef")];
    assert_eq!(fetch_from(long, "/").await.unwrap(), &b"abc"[..]);
    let broken = |_: &str| vec![send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")];
    assert_eq!(fetch_from(broken, "/").await, Err(ImageFault::Unavailable));
    assert_eq!(fetch_from(|_| vec![send("no http at all\r\n\r\n")], "/").await, Err(ImageFault::Unavailable));
}

#[tokio::test]
async fn content_encoding_is_not_undone() {
    let script =
        |_: &str| vec![send("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x08\x07")];
    assert_eq!(fetch_from(script, "/").await.unwrap(), &b"\x1f\x08\x07"[..]);
}

#[tokio::test]
async fn a_slow_drip_is_cut() {
    let drip = |_: &str| {
        let mut acts = vec![send("HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")];
        (0..200).for_each(|_| acts.extend([send("x"), Act::Wait(Duration::from_millis(20))]));
        acts
    };
    let server = Server::start("127.0.0.1", drip).await;
    let policy = FetchPolicy { slow_start: Duration::from_millis(200), ..allowing(&["127.0.0.1"]) };
    let started = Instant::now();
    assert_eq!(fetch(&fetcher(policy), &server.url("/")).await, Err(ImageFault::TooSlow));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_rate_above_the_minimum_may_take_longer_than_the_slow_start() {
    let steady = |_: &str| {
        let mut acts = vec![send("HTTP/1.1 200 OK\r\ncontent-length: 10240\r\n\r\n")];
        (0..10).for_each(|_| acts.extend([send(vec![7; 1024]), Act::Wait(Duration::from_millis(20))]));
        acts
    };
    let server = Server::start("127.0.0.1", steady).await;
    let policy = FetchPolicy {
        slow_start: Duration::from_millis(100),
        min_bytes_per_second: 10 << 10,
        ..allowing(&["127.0.0.1"])
    };
    assert_eq!(fetch(&fetcher(policy), &server.url("/")).await.unwrap().len(), 10 << 10);
}

#[tokio::test]
async fn one_host_gets_no_more_than_its_share() {
    let slow = |_: &str| [vec![Act::Wait(Duration::from_millis(30))], ok(PNG)].concat();
    let server = Server::start("127.0.0.1", slow).await;
    let fetcher = fetcher(FetchPolicy { max_fetches_per_host: 2, ..allowing(&["127.0.0.1"]) });
    let url = server.url("/");
    let bodies = join_all((0..8).map(|_| fetch(&fetcher, &url))).await;
    assert!(bodies.iter().all(Result::is_ok));
    assert!(server.most_open.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn the_bytes_of_a_request_are_counted_together() {
    let server = Server::start("127.0.0.1", |_| ok(&[7; 1000])).await;
    let fetcher = fetcher(allowing(&["127.0.0.1"]));
    let budget = budget(&ImageLimits { max_bytes: 1000, max_request_bytes: 1500, ..ImageLimits::default() });
    assert!(fetcher.fetch(&server.url("/"), MAX_BYTES, &budget).await.is_ok());
    let second = fetcher.fetch(&server.url("/"), MAX_BYTES, &budget).await;
    assert_eq!(second, Err(ImageFault::TooManyRequestBytes { limit: 1500 }));
}

#[tokio::test]
async fn hosts_without_downloads_are_forgotten() {
    let fetcher = fetcher(FetchPolicy::default());
    for host in 0..3 * MAX_REMEMBERED_HOSTS {
        drop(fetcher.host_places(&host.to_string()));
    }
    assert!(fetcher.hosts.lock().unwrap().len() <= MAX_REMEMBERED_HOSTS);
}
