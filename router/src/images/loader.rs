//! All images of a request, side by side: bytes, identity, cache, decode pool.
//!
//! Dropping the future of [`ImageLoader::load`] ends its downloads and everything that waits; work that already runs
//! on a decode thread finishes and is forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use text_generation_scheduler::ImageKey;
use url::Url;

use crate::families::{ImageLayout, ImageSize, VlmFamily};

use super::budget::{RequestBudget, SourceMemory};
use super::cache::{Flights, ImageCache};
use super::decode::{self, Header};
use super::detail::{Detail, WantedImage};
use super::error::{ImageError, ImageFault};
use super::fetch::Fetcher;
use super::identity;
use super::limits::ImageLimits;
use super::policy::FetchPolicy;
use super::pool::{DecodePool, Place};
use super::prepare::{self, ImageModel, ImageTimings, PreparedImage};
use super::resolve::{Lookup, SystemLookup};
use super::source::ImageSource;
use super::view::RgbView;

/// Below this, hashing is faster than handing the work to another thread.
const HASH_INLINE_BYTES: usize = 64 << 10;

/// An image of a request, ready for prompt and shard. Cheap to clone.
#[derive(Clone)]
pub struct LoadedImage {
    /// Names exactly these views of exactly this model.
    pub key: ImageKey,
    /// Size of the upright original.
    pub size: ImageSize,
    /// Views and tokens.
    pub layout: Arc<ImageLayout>,
    /// The pixels of the views, in the layout's order.
    pub views: Arc<Vec<RgbView>>,
    /// What this request spent on it.
    pub timings: ImageTimings,
    /// When it was ready for this request.
    pub ready: Instant,
    /// Whether decoding and resizing were saved by an earlier or simultaneous image of the same bytes.
    pub from_cache: bool,
}

impl std::fmt::Debug for LoadedImage {
    /// Without the pixels: an image in a log line is its name and size.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LoadedImage").field("key", &self.key).field("size", &self.size).finish_non_exhaustive()
    }
}

/// The loader could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The HTTP client refused its settings.
    #[error("the image download client could not be built")]
    Client(#[source] reqwest::Error),
}

/// Loads the images of requests. Cheap to clone.
#[derive(Clone)]
pub struct ImageLoader(Arc<Shared>);

struct Shared {
    model: ImageModel,
    /// The same model in a prompt with several images.
    several: ImageModel,
    /// The same model at low detail, unless that is nothing else to it.
    low_detail: Option<ImageModel>,
    limits: ImageLimits,
    fetcher: Fetcher,
    memory: SourceMemory,
    pool: DecodePool,
    cache: ImageCache,
    flights: Flights,
}

impl ImageLoader {
    /// A loader for one model.
    ///
    /// `model_identity` must differ whenever checkpoint, revision or processor settings do.
    pub fn new(
        family: Arc<dyn VlmFamily>,
        model_identity: [u8; 32],
        limits: ImageLimits,
        fetch: FetchPolicy,
    ) -> Result<Self, LoaderError> {
        let model = ImageModel { family, identity: model_identity };
        Self::with_lookup(model, limits, fetch, Arc::new(SystemLookup::default()))
    }

    fn with_lookup(
        model: ImageModel,
        limits: ImageLimits,
        fetch: FetchPolicy,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, LoaderError> {
        let fetcher = Fetcher::new(fetch, lookup).map_err(LoaderError::Client)?;
        let (memory, pool) = (SourceMemory::new(&limits), DecodePool::new(&limits));
        let cache = ImageCache::new(limits.cache_bytes);
        let (several, low_detail, flights) = (model.of_several(), model.of_low_detail(), Flights::default());
        Ok(Self(Arc::new(Shared { model, several, low_detail, limits, fetcher, memory, pool, cache, flights })))
    }

    /// The limits this loader works within.
    pub fn limits(&self) -> &ImageLimits {
        &self.0.limits
    }

    /// Loads images side by side, keeping their order. The first image that fails fails them all and is named.
    pub async fn load<I: Into<WantedImage>>(&self, images: Vec<I>) -> Result<Vec<LoadedImage>, ImageError> {
        let (count, limits) = (images.len(), &self.0.limits);
        if count > limits.max_images {
            return Err(ImageError::TooMany { count, limit: limits.max_images });
        }
        let budget = self.0.memory.budget(limits);
        let images: Vec<WantedImage> = images.into_iter().map(Into::into).collect();
        for (index, image) in images.iter().enumerate() {
            self.0.check(&image.source, &budget).map_err(|fault| fault.at(index, count))?;
        }
        let images = images.into_iter().enumerate().map(|(index, image)| {
            let rules = Rules { model: self.0.model(count, image.detail), budget: &budget };
            let image = self.0.load_one(image.source, rules);
            async move { image.await.map_err(|fault| fault.at(index, count)) }
        });
        let timed_out = |_| ImageError::TimedOut { seconds: limits.media_timeout.as_secs() };
        tokio::time::timeout(limits.media_timeout, try_join_all(images)).await.map_err(timed_out)?
    }
}

/// What an image of a request is prepared for, and within.
#[derive(Copy, Clone)]
struct Rules<'a> {
    model: &'a ImageModel,
    budget: &'a RequestBudget,
}

impl Shared {
    /// The model as it sees an image of a request with `count` of them.
    fn model(&self, count: usize, detail: Detail) -> &ImageModel {
        let low = self.low_detail.as_ref().filter(|_| detail == Detail::Low);
        low.unwrap_or(if count > 1 { &self.several } else { &self.model })
    }

    /// What can be known before the first byte is fetched.
    fn check(&self, source: &ImageSource, budget: &RequestBudget) -> Result<(), ImageFault> {
        match source {
            ImageSource::Remote(_) if !self.fetcher.enabled() => Err(ImageFault::FetchingOff),
            ImageSource::Inline(bytes) if bytes.len() as u64 > self.limits.max_bytes => {
                Err(ImageFault::TooManyBytes { limit: self.limits.max_bytes })
            }
            ImageSource::Inline(bytes) => budget.take_bytes(bytes.len() as u64),
            ImageSource::Remote(_) => Ok(()),
        }
    }

    async fn load_one(&self, source: ImageSource, rules: Rules<'_>) -> Result<LoadedImage, ImageFault> {
        match source {
            ImageSource::Inline(bytes) => self.prepare(bytes, Duration::ZERO, rules).await,
            ImageSource::Remote(url) => self.load_remote(&url, rules).await,
        }
    }

    async fn load_remote(&self, url: &Url, rules: Rules<'_>) -> Result<LoadedImage, ImageFault> {
        let started = Instant::now();
        let bytes = self.fetcher.fetch(url, self.limits.max_bytes, rules.budget).await?;
        self.prepare(bytes, started.elapsed(), rules).await
    }

    async fn prepare(&self, bytes: Bytes, fetch: Duration, rules: Rules<'_>) -> Result<LoadedImage, ImageFault> {
        let key = source_key(&rules.model.identity, &bytes).await?;
        if let Some(image) = self.cache.get(&key) {
            return Ok(loaded(image, fetch, true));
        }
        let place = self.pool.enter()?;
        let header = self.read_header(&place, bytes.clone()).await?;
        rules.budget.take_pixels(header.size.pixels())?;
        let mut first = false;
        let flight = self.flights.join(key);
        let image = flight.outcome(async {
            // The preparation of a simultaneous image may have ended while this one's header was read.
            if let Some(image) = self.cache.get(&key) {
                return Ok(image);
            }
            first = true;
            let image = self.decode(&place, bytes, header, rules.model).await?;
            self.cache.insert(key, image.clone());
            Ok(image)
        });
        let image = image.await?;
        Ok(loaded(image, fetch, !first))
    }

    async fn read_header(&self, place: &Place, bytes: Bytes) -> Result<Header, ImageFault> {
        let limits = self.limits.clone();
        self.pool.run(place, 0, move || decode::read_header(&bytes, &limits)).await?
    }

    async fn decode(
        &self,
        place: &Place,
        bytes: Bytes,
        header: Header,
        model: &ImageModel,
    ) -> Result<PreparedImage, ImageFault> {
        let model = model.clone();
        self.pool.run(place, header.decode_bytes(), move || prepare::prepare(&bytes, header, &model)).await?
    }
}

async fn source_key(model: &[u8; 32], bytes: &Bytes) -> Result<[u8; 32], ImageFault> {
    if bytes.len() <= HASH_INLINE_BYTES {
        return Ok(identity::source_key(model, bytes));
    }
    let (model, bytes) = (*model, bytes.clone());
    let hash = tokio::task::spawn_blocking(move || identity::source_key(&model, &bytes));
    hash.await.map_err(|_| ImageFault::Internal)
}

fn loaded(image: PreparedImage, fetch: Duration, from_cache: bool) -> LoadedImage {
    let PreparedImage { key, size, layout, views, timings } = image;
    let spent = if from_cache { ImageTimings::default() } else { timings };
    LoadedImage {
        key,
        size,
        layout,
        views,
        timings: ImageTimings { fetch, ..spent },
        ready: Instant::now(),
        from_cache,
    }
}

#[cfg(test)]
mod tests;
