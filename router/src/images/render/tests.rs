use super::*;
use crate::families::{Filter, Piece};
use crate::images::goldens;

fn size(width: u32, height: u32) -> ImageSize {
    ImageSize::new(width, height)
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, size: size(width, height) }
}

fn resize(width: u32, height: u32) -> Operation {
    Operation::Resize { size: size(width, height), filter: Filter::Bicubic }
}

fn pad(canvas: ImageSize, x: u32, y: u32) -> Operation {
    Operation::Pad { size: canvas, x, y, colour: [1, 2, 3] }
}

const IMAGE: ImageSize = ImageSize::new(40, 30);

fn rendered(views: &[View]) -> Vec<RgbView> {
    let layout = ImageLayout { views: views.to_vec(), pieces: vec![Piece::Tokens(1)] };
    assert!(fits(&layout, IMAGE));
    render(&goldens::generate(1, 40, 30, "smooth"), IMAGE, views)
}

/// Views share what they begin with, and nobody can tell from the pixels.
#[test]
fn views_together_are_what_they_are_alone() {
    let canvas = View::resized(size(50, 37), Filter::Lanczos).then(pad(size(60, 40), 5, 1));
    let tile = |x: u32, y: u32| canvas.then(Operation::Cut(rect(x, y, 30, 20)));
    let views = [
        View(vec![]),
        View::resized(size(16, 16), Filter::Bicubic),
        tile(0, 0),
        tile(30, 0),
        tile(0, 20),
        tile(30, 20).then(resize(16, 16)),
        canvas.clone(),
        canvas.then(resize(8, 8)),
        View::resized(size(50, 37), Filter::Lanczos),
        View(vec![]),
    ];
    let together = rendered(&views);
    let alone: Vec<RgbView> = views.iter().flat_map(|view| rendered(std::slice::from_ref(view))).collect();
    assert!(together == alone);
    let sizes: Vec<_> = together.iter().map(|view| Some(view.size)).collect();
    assert_eq!(sizes, views.iter().map(|view| view.output(IMAGE)).collect::<Vec<_>>());
}

#[test]
fn padding_puts_the_pixels_on_a_canvas() {
    let views = rendered(&[
        View(vec![Operation::Cut(rect(3, 4, 2, 2))]),
        View(vec![Operation::Cut(rect(3, 4, 2, 2)), pad(size(4, 3), 1, 1)]),
    ]);
    let colour = |x: usize, y: usize| <[u8; 3]>::try_from(&views[1].pixels[3 * (y * 4 + x)..][..3]).unwrap();
    for (x, y) in (0..4).flat_map(|x| (0..3).map(move |y| (x, y))) {
        let inside = (1..3).contains(&x) && (1..3).contains(&y);
        let expected =
            if inside { views[0].pixels[3 * ((y - 1) * 2 + x - 1)..][..3].try_into().unwrap() } else { [1, 2, 3] };
        assert_eq!(colour(x, y), expected, "{x} {y}");
    }
}

/// The canvas is not made, and nobody can tell from the pixels.
#[test]
fn a_resized_canvas_is_what_padding_and_resizing_make() {
    let canvases = [(size(40, 40), 0, 5), (size(90, 90), 13, 60), (size(131, 30), 91, 0), (size(40, 30), 0, 0)];
    let sizes = [(16, 16), (40, 33), (120, 90), (131, 7), (40, 30)];
    for (canvas, x, y) in canvases {
        let padded = View(vec![pad(canvas, x, y)]);
        for (width, height) in sizes {
            let view = padded.then(resize(width, height));
            // Beside another view of the same canvas it is made.
            let together = rendered(&[view.clone(), padded.clone()]);
            assert!(rendered(std::slice::from_ref(&view))[0] == together[0], "{canvas:?} {width}x{height}");
        }
    }
}

/// A line of pixels in the middle of 16,384 squared, of which only the narrow columns are ever made.
#[test]
fn a_line_on_its_square_takes_little() {
    let line = ImageSize::new(16_384, 1);
    let view = View(vec![pad(size(16_384, 16_384), 0, 8_191), resize(384, 384)]);
    let layout = ImageLayout { views: vec![view], pieces: vec![Piece::Tokens(1)] };
    assert!(fits(&layout, line));
    let views = render(&vec![200; 3 * 16_384], line, &layout.views);
    assert_eq!(&views[0].pixels[..3], [1, 2, 3]);
}

#[test]
fn tiles_of_a_resize_are_parts_of_the_whole() {
    let whole = View::resized(size(24, 18), Filter::Bicubic);
    let views = rendered(&[whole.clone(), whole.then(Operation::Cut(rect(5, 6, 7, 8)))]);
    let alone = rendered(&[whole.then(Operation::Cut(rect(5, 6, 7, 8)))]);
    let cut = Rows::packed(&views[0].pixels, size(24, 18)).cut(rect(5, 6, 7, 8)).to_vec();
    assert_eq!(views[1].pixels, cut);
    assert_eq!(alone[0].pixels, cut);
}

#[test]
fn what_does_not_fit_is_found_out() {
    let one = |operations: &[Operation]| {
        fits(&ImageLayout { views: vec![View(operations.to_vec())], pieces: vec![Piece::Tokens(1)] }, IMAGE)
    };
    assert!(one(&[]) && one(&[resize(1, 1)]) && one(&[pad(size(41, 30), 1, 0)]));
    for operations in [
        vec![Operation::Cut(rect(0, 0, 41, 30))],
        vec![Operation::Cut(rect(40, 0, 1, 1))],
        vec![Operation::Cut(rect(0, 0, 0, 1))],
        vec![resize(0, 4)],
        vec![resize(8, 8), Operation::Cut(rect(0, 0, 9, 8))],
        vec![pad(size(39, 30), 0, 0)],
        vec![pad(size(41, 30), 2, 0)],
        vec![pad(size(41, 30), u32::MAX, 0)],
        vec![resize(20_000, 20_000)],
        vec![resize(20_000, 20_000), resize(8, 8)],
        vec![pad(size(20_000, 20_000), 0, 0), Operation::Cut(rect(0, 0, 8, 8))],
    ] {
        assert!(!one(&operations), "{operations:?}");
    }
    assert!(one(&[resize(20_000, 20_000), Operation::Cut(rect(9_000, 9_000, 8, 8))]));
    assert!(!fits(&ImageLayout { views: vec![], pieces: vec![] }, IMAGE));
    let large = View::resized(size(8000, 8000), Filter::Box);
    assert!(!fits(&ImageLayout { views: vec![large.clone(), large], pieces: vec![] }, IMAGE));
}
