//! The settings of Mistral Small 3.1 and of the hub's Pixtral. Numbers are those of `PixtralProcessor`.

use super::*;

fn config() -> Value {
    json!({"model_type": "mistral3", "image_token_index": 10})
}

fn processor() -> Value {
    json!({
        "do_resize": true, "size": {"longest_edge": 1540}, "resample": 3, "patch_size": {"height": 14, "width": 14},
        "processor_patch_size": 14, "spatial_merge_size": 2,
        "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]",
    })
}

fn family() -> Arc<dyn VlmFamily> {
    build(&config(), &processor()).unwrap().unwrap()
}

/// Columns and rows of the layout of an image.
#[track_caller]
fn check(family: &dyn VlmFamily, image: (u32, u32), resized: (u32, u32), grid: (u32, u32)) {
    let layout = family.layout(ImageSize::new(image.0, image.1)).unwrap();
    assert_eq!(layout.views, [View::resized(ImageSize::new(resized.0, resized.1), Filter::Bicubic)]);
    let row = |end: &'static str| [Piece::Tokens(grid.0), Piece::Text(end.into())];
    let rows = (1..grid.1).flat_map(|_| row("[IMG_BREAK]")).chain(row("[IMG_END]"));
    assert_eq!(layout.pieces, rows.collect::<Vec<_>>());
}

#[test]
fn rows_of_whole_patches() {
    let check = |image, resized, grid| check(&*family(), image, resized, grid);
    check((28, 56), (28, 56), (1, 2));
    check((640, 480), (644, 504), (23, 18));
    check((1540, 1540), (1540, 1540), (55, 55));
    check((4000, 3000), (1540, 1176), (55, 42));
    check((1, 1), (28, 28), (1, 1));
    check((1540, 1), (1540, 28), (55, 1));
}

#[test]
fn a_line_that_shrinks_has_no_pixels() {
    for (width, height) in [(1541, 1), (1, 1541), (u32::MAX, 2_000_000)] {
        assert_eq!(family().layout(ImageSize::new(width, height)), Err(ImageRejected::AspectRatio { width, height }));
    }
    check(&*family(), (u32::MAX, u32::MAX), (1540, 1540), (55, 55));
}

#[test]
fn the_type_of_pixtral_is_llava() {
    let config = json!({"model_type": "llava", "image_token_index": 10, "vision_config": {"model_type": "pixtral"}});
    let processor = json!({"do_resize": true, "size": {"height": 512, "width": 1024}, "resample": 3});
    check(&*build(&config, &processor).unwrap().unwrap(), (1500, 1000), (768, 512), (48, 32));
}

#[test]
fn broken_settings_are_named() {
    let complaint = |key: &str, value: Value| complaint(config(), processor(), key, value);
    let rows = [
        (complaint("do_resize", json!(false)), "`do_resize`: images must be resized to whole patches"),
        (complaint("do_center_crop", json!(true)), "`do_center_crop`: cutting is not supported"),
        (complaint("size", json!({"longest_edge": 40_000})), "`size`: no side may exceed 32768 pixels"),
        (complaint("size", json!({})), "`width` is missing or not a positive integer"),
        (complaint("spatial_merge_size", json!(0)), "`patch_size`: 14 pixels merged by 0 make no patch"),
        (
            complaint("processor_patch_size", json!(1_u32 << 31)),
            "`patch_size`: 2147483648 pixels merged by 2 make no patch",
        ),
        (complaint("image_break_token", json!(12)), "`image_break_token` is missing or not a text"),
    ];
    for (found, expected) in rows {
        assert_eq!(found, format!("mistral3: setting {expected}"));
    }
}
