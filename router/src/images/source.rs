//! Where an image comes from: a `data:` URI that carries it, or an http(s) URL that names it.
//!
//! Parsing happens once, at the edge; what is parsed here is, in normal form, what is fetched later. The type a data
//! URI declares is ignored: the format is read from the bytes. Whether a URL may be fetched is not decided here.

use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use url::Url;

use super::limits::ImageLimits;

/// The standard alphabet; `=` at the end may be left out, as RFC 4648 allows and some clients do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest URL that is fetched; browsers and servers agree on no more.
pub const MAX_URL_BYTES: usize = 8 << 10;

/// Longest `type/subtype;parameters` part of a data URI.
const MAX_MEDIA_TYPE_BYTES: usize = 256;

/// Where the bytes of an image are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ImageSource {
    /// Encoded bytes that came with the request.
    Inline(Bytes),
    /// An http or https URL in normal form.
    Remote(Url),
}

/// A string that is no image URL. No text repeats what the client sent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidImageUrl {
    /// Neither `data:`, `http:` nor `https:`.
    #[error("an image URL must start with data:, http:// or https://")]
    Scheme,
    /// A `data:` URI without `;base64,`.
    #[error("a data: URI must have the form data:image/…;base64,…")]
    DataForm,
    /// The part after the comma is not base64.
    #[error("the data: URI holds no valid base64 (standard alphabet, no white space)")]
    Base64,
    /// The data URI holds no bytes.
    #[error("the data: URI holds no bytes")]
    Empty,
    /// The data URI holds more bytes than accepted.
    #[error("the data: URI holds more than {limit} bytes")]
    TooManyBytes {
        /// Bytes accepted.
        limit: u64,
    },
    /// Longer than any URL that is fetched.
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
    /// White space, control characters or a backslash, on which parsers disagree.
    #[error("the URL contains white space, a control character or a backslash")]
    Characters,
    /// `user:password@`.
    #[error("the URL contains a user name or a password")]
    UserInfo,
    /// Everything else that makes it no URL.
    #[error("the URL is malformed")]
    Malformed,
}

impl ImageSource {
    /// Parses a `data:` URI of at most `max_bytes` decoded bytes, or an http(s) URL.
    pub fn parse(url: &str, max_bytes: u64) -> Result<Self, InvalidImageUrl> {
        let (scheme, rest) = url.split_once(':').ok_or(InvalidImageUrl::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "data" => decode_inline(rest, max_bytes).map(Self::Inline),
            "http" | "https" => parse_remote(url).map(Self::Remote),
            _ => Err(InvalidImageUrl::Scheme),
        }
    }
}

impl FromStr for ImageSource {
    type Err = InvalidImageUrl;

    /// [`ImageSource::parse`] with the default byte limit.
    fn from_str(url: &str) -> Result<Self, InvalidImageUrl> {
        Self::parse(url, ImageLimits::default().max_bytes)
    }
}

fn decode_inline(rest: &str, max_bytes: u64) -> Result<Bytes, InvalidImageUrl> {
    let (media_type, payload) = rest.split_once(',').ok_or(InvalidImageUrl::DataForm)?;
    if media_type.len() > MAX_MEDIA_TYPE_BYTES || !is_base64_flag(media_type) {
        return Err(InvalidImageUrl::DataForm);
    }
    // From the length alone, so that an oversized payload is refused before anything is allocated for it.
    if decoded_length(payload) > max_bytes {
        return Err(InvalidImageUrl::TooManyBytes { limit: max_bytes });
    }
    let bytes = BASE64.decode(payload).map_err(|_| InvalidImageUrl::Base64)?;
    if bytes.is_empty() { Err(InvalidImageUrl::Empty) } else { Ok(bytes.into()) }
}

fn is_base64_flag(media_type: &str) -> bool {
    media_type.rsplit_once(';').is_some_and(|(_, last)| last.eq_ignore_ascii_case("base64"))
}

fn decoded_length(payload: &str) -> u64 {
    payload.trim_end_matches('=').len() as u64 * 3 / 4
}

/// Parses an http(s) URL. The one parser: redirects come through here as well.
pub(super) fn parse_remote(url: &str) -> Result<Url, InvalidImageUrl> {
    if url.len() > MAX_URL_BYTES {
        return Err(InvalidImageUrl::TooLong);
    }
    if has_forbidden_characters(url) {
        return Err(InvalidImageUrl::Characters);
    }
    check_remote(Url::parse(url).map_err(|_| InvalidImageUrl::Malformed)?)
}

/// Characters that `Url` strips or rewrites silently, to then fetch something else than what was written.
pub(super) fn has_forbidden_characters(url: &str) -> bool {
    url.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\')
}

/// The checks on a parsed URL, for one that was joined to another as well.
pub(super) fn check_remote(mut url: Url) -> Result<Url, InvalidImageUrl> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(InvalidImageUrl::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidImageUrl::UserInfo);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(InvalidImageUrl::Malformed);
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests;
