//! Both passes for x86-64 processors with AVX2. The same sums as `scalar`, in another order of independent bytes.
//!
//! The one module of this crate with `unsafe` code: unaligned loads through pointers, because a checked slice per tap
//! costs a third of the speed. Every load is covered by a check made once per output pixel.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_unpacklo_epi32, _mm256_add_epi32, _mm256_cvtepu8_epi32, _mm256_extract_epi32,
    _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_set1_epi32, _mm256_srai_epi32,
};

use super::kernel::{Kernel, PRECISION_BITS, ROUNDING, Span};
use super::{CHANNELS, Rows, scalar};

/// Rows resized together: two in each of two registers, four lanes a pixel, the fourth lane ignored.
const LANES: usize = 4;

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
    let mut output = vec![0; row_bytes * fast_rows];
    for (group, out) in output.chunks_exact_mut(row_bytes * LANES).enumerate() {
        let source = &rows.pixels[group * LANES * rows.stride..];
        for (x, (span, weights)) in kernel.outputs().enumerate() {
            let pixels = weigh(source, rows.stride, span, weights);
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

/// How many rows go through the vector path: whole groups whose last four-byte load ends inside the buffer.
fn fast_rows(rows: Rows<'_>) -> usize {
    let end_of_load = |row: usize| row * rows.stride + rows.width * CHANNELS + 1;
    let groups = rows.height / LANES;
    if groups > 0 && end_of_load(groups * LANES - 1) > rows.pixels.len() {
        (groups - 1) * LANES
    } else {
        groups * LANES
    }
}

/// One output pixel of four neighbouring rows.
#[target_feature(enable = "avx2")]
fn weigh(source: &[u8], stride: usize, span: Span, weights: &[i32]) -> [u32; LANES] {
    let start = span.start * CHANNELS;
    let last_load_end = start + weights.len() * CHANNELS + 1 + (LANES - 1) * stride;
    assert!(last_load_end <= source.len(), "a kernel reaches past its rows");
    let mut first = _mm256_set1_epi32(ROUNDING);
    let mut second = first;
    for (tap, weight) in weights.iter().enumerate() {
        // SAFETY: four bytes at `start + tap * CHANNELS` of each of the four rows end at or before `last_load_end`.
        let pixel = unsafe { source.as_ptr().add(start + tap * CHANNELS) };
        let weight = _mm256_set1_epi32(*weight);
        // SAFETY: as above, for rows 0 to 3.
        let (rows_01, rows_23) = unsafe { (load_two(pixel, stride), load_two(pixel.add(2 * stride), stride)) };
        first = _mm256_add_epi32(first, _mm256_mullo_epi32(rows_01, weight));
        second = _mm256_add_epi32(second, _mm256_mullo_epi32(rows_23, weight));
    }
    clip(first, second)
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
