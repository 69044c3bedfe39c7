//! Every bound on images, with its name and default. Flags fill these in; nothing else in `images` reads a setting.

use std::time::Duration;

/// Decoded pixels cost at most this many bytes each while a decoder works. The dearest is a progressive CMYK JPEG:
/// coefficients, planes, output and the RGB8 copy.
pub const DECODE_BYTES_PER_PIXEL: u64 = 20;

/// Bounds on what one request, and all requests together, may ask of the image path.
#[derive(Clone, Debug)]
pub struct ImageLimits {
    /// Images in one request.
    pub max_images: usize,
    /// Encoded bytes of one image.
    pub max_bytes: u64,
    /// Encoded bytes of all images of one request.
    pub max_request_bytes: u64,
    /// Pixels of one image.
    pub max_pixels: u64,
    /// Pixels of all images of one request.
    pub max_request_pixels: u64,
    /// Width or height of one image.
    pub max_side: u32,
    /// From the first fetch of a request to its last resized pixel.
    pub media_timeout: Duration,
    /// Images decoded at the same time.
    pub decode_threads: usize,
    /// Images that may wait for a decode thread; one more is refused at once.
    pub max_waiting_decodes: usize,
    /// Bytes that decoders of all requests may hold together, at [`DECODE_BYTES_PER_PIXEL`] a pixel.
    pub max_decoded_bytes_in_flight: u64,
    /// Encoded bytes that all requests may hold together between their arrival and the end of decoding.
    pub max_source_bytes_in_flight: u64,
    /// Resized pixels kept for images that come again.
    pub cache_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_images: 16,
            max_bytes: 20 << 20,
            max_request_bytes: 64 << 20,
            max_pixels: 64 << 20,
            max_request_pixels: 256 << 20,
            max_side: 16_384,
            media_timeout: Duration::from_secs(15),
            decode_threads: std::thread::available_parallelism().map_or(2, usize::from),
            max_waiting_decodes: 1024,
            max_decoded_bytes_in_flight: 1 << 30,
            max_source_bytes_in_flight: 1 << 30,
            cache_bytes: 256 << 20,
        }
    }
}
