//! Both passes for x86-64 processors with AVX2. The same sums as `scalar`, in another order of independent bytes.
//!
//! The one module of this crate with `unsafe` code: unaligned loads through pointers, because a checked slice per tap
//! costs a third of the speed. Every load is covered by a check made once per output pixel.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_unpacklo_epi32, _mm256_add_epi32, _mm256_castsi128_si256,
    _mm256_cvtepu8_epi32, _mm256_extract_epi32, _mm256_inserti128_si256, _mm256_madd_epi16, _mm256_mullo_epi32,
    _mm256_packs_epi32, _mm256_packus_epi16, _mm256_set1_epi32, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srai_epi32,
};

use super::kernel::{Kernel, PRECISION_BITS, ROUNDING, Span};
use super::{CHANNELS, Rows, scalar};

/// Rows resized together: two in each of two registers, four lanes a pixel, the fourth lane ignored.
const LANES: usize = 4;

/// Taps that one 16-byte load of a row covers.
const QUAD: usize = 4;

/// Bytes that a load may reach beyond the last pixel of a span: 16 are read for the 12 of four taps.
const OVERREAD: usize = 4;

/// A weight has more bits than a 16-bit product takes, so its low bits are multiplied apart from the others. Both sums
/// are exact, and so is their sum.
const LOW_BITS: u32 = 11;

/// Four neighbouring weights as pairs of 16-bit numbers.
#[derive(Copy, Clone)]
struct Quad {
    high: [i32; 2],
    low: [i32; 2],
}

impl Quad {
    fn new(weights: &[i32]) -> Self {
        let pair = |first: i32, second: i32| (first & 0xFFFF) | (second << 16);
        let pairs =
            |part: fn(i32) -> i32| [pair(part(weights[0]), part(weights[1])), pair(part(weights[2]), part(weights[3]))];
        Self { high: pairs(|weight| weight >> LOW_BITS), low: pairs(|weight| weight & ((1 << LOW_BITS) - 1)) }
    }
}

/// The horizontal pass, or `None` on a processor without AVX2.
pub(super) fn horizontal(rows: Rows<'_>, kernel: &Kernel) -> Option<Vec<u8>> {
    if !is_x86_feature_detected!("avx2") {
        return None;
    }
    // SAFETY: AVX2 was detected.
    Some(unsafe { horizontal_avx2(rows, kernel) })
}

/// The vertical pass, or `None` on a processor without AVX2.
pub(super) fn vertical(rows: Rows<'_>, kernel: &Kernel) -> Option<Vec<u8>> {
    if !is_x86_feature_detected!("avx2") {
        return None;
    }
    // SAFETY: AVX2 was detected.
    Some(unsafe { vertical_avx2(rows, kernel) })
}

#[target_feature(enable = "avx2")]
fn vertical_avx2(rows: Rows<'_>, kernel: &Kernel) -> Vec<u8> {
    scalar::vertical(rows, kernel)
}

#[target_feature(enable = "avx2")]
fn horizontal_avx2(rows: Rows<'_>, kernel: &Kernel) -> Vec<u8> {
    let row_bytes = kernel.num_outputs() * CHANNELS;
    let fast_rows = fast_rows(rows);
    let mut output = Vec::with_capacity(row_bytes * rows.height);
    output.resize(row_bytes * fast_rows, 0);
    let quads: Vec<Quad> =
        kernel.outputs().flat_map(|(_, weights)| weights.chunks_exact(QUAD).map(Quad::new)).collect();
    for (group, out) in output.chunks_exact_mut(row_bytes * LANES).enumerate() {
        let source = &rows.pixels[group * LANES * rows.stride..];
        let mut quads = quads.as_slice();
        for (x, (span, weights)) in kernel.outputs().enumerate() {
            let (own, others) = quads.split_at(weights.len() / QUAD);
            quads = others;
            let pixels = weigh(source, rows.stride, span, (own, weights));
            for (lane, pixel) in pixels.into_iter().enumerate() {
                out[lane * row_bytes + x * CHANNELS..][..CHANNELS].copy_from_slice(&pixel.to_le_bytes()[..CHANNELS]);
            }
        }
    }
    for y in fast_rows..rows.height {
        scalar::horizontal_row(rows.row(y), kernel, &mut output);
    }
    output
}

/// How many rows go through the vector path: whole groups whose last load ends inside the buffer.
fn fast_rows(rows: Rows<'_>) -> usize {
    let end_of_load = |row: usize| row * rows.stride + rows.width * CHANNELS + OVERREAD;
    let groups = rows.height / LANES;
    if groups > 0 && end_of_load(groups * LANES - 1) > rows.pixels.len() {
        (groups - 1) * LANES
    } else {
        groups * LANES
    }
}

/// One output pixel of four neighbouring rows: four taps at a time, then the rest one by one.
#[target_feature(enable = "avx2")]
fn weigh(source: &[u8], stride: usize, span: Span, (quads, weights): (&[Quad], &[i32])) -> [u32; LANES] {
    let start = span.start * CHANNELS;
    let last_load_end = start + weights.len() * CHANNELS + OVERREAD + (LANES - 1) * stride;
    assert!(last_load_end <= source.len(), "a kernel reaches past its rows");
    let mut first = Sums::new();
    let mut second = Sums::new();
    for (number, quad) in quads.iter().enumerate() {
        // SAFETY: 16 bytes from a quad's first tap on, in each of the four rows, end at or before `last_load_end`.
        unsafe {
            let pixel = source.as_ptr().add(start + number * QUAD * CHANNELS);
            first.add_quad(load_two_quads(pixel, stride), quad);
            second.add_quad(load_two_quads(pixel.add(2 * stride), stride), quad);
        }
    }
    let (mut first, mut second) = (first.total(), second.total());
    for (tap, weight) in weights.iter().enumerate().skip(quads.len() * QUAD) {
        // SAFETY: four bytes at `start + tap * CHANNELS` of each of the four rows end at or before `last_load_end`.
        let (rows_01, rows_23) = unsafe {
            let pixel = source.as_ptr().add(start + tap * CHANNELS);
            (load_two(pixel, stride), load_two(pixel.add(2 * stride), stride))
        };
        let weight = _mm256_set1_epi32(*weight);
        first = _mm256_add_epi32(first, _mm256_mullo_epi32(rows_01, weight));
        second = _mm256_add_epi32(second, _mm256_mullo_epi32(rows_23, weight));
    }
    clip(first, second)
}

/// What two rows come to, the products with high and low bits of the weights apart.
struct Sums {
    high: __m256i,
    low: __m256i,
}

impl Sums {
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        Self { high: _mm256_setzero_si256(), low: _mm256_set1_epi32(ROUNDING) }
    }

    #[target_feature(enable = "avx2")]
    fn add_quad(&mut self, (taps_01, taps_23): (__m256i, __m256i), quad: &Quad) {
        let product = |pairs: [i32; 2]| {
            let first = _mm256_madd_epi16(taps_01, _mm256_set1_epi32(pairs[0]));
            _mm256_add_epi32(first, _mm256_madd_epi16(taps_23, _mm256_set1_epi32(pairs[1])))
        };
        self.high = _mm256_add_epi32(self.high, product(quad.high));
        self.low = _mm256_add_epi32(self.low, product(quad.low));
    }

    #[target_feature(enable = "avx2")]
    fn total(self) -> __m256i {
        _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(self.high), self.low)
    }
}

/// Four pixels of this row and of the next: the first two of each as 16-bit pairs a channel, then the last two.
///
/// # Safety
/// 16 bytes at `pixel` and at `pixel + stride` must be readable.
#[target_feature(enable = "avx2")]
#[allow(clippy::cast_ptr_alignment)] // These loads need no alignment.
unsafe fn load_two_quads(pixel: *const u8, stride: usize) -> (__m256i, __m256i) {
    // SAFETY: the caller's promise.
    let (upper, lower) =
        unsafe { (_mm_loadu_si128(pixel.cast::<__m128i>()), _mm_loadu_si128(pixel.add(stride).cast::<__m128i>())) };
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(upper), lower);
    // Channel by channel: a byte of one pixel, a zero, the same byte of the next pixel, a zero.
    let taps_01 = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1,
        -1,
    );
    let taps_23 = _mm256_setr_epi8(
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1, 6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1,
        -1, -1,
    );
    (_mm256_shuffle_epi8(both, taps_01), _mm256_shuffle_epi8(both, taps_23))
}

/// Four bytes of this row and of the next, each widened to 32 bits.
///
/// # Safety
/// Four bytes at `pixel` and at `pixel + stride` must be readable.
#[target_feature(enable = "avx2")]
unsafe fn load_two(pixel: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller's promise; `read_unaligned` needs no alignment.
    let (upper, lower) =
        unsafe { (pixel.cast::<i32>().read_unaligned(), pixel.add(stride).cast::<i32>().read_unaligned()) };
    _mm256_cvtepu8_epi32(_mm_unpacklo_epi32(_mm_cvtsi32_si128(upper), _mm_cvtsi32_si128(lower)))
}

/// Drops the fractional bits and clips to bytes. Packing works inside 128-bit halves: the first half holds rows 0 and
/// 2, the second rows 1 and 3.
#[target_feature(enable = "avx2")]
fn clip(first: __m256i, second: __m256i) -> [u32; LANES] {
    let first = _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(first);
    let second = _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(second);
    let words = _mm256_packs_epi32(first, second);
    let bytes = _mm256_packus_epi16(words, words);
    [
        _mm256_extract_epi32::<0>(bytes) as u32,
        _mm256_extract_epi32::<4>(bytes) as u32,
        _mm256_extract_epi32::<1>(bytes) as u32,
        _mm256_extract_epi32::<5>(bytes) as u32,
    ]
}
