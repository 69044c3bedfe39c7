//! From the pixels of an image to those of its views. Operations that views have in common are done once.

use crate::families::{ImageLayout, ImageSize, Operation, Rect, View};

use super::resize::{self, Canvas, Rows};
use super::view::RgbView;

/// Pixels of all views of one image, or of what is made on the way to one: far above what any encoder takes, and a
/// bound all the same.
const MAX_PIXELS: u64 = 64 << 20;

/// Whether every operation fits what it is done to, and nothing grows out of bounds. A family is arithmetic from a
/// checkpoint's settings; its result is checked before it indexes pixels.
pub(crate) fn fits(layout: &ImageLayout, image: ImageSize) -> bool {
    let all = layout.views.iter().all(|view| view_fits(&view.0, image));
    all && !layout.views.is_empty() && layout.num_pixels(image) <= MAX_PIXELS
}

fn view_fits(operations: &[Operation], mut size: ImageSize) -> bool {
    for (index, operation) in operations.iter().enumerate() {
        let Some(output) = operation.output(size) else { return false };
        let computed = computed(*operation, operations.get(index + 1)).unwrap_or(output);
        if computed.pixels() > MAX_PIXELS {
            return false;
        }
        size = output;
    }
    true
}

/// What is made of an operation whose output is not, if no other view needs it.
fn computed(operation: Operation, next: Option<&Operation>) -> Option<ImageSize> {
    match (operation, next?) {
        // Of a resize that is cut at once only the rectangle.
        (Operation::Resize { .. }, Operation::Cut(rect)) => Some(rect.size),
        (Operation::Pad { size: canvas, .. }, Operation::Resize { size, .. }) => resize::between(canvas, *size),
        _ => None,
    }
}

/// The pixels of every view, in order. The caller has checked the layout with [`fits`].
pub(crate) fn render(pixels: &[u8], image: ImageSize, views: &[View]) -> Vec<RgbView> {
    let branches: Vec<&[Operation]> = views.iter().map(|view| view.0.as_slice()).collect();
    let mut rendered = Vec::with_capacity(views.len());
    grow(Rows::packed(pixels, image), &branches, &mut rendered);
    rendered
}

/// Does the first operation of each run of branches that agree on it, once, and goes on with what remains.
fn grow(rows: Rows<'_>, branches: &[&[Operation]], rendered: &mut Vec<RgbView>) {
    for run in branches.chunk_by(|left, right| !left.is_empty() && left.first() == right.first()) {
        match run[0] {
            [] => rendered.push(RgbView { size: rows.size(), pixels: rows.to_vec().into() }),
            [Operation::Resize { size, filter }, Operation::Cut(rect), after @ ..] if run.len() == 1 => {
                let pixels = resize::resize(rows, *size, *rect, *filter);
                grow(Rows::packed(&pixels, rect.size), &[after], rendered);
            }
            [Operation::Pad { size: canvas, x, y, colour }, Operation::Resize { size, filter }, rest @ ..]
                if run.len() == 1 && resize::between(*canvas, *size).is_some() =>
            {
                let canvas = Canvas { size: *canvas, corner: (*x, *y), colour: *colour };
                keep_or_grow((canvas.resized(rows, *size, *filter), *size), &[rest], rendered);
            }
            [operation, ..] => {
                let remaining: Vec<&[Operation]> = run.iter().map(|branch| &branch[1..]).collect();
                apply(rows, *operation, &remaining, rendered);
            }
        }
    }
}

fn apply(rows: Rows<'_>, operation: Operation, rests: &[&[Operation]], rendered: &mut Vec<RgbView>) {
    let made = match operation {
        Operation::Cut(rect) => return grow(rows.cut(rect), rests, rendered),
        Operation::Resize { size, .. } if size == rows.size() => return grow(rows, rests, rendered),
        Operation::Resize { size, filter } => (resize::resize(rows, size, Rect::whole(size), filter), size),
        Operation::Pad { size, x, y, colour } => (Canvas { size, corner: (x, y), colour }.with(rows), size),
    };
    keep_or_grow(made, rests, rendered);
}

/// Pixels that only one view ends with are handed over, not copied.
fn keep_or_grow((pixels, size): (Vec<u8>, ImageSize), rests: &[&[Operation]], rendered: &mut Vec<RgbView>) {
    if rests == [&[] as &[Operation]] {
        rendered.push(RgbView { size, pixels: pixels.into() });
    } else {
        grow(Rows::packed(&pixels, size), rests, rendered);
    }
}

#[cfg(test)]
mod tests;
