//! Filter weights as Pillow computes them: in double precision, normalised, then rounded to 22 fractional bits.

use std::f64::consts::PI;
use std::ops::Range;

use crate::families::Filter;

/// Fractional bits of a weight: 32 minus 8 for the pixel minus 2 for overshoot.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// What every sum starts from, so that dropping the fractional bits rounds.
pub(super) const ROUNDING: i32 = 1 << (PRECISION_BITS - 1);

/// The weighted source lines of each output line, relative to the first source line that any of them needs.
pub(super) struct Kernel {
    origin: usize,
    lines: usize,
    taps: usize,
    spans: Vec<Span>,
    weights: Vec<i32>,
}

/// The source lines of one output line.
#[derive(Copy, Clone)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) length: usize,
}

impl Kernel {
    /// Weights for the outputs `kept` of a line of `from` pixels resized to `to`.
    pub(super) fn new(from: usize, to: usize, kept: Range<usize>, filter: Filter) -> Self {
        // Pillow hands the source box over as C floats.
        let scale = f64::from(from as f32) / to as f64;
        let support = support(filter) * scale.max(1.0);
        let taps = support.ceil() as usize * 2 + 1;
        let mut kernel = Self { origin: 0, lines: 0, taps, spans: Vec::new(), weights: vec![0; kept.len() * taps] };
        for (output, weights) in kept.zip(kernel.weights.chunks_exact_mut(taps)) {
            let centre = (output as f64 + 0.5) * scale;
            let span = span(centre, support, from);
            // In this order: another one rounds to other weights.
            let position = |tap: usize| ((tap + span.start) as f64 - centre + 0.5) * (1.0 / scale.max(1.0));
            weigh(&mut weights[..span.length], |tap| evaluate(filter, position(tap)));
            kernel.spans.push(span);
        }
        kernel.rebase();
        kernel
    }

    /// The source lines that are needed at all.
    pub(super) fn source(&self) -> Range<usize> {
        self.origin..self.origin + self.lines
    }

    pub(super) fn num_outputs(&self) -> usize {
        self.spans.len()
    }

    /// Source lines and weights of every output line.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (Span, &[i32])> {
        self.spans
            .iter()
            .zip(self.weights.chunks_exact(self.taps))
            .map(|(span, weights)| (*span, &weights[..span.length]))
    }

    fn rebase(&mut self) {
        self.origin = self.spans.iter().map(|span| span.start).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.start + span.length).max().unwrap_or(0);
        self.lines = end - self.origin;
        for span in &mut self.spans {
            span.start -= self.origin;
        }
    }
}

fn span(centre: f64, support: f64, from: usize) -> Span {
    let start = ((centre - support + 0.5) as i64).max(0) as usize;
    let end = ((centre + support + 0.5) as i64).min(from as i64) as usize;
    Span { start, length: end.saturating_sub(start) }
}

/// Normalises the filter's values and rounds them to fixed point.
fn weigh(weights: &mut [i32], value: impl Fn(usize) -> f64) {
    let values: Vec<f64> = (0..weights.len()).map(value).collect();
    let sum: f64 = values.iter().sum();
    let norm = if sum == 0.0 { 1.0 } else { sum };
    for (weight, value) in weights.iter_mut().zip(values) {
        let scaled = value / norm * f64::from(1 << PRECISION_BITS);
        *weight = (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
    }
}

/// Half the width of the filter, in output pixels when shrinking.
fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Box => 0.5,
        Filter::Bilinear | Filter::Hamming => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos => 3.0,
    }
}

// Exact comparisons: Pillow's, and they decide the same points.
#[allow(clippy::float_cmp)]
fn evaluate(filter: Filter, x: f64) -> f64 {
    match filter {
        Filter::Box if x > -0.5 && x <= 0.5 => 1.0,
        Filter::Bilinear if x.abs() < 1.0 => 1.0 - x.abs(),
        Filter::Hamming if x == 0.0 => 1.0,
        // The constants are C floats in Pillow.
        Filter::Hamming if x.abs() < 1.0 => {
            sinc(x.abs()) * (f64::from(0.54_f32) + f64::from(0.46_f32) * (x.abs() * PI).cos())
        }
        Filter::Bicubic => bicubic(x.abs()),
        Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        _ => 0.0,
    }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}
