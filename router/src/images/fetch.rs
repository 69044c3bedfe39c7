//! Downloading an image from a URL that a stranger chose.
//!
//! Every hop is judged: literals here, names by the resolver the client is given. No proxy, cookie, credential,
//! referrer or content decoding; only status 200 counts. Connections are not kept, so that each one belongs to a
//! judgement of its own. Refused, unreachable and useless answers share one error; the reason goes to the debug log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::LOCATION;
use reqwest::{Client, Response, StatusCode, redirect, retry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::budget::RequestBudget;
use super::error::ImageFault;
use super::policy::FetchPolicy;
use super::resolve::{JudgingResolver, Lookup};
use super::source::{InvalidImageUrl, MAX_URL_BYTES, check_remote, has_forbidden_characters};

/// Says what this is, not where it runs.
const USER_AGENT: &str = "text-generation-vlm";

/// Header fields of an answer.
const MAX_HEADERS: usize = 100;

/// Hosts remembered before those without downloads are forgotten.
const MAX_REMEMBERED_HOSTS: usize = 1024;

/// Makes `ring` the process's TLS implementation. Harmless if one was chosen before.
pub fn install_crypto_provider() {
    // The error means that somebody else chose first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Downloads images within one policy.
pub(super) struct Fetcher {
    client: Client,
    policy: Arc<FetchPolicy>,
    places: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
}

enum Hop {
    Body(Bytes),
    Redirect(Url),
}

/// The right to download from one host, and to download at all.
struct Place {
    _host: OwnedSemaphorePermit,
    _any: OwnedSemaphorePermit,
}

impl Fetcher {
    pub(super) fn new(policy: FetchPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        install_crypto_provider();
        let policy = Arc::new(policy);
        let client = client(&policy, &Arc::new(JudgingResolver { lookup, policy: policy.clone() }))?;
        let places = Arc::new(Semaphore::new(policy.max_fetches));
        Ok(Self { client, policy, places, hosts: Mutex::default() })
    }

    pub(super) fn enabled(&self) -> bool {
        self.policy.enabled
    }

    /// The body behind `url`, after at most the policy's number of redirects.
    pub(super) async fn fetch(&self, url: &Url, max_bytes: u64, budget: &RequestBudget) -> Result<Bytes, ImageFault> {
        let mut url = url.clone();
        for _ in 0..=self.policy.max_redirects {
            match self.hop(url, max_bytes, budget).await? {
                Hop::Body(bytes) => return Ok(bytes),
                Hop::Redirect(next) => url = next,
            }
        }
        Err(unavailable("too many redirects"))
    }

    async fn hop(&self, url: Url, max_bytes: u64, budget: &RequestBudget) -> Result<Hop, ImageFault> {
        if !self.policy.permits_host(&url) {
            return Err(unavailable("address not permitted"));
        }
        let _place = self.place(&url).await?;
        let response = self.client.get(url.clone()).send().await.map_err(|error| unavailable(reason(&error)))?;
        if response.status().is_redirection() {
            return redirect_target(&url, &response).map(Hop::Redirect);
        }
        if response.status() != StatusCode::OK {
            return Err(unavailable("status is not 200"));
        }
        self.read(response, max_bytes, budget).await.map(Hop::Body)
    }

    async fn read(&self, mut response: Response, max_bytes: u64, budget: &RequestBudget) -> Result<Bytes, ImageFault> {
        let declared = response.content_length().unwrap_or(0);
        if declared > max_bytes {
            return Err(ImageFault::TooManyBytes { limit: max_bytes });
        }
        let started = Instant::now();
        let mut body = BytesMut::new();
        loop {
            // What arrived so far buys the time until the next piece.
            let deadline = started + self.policy.slow_start + self.rate_time(body.len());
            let piece = timeout_at(deadline, response.chunk()).await.map_err(|_| ImageFault::TooSlow)?;
            let Some(piece) = piece.map_err(|error| unavailable(reason(&error)))? else { break };
            if (body.len() + piece.len()) as u64 > max_bytes {
                return Err(ImageFault::TooManyBytes { limit: max_bytes });
            }
            budget.take_bytes(piece.len() as u64)?;
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn rate_time(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / f64::from(self.policy.min_bytes_per_second.max(1)))
    }

    /// Waits for the host first, so that a slow host's queue does not hold places that others could use.
    async fn place(&self, url: &Url) -> Result<Place, ImageFault> {
        let host = self.host_places(url.host_str().unwrap_or_default());
        let closed = |_| ImageFault::Internal;
        Ok(Place {
            _host: host.acquire_owned().await.map_err(closed)?,
            _any: self.places.clone().acquire_owned().await.map_err(closed)?,
        })
    }

    fn host_places(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = hosts.get(host).and_then(Weak::upgrade) {
            return places;
        }
        if hosts.len() >= MAX_REMEMBERED_HOSTS {
            hosts.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(self.policy.max_fetches_per_host));
        hosts.insert(host.to_owned(), Arc::downgrade(&places));
        places
    }
}

fn client(policy: &FetchPolicy, resolver: &Arc<JudgingResolver>) -> Result<Client, reqwest::Error> {
    let builder = || {
        Client::builder()
            .dns_resolver(resolver.clone())
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(policy.connect_timeout)
            .pool_max_idle_per_host(0)
            .http1_only()
            .http1_max_headers(MAX_HEADERS)
    };
    builder().build().or_else(|_| {
        // A machine without root certificates still serves plain http, and says so once.
        tracing::warn!("no root certificates found: https image URLs will be refused");
        builder().tls_certs_only([]).build()
    })
}

/// The target of a redirect, judged as strictly as a URL from a client.
fn redirect_target(from: &Url, response: &Response) -> Result<Url, ImageFault> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.filter(|text| text.len() <= MAX_URL_BYTES && !has_forbidden_characters(text));
    let target = location.ok_or(InvalidImageUrl::Malformed).and_then(|text| {
        let joined = from.join(text).map_err(|_| InvalidImageUrl::Malformed)?;
        check_remote(joined)
    });
    target.map_err(|_| unavailable("redirect to a URL that is not fetched"))
}

/// Same text for the client whatever happened: differences would tell which internal addresses answer.
fn unavailable(reason: &'static str) -> ImageFault {
    tracing::debug!(reason, "an image was not fetched");
    ImageFault::Unavailable
}

fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "no permitted address, or no connection"
    } else {
        "broken answer"
    }
}

#[cfg(test)]
mod tests;
