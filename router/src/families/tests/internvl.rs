//! The settings of InternVL 3. Numbers are those of `InternVLProcessor`.

use super::*;

fn config() -> Value {
    json!({"model_type": "internvl", "image_token_id": 151_667})
}

fn processor() -> Value {
    json!({
        "do_resize": true, "size": {"height": 448, "width": 448}, "resample": 3, "crop_to_patches": false,
        "min_patches": 1, "max_patches": 12, "image_seq_length": 256,
    })
}

/// Columns and rows of tiles, which the whole image follows unless there is one.
#[track_caller]
fn check(processor: &Value, image: (u32, u32), grid: (u32, u32)) {
    let layout = build(&config(), processor).unwrap().unwrap().layout(ImageSize::new(image.0, image.1)).unwrap();
    let tile = ImageSize::new(448, 448);
    let whole = View::resized(tile, Filter::Bicubic);
    let stretched = View::resized(ImageSize::new(448 * grid.0, 448 * grid.1), Filter::Bicubic);
    let rows = (0..grid.1).flat_map(|row| (0..grid.0).map(move |column| (448 * column, 448 * row)));
    let tiles = rows.map(|(x, y)| stretched.then(Operation::Cut(Rect { x, y, size: tile })));
    let views: Vec<View> = if grid == (1, 1) { vec![whole] } else { tiles.chain([whole]).collect() };
    let tokens = Piece::Tokens(256 * views.len() as u32);
    assert_eq!(layout.views, views);
    assert_eq!(layout.pieces, [Piece::Text("<img>".into()), tokens, Piece::Text("</img>".into())]);
}

#[test]
fn the_grid_has_the_ratio_of_the_image() {
    let check = |image, grid| check(&processor(), image, grid);
    check((640, 480), (4, 3));
    check((480, 640), (3, 4));
    check((16_384, 1), (12, 1));
    check((1, 16_384), (1, 12));
    check((1000, 667), (3, 2));
    check((u32::MAX, u32::MAX), (3, 3));
}

#[test]
fn a_larger_grid_needs_an_image_that_fills_half_of_it() {
    let check = |image, grid| check(&processor(), image, grid);
    check((1, 1), (1, 1));
    check((448, 448), (1, 1));
    check((633, 633), (1, 1));
    check((634, 634), (2, 2));
    check((950, 950), (2, 2));
    check((951, 951), (3, 3));
}

#[test]
fn tiles_are_bounded_on_both_sides() {
    let with = |least: u32, most: u32| {
        let mut processor = processor();
        (processor["min_patches"], processor["max_patches"]) = (json!(least), json!(most));
        processor
    };
    check(&with(1, 1), (2000, 1000), (1, 1));
    check(&with(4, 6), (448, 448), (2, 2));
    check(&with(9, 6), (2000, 1000), (1, 1));
}

#[test]
fn broken_settings_are_named() {
    let complaint = |key: &str, value: Value| complaint(config(), processor(), key, value);
    let rows = [
        (complaint("do_resize", json!(false)), "`do_resize`: images must be resized to tiles"),
        (complaint("size", json!({"height": 448, "width": 9000})), "`size`: no side may exceed 8192 pixels"),
        (complaint("max_patches", json!(256)), "`max_patches`: must be 1 to 255, not 256"),
        (complaint("image_seq_length", json!(0)), "`image_seq_length`: must be 1 to 65536, not 0"),
    ];
    for (found, expected) in rows {
        assert_eq!(found, format!("internvl: setting {expected}"));
    }
}
