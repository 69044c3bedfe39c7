//! Reading the goldens that `tools/goldens_images.py` writes, and the two functions it shares with these tests.

use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/images")
}

/// The words of every line of a goldens file that is no comment.
pub(super) fn cases(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder().join(file)).expect("goldens are committed");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// A file of the decode corpus.
pub(super) fn corpus(name: &str) -> Vec<u8> {
    fs::read(folder().join("corpus").join(name)).expect("the corpus is committed")
}

/// Sum of byte times noise of its index, modulo 2^64.
pub(crate) fn checksum(pixels: &[u8]) -> String {
    let terms = pixels.iter().zip(0..).map(|(byte, index)| u64::from(*byte).wrapping_mul(mix(index)));
    format!("{:016x}", terms.fold(0, u64::wrapping_add))
}

/// Pixels of one of three kinds.
pub(crate) fn generate(seed: u64, width: u64, height: u64, kind: &str) -> Vec<u8> {
    let noise = |index: u64| (mix(index + seed * 1_000_003) >> 56) as u8;
    let smooth = |index: u64| {
        let (x, y, c) = (index / 3 % width, index / 3 / width, index % 3);
        ((x * 3 + y * 5 + c * 40 + x * y / 7 + seed) % 256) as u8
    };
    (0..width * height * 3)
        .map(|index| match kind {
            "smooth" => smooth(index),
            "binary" => (noise(index) >> 7) * 255,
            _ => noise(index),
        })
        .collect()
}

fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
