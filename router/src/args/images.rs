//! Which images are fetched, decoded and kept. The safe answer is the default; a flag opens what it names.

use std::time::Duration;

use clap::builder::BoolishValueParser;

/// Fetching and decoding.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Images")]
pub struct ImageArgs {
    /// Host, address or network (10.0.0.0/8) that images may be fetched from although it is not public. Repeatable.
    #[arg(long, env = "IMAGE_ALLOW_ADDRESS", value_delimiter = ',', value_name = "HOST|NETWORK")]
    pub image_allow_address: Vec<String>,

    /// Fetch nothing: images come only as `data:` URLs.
    #[arg(long, env = "DISABLE_IMAGE_FETCH", value_parser = BoolishValueParser::new())]
    pub disable_image_fetch: bool,

    /// Largest image file in bytes, fetched or inline.
    #[arg(long, env = "MAX_IMAGE_FETCH_SIZE", default_value_t = 20 << 20)]
    pub max_image_fetch_size: usize,

    /// Seconds for fetching all images of a request.
    #[arg(long, env = "IMAGE_FETCH_TIMEOUT_S", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    pub image_fetch_timeout_s: u64,

    /// Most images in one request.
    #[arg(long, env = "MAX_IMAGES_PER_REQUEST", default_value_t = 16)]
    pub max_images_per_request: usize,

    /// Most pixels of one image, read from its header before anything is decoded.
    #[arg(long, env = "MAX_IMAGE_PIXELS", default_value_t = 64_000_000)]
    pub max_image_pixels: u64,

    /// Bytes of decoded and resized images that the router keeps; 0 keeps none.
    #[arg(long, env = "IMAGE_CACHE_BYTES", default_value_t = 256 << 20)]
    pub image_cache_bytes: u64,
}

impl ImageArgs {
    /// How long the media phase of a request may take.
    pub fn fetch_timeout(&self) -> Duration {
        Duration::from_secs(self.image_fetch_timeout_s)
    }
}
