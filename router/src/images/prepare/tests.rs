use super::*;
use crate::families::{Filter, ImageRejected, Operation, Piece, Rect, View};
use crate::images::goldens;
use text_generation_scheduler::TokenId;

/// A family that is given its answer.
struct Fixed(Result<ImageLayout, ImageRejected>);

impl VlmFamily for Fixed {
    fn layout(&self, _image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        self.0.clone()
    }

    fn image_token(&self) -> TokenId {
        4
    }

    fn anchor(&self) -> TokenId {
        4
    }
}

/// Cuts `source`, resizes it, and keeps `crop` of it.
fn view(source: Rect, size: ImageSize, crop: Option<Rect>) -> View {
    let resize = Operation::Resize { size, filter: Filter::Bicubic };
    View([Operation::Cut(source), resize].into_iter().chain(crop.map(Operation::Cut)).collect())
}

fn model(views: Vec<View>) -> ImageModel {
    ImageModel { family: Arc::new(Fixed(Ok(ImageLayout { views, pieces: vec![Piece::Tokens(1)] }))), identity: [7; 32] }
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, size: ImageSize::new(width, height) }
}

/// 43x29.
fn photo() -> Vec<u8> {
    goldens::corpus("rgb.png")
}

fn prepare_photo(views: Vec<View>) -> Result<PreparedImage, ImageFault> {
    prepare_bytes(&photo(), &model(views), &ImageLimits::default())
}

#[test]
fn views_come_in_the_layouts_order_and_sizes() {
    let whole = view(rect(0, 0, 43, 29), ImageSize::new(16, 8), None);
    let corner = view(rect(40, 20, 3, 9), ImageSize::new(5, 6), Some(rect(1, 2, 3, 4)));
    let same = view(rect(2, 3, 4, 5), ImageSize::new(4, 5), None);
    let image = prepare_photo(vec![whole, corner, same]).unwrap();
    let sizes: Vec<_> = image.views.iter().map(|view| (view.size.width, view.size.height, view.pixels.len())).collect();
    assert_eq!(sizes, [(16, 8, 16 * 8 * 3), (3, 4, 36), (4, 5, 60)]);
    assert_eq!(image.size, ImageSize::new(43, 29));
}

#[test]
fn a_view_of_the_same_size_is_the_original() {
    let raster = decode::decode(&photo(), decode::read_header(&photo(), &ImageLimits::default()).unwrap()).unwrap();
    let size = ImageSize::new(43, 29);
    let image = prepare_photo(vec![view(Rect::whole(size), size, None)]).unwrap();
    assert_eq!(image.views[0].pixels, raster.pixels);
}

#[test]
fn the_layout_is_made_for_the_upright_image() {
    let turned = prepare_bytes(
        &goldens::corpus("exif-6.jpg"),
        &model(vec![view(rect(0, 0, 40, 61), ImageSize::new(2, 2), None)]),
        &ImageLimits::default(),
    );
    assert_eq!(turned.unwrap().size, ImageSize::new(40, 61));
}

#[test]
fn layouts_that_leave_the_image_are_a_fault_of_the_server() {
    let size = ImageSize::new(8, 8);
    for source in [rect(0, 0, 44, 29), rect(1, 0, 43, 29), rect(0, 29, 1, 1), rect(u32::MAX, 0, 2, 2), rect(0, 0, 0, 5)]
    {
        assert_eq!(prepare_photo(vec![view(source, size, None)]).err(), Some(ImageFault::Internal), "{source:?}");
    }
    let whole = rect(0, 0, 43, 29);
    for crop in [rect(0, 0, 9, 8), rect(8, 0, 1, 1), rect(0, 0, 8, 0)] {
        assert_eq!(prepare_photo(vec![view(whole, size, Some(crop))]).err(), Some(ImageFault::Internal), "{crop:?}");
    }
    assert_eq!(prepare_photo(vec![]).err(), Some(ImageFault::Internal));
    let huge = view(whole, ImageSize::new(16_384, 16_384), None);
    assert_eq!(prepare_photo(vec![huge]).err(), Some(ImageFault::Internal));
}

#[test]
fn a_family_may_refuse() {
    let refused = ImageRejected::AspectRatio { width: 43, height: 29 };
    let model = ImageModel { family: Arc::new(Fixed(Err(refused))), identity: [0; 32] };
    assert_eq!(prepare_bytes(&photo(), &model, &ImageLimits::default()).err(), Some(ImageFault::Rejected(refused)));
}

#[test]
fn only_a_rect_of_an_enormous_resize_is_computed() {
    // 336 of 5.5 million columns, as a centre crop of a one-pixel-high line asks for.
    let wide = view(rect(0, 0, 43, 1), ImageSize::new(5_505_024, 336), Some(rect(2_752_344, 0, 336, 336)));
    assert_eq!(prepare_photo(vec![wide]).unwrap().views[0].size, ImageSize::new(336, 336));
}

/// Everything that must change the key, one thing at a time.
#[test]
fn the_key_names_model_geometry_filter_and_pixels() {
    let (part, square) = (rect(0, 0, 40, 20), ImageSize::new(8, 8));
    let base = view(part, square, None);
    let padded = |x, y, colour| base.then(Operation::Pad { size: ImageSize::new(9, 9), x, y, colour });
    let key = |views: Vec<View>| prepare_photo(views).unwrap().key;
    let mut keys = vec![
        key(vec![base.clone()]),
        key(vec![base.clone(), base.clone()]),
        key(vec![View(vec![Operation::Cut(part), Operation::Resize { size: square, filter: Filter::Lanczos }])]),
        key(vec![view(part, ImageSize::new(4, 16), None)]),
        key(vec![view(rect(1, 0, 40, 20), square, None)]),
        key(vec![view(part, ImageSize::new(8, 9), Some(rect(0, 0, 8, 8)))]),
        key(vec![padded(0, 0, [0; 3])]),
        key(vec![padded(1, 0, [0; 3])]),
        key(vec![padded(0, 1, [0; 3])]),
        key(vec![padded(0, 0, [0, 0, 1])]),
    ];
    let other_model = ImageModel { identity: [8; 32], ..model(vec![base.clone()]) };
    keys.push(prepare_bytes(&photo(), &other_model, &ImageLimits::default()).unwrap().key);
    keys.push(
        prepare_bytes(&goldens::corpus("rgba.png"), &model(vec![base.clone()]), &ImageLimits::default()).unwrap().key,
    );
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(keys[0], key(vec![base]), "the same input has the same key");
}

#[test]
fn the_same_pixels_have_the_same_key_whatever_file_they_came_in() {
    let views = vec![view(rect(0, 0, 43, 29), ImageSize::new(8, 8), None)];
    let plain = prepare_photo(views.clone()).unwrap().key;
    let interlaced =
        prepare_bytes(&goldens::corpus("rgb-interlaced.png"), &model(views), &ImageLimits::default()).unwrap().key;
    assert_eq!(plain, interlaced);
}
