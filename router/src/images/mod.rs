//! Images from a request to what a shard receives: sources, safe fetching, decoding, resizing, identity and caching.
//!
//! [`ImageLoader::load`] is the way in for a server, [`prepare_bytes`] the same work on one thread for a benchmark or
//! a tool. What an image becomes is decided by `families`; this module moves pixels. It knows no HTTP API and no
//! tensors, and reads no flag: limits and policy arrive as values.

mod address;
mod budget;
mod cache;
mod decode;
mod detail;
mod error;
mod fetch;
#[cfg(test)]
pub(crate) mod goldens;
mod identity;
mod limits;
mod loader;
mod policy;
mod pool;
mod prepare;
mod render;
mod resize;
mod resolve;
mod source;
mod view;

pub use decode::{Format, Header, Raster, decode, read_header};
pub use detail::{Detail, WantedImage};
pub use error::{ImageError, ImageErrorKind, ImageFault};
pub use fetch::install_crypto_provider;
pub use limits::{DECODE_BYTES_PER_PIXEL, ImageLimits};
pub use loader::{ImageLoader, LoadedImage, LoaderError};
pub use policy::{AllowedTarget, FetchPolicy, InvalidTarget};
pub use prepare::{ImageModel, ImageTimings, PreparedImage, prepare_bytes};
#[cfg(test)]
pub(crate) use render::{fits, render};
pub use resize::PILLOW_RULE;
pub use source::{ImageSource, InvalidImageUrl, MAX_URL_BYTES};
pub use view::RgbView;
