use super::*;
use crate::images::goldens;
use proptest::prelude::*;

fn filter(name: &str) -> Filter {
    match name {
        "box" => Filter::Box,
        "bilinear" => Filter::Bilinear,
        "hamming" => Filter::Hamming,
        "bicubic" => Filter::Bicubic,
        "lanczos" => Filter::Lanczos,
        other => panic!("filter {other}"),
    }
}

fn rect(numbers: &[u32]) -> Rect {
    Rect { x: numbers[0], y: numbers[1], size: ImageSize::new(numbers[2], numbers[3]) }
}

/// One golden line: `filter kind width height source… out_width out_height kept… checksum`.
fn matches_pillow(seed: u64, words: &[String]) -> bool {
    let numbers: Vec<u32> = words[2..14].iter().map(|word| word.parse().unwrap()).collect();
    let [width, height] = [numbers[0], numbers[1]];
    let pixels = goldens::generate(seed, width.into(), height.into(), &words[1]);
    let rows = Rows::packed(&pixels, ImageSize::new(width, height)).cut(rect(&numbers[2..6]));
    let resized = resize(rows, ImageSize::new(numbers[6], numbers[7]), rect(&numbers[8..12]), filter(&words[0]));
    goldens::checksum(&resized) == words[14]
}

#[test]
fn two_thousand_resizes_equal_pillow() {
    let cases = goldens::cases("resize.txt");
    assert_eq!(cases.len(), 2000);
    let wrong: Vec<_> = cases.iter().zip(0..).filter(|(words, seed)| !matches_pillow(*seed, words)).collect();
    assert!(wrong.is_empty(), "{} differ, first {:?}", wrong.len(), wrong.first());
}

#[test]
fn the_pass_order_is_that_of_pillow_13() {
    let first = |from, to: (u32, u32)| vertical_first(from, ImageSize::new(to.0, to.1));
    assert!(first((10, 10), (10, 9)), "only rows are removed");
    assert!(first((10, 13), (9, 10)), "more than twice as many rows");
    assert!(!first((10, 12), (9, 10)), "exactly twice as many");
    assert!(first((9, 11), (10, 10)), "columns are added, rows removed");
    assert!(!first((9, 10), (10, 10)), "no row is removed");
    assert!(!first((9, 9), (8, 10)));
}

#[cfg(target_arch = "x86_64")]
mod twins {
    use super::*;

    /// Checks both AVX2 passes against the definition. Machines without AVX2 have nothing to compare.
    fn check(pixels: &[u8], size: ImageSize, to: usize, filter: Filter) {
        let rows = Rows::packed(pixels, size);
        let across = Kernel::new(rows.width, to, 0..to, filter);
        if let Some(fast) = avx2::horizontal(rows, &across) {
            assert_eq!(fast, scalar::horizontal(rows, &across), "{size:?} to {to} columns, {filter:?}");
        }
        let down = Kernel::new(rows.height, to, 0..to, filter);
        if let Some(fast) = avx2::vertical(rows, &down) {
            assert_eq!(fast, scalar::vertical(rows, &down), "{size:?} to {to} rows, {filter:?}");
        }
    }

    proptest! {
        #[test]
        fn avx2_equals_scalar(width in 1_u32..40, height in 1_u32..24, to in 1_usize..60, seed in 0_u64..1000, name in 0..5_usize) {
            let pixels = goldens::generate(seed, width.into(), height.into(), "noise");
            let filters = [Filter::Box, Filter::Bilinear, Filter::Hamming, Filter::Bicubic, Filter::Lanczos];
            check(&pixels, ImageSize::new(width, height), to, filters[name]);
        }
    }

    #[test]
    fn no_load_leaves_the_buffer() {
        // Exactly packed rows in a buffer of their own: with the last row in the vector path this would read past it.
        for height in 1..=13 {
            let pixels = goldens::generate(7, 5, height, "noise").into_boxed_slice();
            check(&pixels, ImageSize::new(5, height as u32), 9, Filter::Lanczos);
        }
    }
}

proptest! {
    #[test]
    fn a_kept_part_equals_the_same_part_of_the_whole(
        (width, height, out_width, out_height) in (1_u32..30, 1_u32..30, 1_u32..40, 1_u32..40),
        corner in (0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        let pixels = goldens::generate(3, width.into(), height.into(), "noise");
        let rows = Rows::packed(&pixels, ImageSize::new(width, height));
        let out = ImageSize::new(out_width, out_height);
        let (x, y) = ((f64::from(out_width) * corner.0) as u32, (f64::from(out_height) * corner.1) as u32);
        let kept = Rect { x, y, size: ImageSize::new(out_width - x, out_height - y) };
        let whole = resize(rows, out, Rect::whole(out), Filter::Bicubic);
        let part = Rows::packed(&whole, out).cut(kept).to_vec();
        prop_assert_eq!(resize(rows, out, kept, Filter::Bicubic), part);
    }
}
