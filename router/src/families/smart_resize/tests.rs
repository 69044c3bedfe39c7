use serde_json::json;

use super::super::{Operation, PlacedImage, build};
use super::*;

const IMAGE: TokenId = 151_655;

/// What the hub has for Qwen 2 and 2.5 VL: bounds beside the sizes.
fn early() -> (Value, Value) {
    let vision = json!({"patch_size": 14, "spatial_merge_size": 2});
    let config = json!({"model_type": "qwen2_vl", "image_token_id": IMAGE, "vision_config": vision});
    let bounds = json!({"min_pixels": 3136, "max_pixels": 12_845_056});
    (config, processor(14, bounds, &Value::Null))
}

/// What the hub has for Qwen 3 VL.
fn late() -> (Value, Value) {
    let vision = json!({"patch_size": 16, "spatial_merge_size": 2});
    let config = json!({"model_type": "qwen3_vl", "image_token_id": IMAGE, "vision_config": vision});
    (config, processor(16, json!({}), &json!({"shortest_edge": 65536, "longest_edge": 16_777_216})))
}

fn processor(patch: u32, mut beside: Value, size: &Value) -> Value {
    let settings = json!({"do_resize": true, "resample": 3, "patch_size": patch, "merge_size": 2, "size": size});
    let settings = settings.as_object().unwrap().clone();
    beside.as_object_mut().unwrap().extend(settings);
    beside
}

fn family((config, processor): &(Value, Value)) -> std::sync::Arc<dyn VlmFamily> {
    build(config, processor).unwrap().unwrap()
}

#[track_caller]
fn check(settings: &(Value, Value), image: (u32, u32), resized: (u32, u32), num_tokens: u32) {
    let image = ImageSize::new(image.0, image.1);
    let size = ImageSize::new(resized.0, resized.1);
    let resize = Operation::Resize { size, filter: Filter::Bicubic };
    let expected = ImageLayout::plain(View(vec![resize]), num_tokens);
    assert_eq!(family(settings).layout(image).unwrap(), expected);
}

#[test]
fn sides_are_rounded_half_to_even() {
    check(&early(), (640, 480), (644, 476), 391);
    check(&early(), (98, 126), (112, 112), 16);
    check(&early(), (126, 98), (112, 112), 16);
    check(&early(), (48, 80), (56, 84), 6);
    check(&early(), (256, 256), (252, 252), 81);
    check(&late(), (640, 480), (640, 480), 300);
    check(&late(), (1000, 667), (992, 672), 651);
    check(&late(), (255, 257), (256, 256), 64);
}

#[test]
fn small_images_grow() {
    check(&early(), (1, 1), (56, 56), 4);
    check(&early(), (1, 200), (28, 812), 29);
    check(&early(), (200, 1), (812, 28), 29);
    check(&late(), (42, 70), (224, 352), 77);
    check(&late(), (14, 14), (256, 256), 64);
}

#[test]
fn large_images_shrink() {
    check(&early(), (4000, 3000), (4004, 2996), 15301);
    check(&early(), (3585, 3584), (3584, 3584), 16384);
    check(&early(), (16384, 82), (16380, 84), 1755);
    check(&late(), (4000, 3000), (4000, 3008), 11750);
    check(&late(), (8192, 8192), (4096, 4096), 16384);
    check(&early(), (u32::MAX, u32::MAX), (3584, 3584), 16384);
}

#[test]
fn bounds_have_been_written_in_three_ways() {
    for (beside, size) in [
        (json!({"min_pixels": 3136, "max_pixels": 12_845_056}), json!({"shortest_edge": 1, "longest_edge": 2})),
        (json!({}), json!({"min_pixels": 3136, "max_pixels": 12_845_056})),
        (json!({"min_pixels": 3136}), json!({"shortest_edge": 1, "longest_edge": 12_845_056})),
    ] {
        let settings = (early().0, processor(14, beside, &size));
        check(&settings, (20, 20), (56, 56), 4);
        check(&settings, (4000, 3000), (4004, 2996), 15301);
    }
}

#[test]
fn the_first_checkpoints_say_nothing_of_resizing() {
    let (config, mut processor) = early();
    (processor["do_resize"], processor["resample"]) = (Value::Null, Value::Null);
    check(&(config, processor), (640, 480), (644, 476), 391);
}

#[test]
fn what_the_processor_refuses_is_refused() {
    for (width, height) in [(201, 1), (1, 201), (u32::MAX, 1), (2001, 10)] {
        let refused = Err(ImageRejected::AspectRatio { width, height });
        assert_eq!(family(&early()).layout(ImageSize::new(width, height)), refused);
    }
    let refused = Err(ImageRejected::Empty { width: 0, height: 9 });
    assert_eq!(family(&early()).layout(ImageSize::new(0, 9)), refused);
}

#[test]
fn broken_settings_are_named() {
    let complaint = |key: &str, value: Value| {
        let (config, mut processor) = early();
        processor[key] = value;
        build(&config, &processor).err().unwrap().to_string()
    };
    let rows = [
        ("do_resize", json!(false), "setting `do_resize`: images must be resized to whole tokens"),
        ("patch_size", json!(16), "setting `patch_size`: is 16, and patch_size of the vision encoder 14"),
        ("merge_size", json!(1), "setting `merge_size`: is 1, and spatial_merge_size of the vision encoder 2"),
        ("merge_size", Value::Null, "setting `merge_size` is missing or not a positive integer"),
        ("max_pixels", Value::Null, "setting `longest_edge` is missing or not a positive integer"),
        ("min_pixels", json!(0), "setting `min_pixels` is missing or not a positive integer"),
    ];
    for (key, value, expected) in rows {
        assert_eq!(complaint(key, value), format!("qwen2_vl: {expected}"));
    }
    let (mut config, mut processor) = early();
    config["vision_config"]["patch_size"] = json!(2049);
    processor["patch_size"] = json!(2049);
    let text = build(&config, &processor).err().unwrap().to_string();
    assert_eq!(text, "qwen2_vl: setting `patch_size`: 2049 x merge_size 2 is above 4096");
}

/// Positions of a prompt of `len` tokens with images of these sizes beginning at these offsets.
fn positions(len: usize, images: &[(u32, (u32, u32))]) -> Positions {
    let family = family(&early());
    let sizes: Vec<ImageSize> = images.iter().map(|(_, size)| ImageSize::new(size.0, size.1)).collect();
    let layouts: Vec<ImageLayout> = sizes.iter().map(|size| family.layout(*size).unwrap()).collect();
    let placed = images.iter().zip(&sizes).zip(&layouts);
    let placed: Vec<PlacedImage<'_>> =
        placed.map(|((image, size), layout)| PlacedImage { offset: image.0, size: *size, layout, runs: &[] }).collect();
    family.positions(&PlacedPrompt { token_ids: &vec![0; len], images: &placed })
}

#[test]
fn an_image_counts_as_far_as_its_longer_side() {
    let found = positions(19, &[(2, (84, 56)), (10, (56, 112))]);
    let axes = vec![
        vec![0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 11],
        vec![0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11],
        vec![0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8, 7, 8, 7, 8, 7, 8, 11],
    ];
    assert_eq!(found, Positions::Explicit { axes, next: 12 });
}

#[test]
fn images_next_to_each_other_and_at_the_ends() {
    let found = positions(8, &[(0, (56, 56)), (4, (56, 56))]);
    let axes = vec![vec![0, 0, 0, 0, 2, 2, 2, 2], vec![0, 0, 1, 1, 2, 2, 3, 3], vec![0, 1, 0, 1, 2, 3, 2, 3]];
    assert_eq!(found, Positions::Explicit { axes, next: 4 });
}

#[test]
fn text_alone_counts_from_zero() {
    assert_eq!(positions(5, &[]), Positions::Sequential);
}
