//! The definition of both passes: one weighted sum per byte. Sums wrap instead of panicking; with the weights a
//! kernel can hold they do not get that far.

use super::kernel::{Kernel, PRECISION_BITS, ROUNDING};
use super::{CHANNELS, Rows};

/// Bytes summed side by side in the vertical pass; enough for any vector unit.
const BLOCK: usize = 64;

pub(super) fn horizontal(rows: Rows<'_>, kernel: &Kernel) -> Vec<u8> {
    let mut output = Vec::with_capacity(kernel.num_outputs() * CHANNELS * rows.height);
    for y in 0..rows.height {
        horizontal_row(rows.row(y), kernel, &mut output);
    }
    output
}

/// Appends one resized row.
pub(super) fn horizontal_row(row: &[u8], kernel: &Kernel, output: &mut Vec<u8>) {
    for (span, weights) in kernel.outputs() {
        let mut sums = [ROUNDING; CHANNELS];
        for (pixel, weight) in row[span.start * CHANNELS..].chunks_exact(CHANNELS).zip(weights) {
            for (sum, byte) in sums.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(*byte).wrapping_mul(*weight));
            }
        }
        output.extend(sums.map(clip));
    }
}

#[inline(always)]
#[allow(clippy::inline_always)] // The AVX2 twin is this body compiled for AVX2.
pub(super) fn vertical(rows: Rows<'_>, kernel: &Kernel) -> Vec<u8> {
    let width = rows.width * CHANNELS;
    let mut output = vec![0; kernel.num_outputs() * width];
    for ((span, weights), out_row) in kernel.outputs().zip(output.chunks_exact_mut(width)) {
        let source = &rows.pixels[span.start * rows.stride..];
        let (blocks, rest) = out_row.as_chunks_mut::<BLOCK>();
        let whole = blocks.len() * BLOCK;
        for (block, out) in blocks.iter_mut().enumerate() {
            vertical_block(source, rows.stride, block * BLOCK, weights, out);
        }
        for (x, byte) in rest.iter_mut().enumerate() {
            vertical_block(source, rows.stride, whole + x, weights, std::array::from_mut(byte));
        }
    }
    output
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn vertical_block<const BYTES: usize>(source: &[u8], stride: usize, x: usize, weights: &[i32], out: &mut [u8; BYTES]) {
    // Of a length known to the compiler, so that the sums stay in registers.
    let mut sums = [ROUNDING; BYTES];
    for (line, weight) in weights.iter().enumerate() {
        let bytes = &source[line * stride + x..][..BYTES];
        for (sum, byte) in sums.iter_mut().zip(bytes) {
            *sum = sum.wrapping_add(i32::from(*byte).wrapping_mul(*weight));
        }
    }
    for (byte, sum) in out.iter_mut().zip(sums) {
        *byte = clip(sum);
    }
}

#[inline(always)]
#[allow(clippy::inline_always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}
