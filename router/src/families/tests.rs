use serde_json::json;

use super::*;

mod anyres;
mod gemma;
mod goldens;
mod hub;
mod idefics;
mod internvl;
mod low_detail;
mod pixtral;

/// The embedded default: a stretched square of 192 and a grid of 6x6.
fn fast_vlm_config() -> Value {
    json!({"model_type": "fast_vlm", "image_token_index": 4})
}

fn fast_vlm_processor() -> Value {
    json!({
        "do_resize": true, "size": {"height": 192, "width": 192}, "resample": 3,
        "do_center_crop": false, "crop_size": {"height": 224, "width": 224},
        "patch_size": 32, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full",
    })
}

fn llava_config() -> Value {
    json!({
        "model_type": "llava", "image_token_index": 32000, "vision_feature_select_strategy": "default",
        "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
    })
}

fn llava_processor() -> Value {
    json!({
        "do_resize": true, "size": {"shortest_edge": 336}, "resample": 3,
        "do_center_crop": true, "crop_size": {"height": 336, "width": 336},
        "image_mean": [0.481, 0.458, 0.408],
    })
}

fn fast_vlm() -> Arc<dyn VlmFamily> {
    build(&fast_vlm_config(), &fast_vlm_processor()).unwrap().unwrap()
}

fn llava() -> Arc<dyn VlmFamily> {
    build(&llava_config(), &llava_processor()).unwrap().unwrap()
}

/// The only place that looks into a one-view layout.
#[track_caller]
fn check(family: &dyn VlmFamily, image: (u32, u32), resized: (u32, u32), kept: (u32, u32, u32, u32), num_tokens: u32) {
    let image = ImageSize::new(image.0, image.1);
    let found = family.layout(image).unwrap();
    let [view] = &found.views[..] else { panic!("{} views", found.views.len()) };
    let kept = Rect { x: kept.0, y: kept.1, size: ImageSize::new(kept.2, kept.3) };
    let resize = Operation::Resize { size: ImageSize::new(resized.0, resized.1), filter: Filter::Bicubic };
    assert!([vec![resize], vec![resize, Operation::Cut(kept)]].contains(&view.0), "{view:?}");
    assert_eq!(view.output(image), Some(kept.size));
    assert_eq!(found.pieces, [Piece::Tokens(num_tokens)]);
}

#[test]
fn fast_vlm_stretches() {
    for image in [(192, 192), (640, 480), (1, 1), (16_384, 1), (1, 16_384)] {
        check(&*fast_vlm(), image, (192, 192), (0, 0, 192, 192), 36);
    }
}

#[test]
fn llava_keeps_the_ratio_and_cuts_the_centre() {
    let check = |image, resized, kept| check(&*llava(), image, resized, kept, 576);
    check((336, 336), (336, 336), (0, 0, 336, 336));
    check((640, 480), (448, 336), (56, 0, 336, 336));
    check((480, 640), (336, 448), (0, 56, 336, 336));
    check((1000, 667), (503, 336), (83, 0, 336, 336));
    check((1, 1), (336, 336), (0, 0, 336, 336));
    check((3, 2), (504, 336), (84, 0, 336, 336));
    check((16_384, 1), (5_505_024, 336), (2_752_344, 0, 336, 336));
    check((1, 16_384), (336, 5_505_024), (0, 2_752_344, 336, 336));
}

#[test]
fn llava_pads_to_a_square_where_its_processor_does() {
    let mut processor = llava_processor();
    processor["do_pad"] = json!(true);
    processor["image_processor_type"] = json!("LlavaImageProcessor");
    let family = build(&llava_config(), &processor).unwrap().unwrap();
    let views = |width, height| family.layout(ImageSize::new(width, height)).unwrap().views;
    let square = ImageSize::new(336, 336);
    let kept = [
        Operation::Resize { size: square, filter: Filter::Bicubic },
        Operation::Cut(Rect { x: 0, y: 0, size: square }),
    ];
    let pad = |side, x, y| Operation::Pad { size: ImageSize::new(side, side), x, y, colour: [122, 116, 104] };
    assert_eq!(views(50, 50), [View(kept.to_vec())]);
    assert_eq!(views(50, 31), [View([&[pad(50, 0, 9)], &kept[..]].concat())]);
    assert_eq!(views(31, 50), [View([&[pad(50, 9, 0)], &kept[..]].concat())]);
}

#[test]
fn llava_takes_siglip_whole() {
    let mut config = llava_config();
    config["vision_config"]["model_type"] = json!("siglip_vision_model");
    config["vision_feature_select_strategy"] = json!("full");
    let family = build(&config, &llava_processor()).unwrap().unwrap();
    assert_eq!(family.layout(ImageSize::new(7, 5)).unwrap().num_tokens(), 576);
}

#[test]
fn every_small_size_is_answered_within_its_image() {
    for family in [fast_vlm(), llava()] {
        for (width, height) in (1..=40).flat_map(|width| (1..=40).map(move |height| (width, height))) {
            let image = ImageSize::new(width, height);
            let layout = family.layout(image).unwrap();
            assert!(layout.views.iter().all(|view| view.output(image).is_some()), "{image:?}");
        }
    }
}

#[test]
fn what_has_no_pixels_or_no_proportions_is_refused() {
    for size in [ImageSize::new(0, 0), ImageSize::new(0, 5), ImageSize::new(5, 0)] {
        let refused = ImageRejected::Empty { width: size.width, height: size.height };
        assert_eq!(fast_vlm().layout(size), Err(refused));
        assert_eq!(llava().layout(size), Err(refused));
    }
    let line = ImageSize::new(u32::MAX, 1);
    assert_eq!(llava().layout(line), Err(ImageRejected::AspectRatio { width: u32::MAX, height: 1 }));
}

#[test]
fn families_that_count_from_zero_say_so() {
    let prompt = PlacedPrompt { token_ids: &[1, 4, 2], images: &[] };
    assert_eq!(fast_vlm().positions(&prompt), Positions::Sequential);
    assert_eq!((fast_vlm().anchor(), fast_vlm().image_token()), (4, 4));
    assert_eq!(llava().anchor(), 32_000);
}

#[test]
fn text_models_have_no_family() {
    for model_type in TEXT_ONLY {
        assert!(build(&json!({"model_type": model_type}), &Value::Null).unwrap().is_none(), "{model_type}");
    }
}

#[test]
fn unknown_models_list_the_known_ones() {
    for (config, name) in
        [(json!({"model_type": "qwen2_vlm"}), "\"qwen2_vlm\""), (json!({}), "\"\""), (json!({"model_type": 7}), "\"\"")]
    {
        let text = build(&config, &Value::Null).err().unwrap().to_string();
        assert!(text.starts_with(&format!("model_type {name} is not supported; supported are: fast_vlm, ")), "{text}");
        assert!(FAMILIES.iter().map(|(known, _)| known).chain(TEXT_ONLY).all(|known| text.contains(known)), "{text}");
    }
}

/// Builds with one setting of config or processor replaced (`null` removes it) and returns the complaint.
#[track_caller]
fn complaint(mut config: Value, mut processor: Value, key: &str, value: Value) -> String {
    let settings = if config.get(key).is_some() { &mut config } else { &mut processor };
    settings[key] = value;
    build(&config, &processor).err().expect("refused").to_string()
}

#[test]
fn broken_settings_are_named() {
    let fast_vlm = |key: &str, value: Value| complaint(fast_vlm_config(), fast_vlm_processor(), key, value);
    let rows = [
        (
            fast_vlm("image_token_index", Value::Null),
            "fast_vlm: setting `image_token_id` is missing or not an unsigned integer",
        ),
        (
            fast_vlm("image_token_index", json!(-1)),
            "fast_vlm: setting `image_token_id` is missing or not an unsigned integer",
        ),
        (fast_vlm("patch_size", json!(0)), "fast_vlm: setting `patch_size` is missing or not a positive integer"),
        (fast_vlm("size", json!({"height": 192})), "fast_vlm: setting `width` is missing or not a positive integer"),
        (fast_vlm("size", Value::Null), "fast_vlm: setting `width` is missing or not a positive integer"),
        (fast_vlm("resample", json!(0)), "fast_vlm: setting `resample`: filter 0 is not supported"),
        (fast_vlm("resample", json!("bicubic")), "fast_vlm: setting `resample` is missing or not an unsigned integer"),
        (fast_vlm("do_resize", json!(false)), "fast_vlm: setting `do_resize`: images must be resized to one size"),
        (fast_vlm("do_resize", Value::Null), "fast_vlm: setting `do_resize` is missing or not true or false"),
        (fast_vlm("do_pad", json!(true)), "fast_vlm: setting `do_pad`: only LlavaImageProcessor pads to a square"),
        (
            fast_vlm("do_center_crop", json!(true)),
            "fast_vlm: setting `crop_size`: must equal `size` when both sides are given",
        ),
        (
            fast_vlm("vision_feature_select_strategy", json!("default")),
            "fast_vlm: setting `vision_feature_select_strategy`: must be \"full\"",
        ),
        (
            fast_vlm("patch_size", json!(337)),
            "fast_vlm: setting `patch_size`: the processor's grid gives 0 tokens per image",
        ),
    ];
    for (found, expected) in rows {
        assert_eq!(found, expected);
    }
}

#[test]
fn broken_settings_of_llava_are_named() {
    let llava = |key: &str, value: Value| complaint(llava_config(), llava_processor(), key, value);
    let rows = [
        (
            llava("do_center_crop", json!(false)),
            "llava: setting `do_center_crop`: must be true when only `shortest_edge` is given",
        ),
        (
            llava("crop_size", json!({"height": 337, "width": 336})),
            "llava: setting `crop_size`: must not exceed `shortest_edge` 336",
        ),
        (
            llava("size", json!({"shortest_edge": 336, "longest_edge": 672})),
            "llava: setting `size`: `longest_edge` is not supported",
        ),
        (
            llava("crop_size", json!({"height": 224, "width": 224})),
            "llava: setting `size`: the processor makes 224x224 pixels, the encoder takes 336x336",
        ),
        (
            llava("vision_config", json!({"model_type": "dinov2", "image_size": 336, "patch_size": 14})),
            "llava: setting `vision_config`: only CLIP and SigLIP encoders are supported",
        ),
        (
            llava("vision_config", json!({"model_type": "clip_vision_model", "image_size": 336, "patch_size": 337})),
            "llava: setting `patch_size`: a view of 336 pixels a side has no patches of 337",
        ),
        (
            llava("vision_feature_select_strategy", Value::Null),
            "llava: setting `vision_feature_select_strategy`: must be \"default\" or \"full\"",
        ),
    ];
    for (found, expected) in rows {
        assert_eq!(found, expected);
    }
}

#[test]
fn what_the_library_defaults_may_be_left_out() {
    let mut processor = fast_vlm_processor();
    processor["num_additional_image_tokens"] = Value::Null;
    let family = build(&fast_vlm_config(), &processor).unwrap().unwrap();
    check(&*family, (10, 10), (192, 192), (0, 0, 192, 192), 36);
}

#[test]
fn the_image_token_has_two_names() {
    for name in ["image_token_index", "image_token_id"] {
        let mut config = llava_config();
        config["image_token_index"].take();
        config[name] = json!(7);
        assert_eq!(build(&config, &llava_processor()).unwrap().unwrap().image_token(), 7);
    }
}
