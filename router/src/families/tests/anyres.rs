//! Settings of checkpoints as the hub has them, and sizes whose arithmetic is easily got wrong.

use super::*;

/// `llava-v1.6-mistral-7b`.
fn next_config() -> Value {
    json!({
        "model_type": "llava_next", "image_token_index": 32000, "vision_feature_select_strategy": "default",
        "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    })
}

fn next_processor() -> Value {
    json!({
        "do_resize": true, "size": {"shortest_edge": 336}, "resample": 3, "do_pad": true,
        "do_center_crop": true, "crop_size": {"height": 336, "width": 336},
        "image_mean": [0.481, 0.458, 0.408],
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_processor_type": "LlavaNextImageProcessor",
    })
}

/// `llava-onevision-qwen2-0.5b-ov`.
fn onevision_config() -> Value {
    let sides = 1..=6;
    let canvases: Vec<_> = sides.clone().flat_map(|rows| sides.clone().map(move |columns| [rows, columns])).collect();
    json!({
        "model_type": "llava_onevision", "image_token_index": 151_646, "vision_feature_select_strategy": "full",
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14},
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": canvases.into_iter().map(|tiles| tiles.map(|tiles| tiles * 384)).collect::<Vec<_>>(),
    })
}

fn onevision_processor() -> Value {
    json!({
        "do_resize": true, "size": {"height": 384, "width": 384}, "resample": 3, "do_pad": true,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "LlavaOnevisionImageProcessor",
    })
}

fn next() -> Arc<dyn VlmFamily> {
    build(&next_config(), &next_processor()).unwrap().unwrap()
}

fn onevision() -> Arc<dyn VlmFamily> {
    build(&onevision_config(), &onevision_processor()).unwrap().unwrap()
}

/// The only place that counts views and tokens.
#[track_caller]
fn check(family: &dyn VlmFamily, image: (u32, u32), num_views: usize, num_tokens: u32) {
    let layout = family.layout(ImageSize::new(image.0, image.1)).unwrap();
    assert_eq!((layout.views.len(), layout.num_tokens()), (num_views, num_tokens));
}

/// Counts by `LlavaNextProcessor`.
#[test]
fn next_tiles_and_unpads() {
    let check = |image, num_views, num_tokens| check(&*next(), image, num_views, num_tokens);
    check((336, 336), 3, 1176);
    check((672, 672), 5, 2928);
    check((640, 480), 5, 2340);
    check((480, 640), 5, 2352);
    check((1000, 667), 5, 2144);
    check((1, 1), 3, 1176);
    check((3, 2), 3, 1464);
    check((16384, 1), 3, 576);
    check((1, 8192), 3, 600);
    check((1344, 336), 4, 1890);
    check((4000, 3000), 5, 2340);
    check((333, 500), 3, 1476);
}

/// Counts by `LlavaOnevisionProcessor`.
#[test]
fn onevision_shrinks_large_canvases() {
    let check = |image, num_views, num_tokens| check(&*onevision(), image, num_views, num_tokens);
    check((384, 384), 2, 1485);
    check((640, 480), 5, 2929);
    check((1, 1), 2, 1485);
    check((2000, 2500), 31, 7299);
    check((2304, 2304), 37, 7371);
    check((8192, 16), 7, 892);
    check((16, 8192), 7, 1053);
    check((4000, 3000), 31, 7309);
    check((1152, 1536), 13, 7332);
    check((1153, 1153), 17, 7371);
    check((700, 17), 3, 784);
}

#[test]
fn onevision_pads_each_of_several_to_a_square() {
    let several = onevision().several().unwrap();
    let ImageLayout { views, pieces } = several.layout(ImageSize::new(100, 31)).unwrap();
    let square = Operation::Pad { size: ImageSize::new(100, 100), x: 0, y: 34, colour: [127; 3] };
    let resize = Operation::Resize { size: ImageSize::new(384, 384), filter: Filter::Bicubic };
    assert_eq!(views, [View(vec![square, resize])]);
    assert_eq!(pieces, [Piece::Tokens(730)]);
    assert_eq!(several.layout(ImageSize::new(9, 9)).unwrap().views, [View(vec![resize])]);
    assert!(next().several().is_none() && several.several().is_none());
    assert_eq!((several.anchor(), several.image_token()), (151_646, 151_646));
}

#[test]
fn no_size_is_too_much() {
    let lengths = [1, 2, 335, 336, 337, 16_384, u32::MAX - 1, u32::MAX];
    for (width, height) in lengths.iter().flat_map(|width| lengths.map(|height| (*width, height))) {
        for family in [next(), onevision()] {
            let image = ImageSize::new(width, height);
            let layout = family.layout(image).unwrap();
            assert!(layout.views.iter().all(|view| view.output(image).is_some()), "{image:?} {layout:?}");
        }
    }
    for (width, height) in [(0, 0), (0, 7), (7, 0)] {
        let refused = Err(ImageRejected::Empty { width, height });
        assert_eq!(next().layout(ImageSize::new(width, height)), refused);
        assert_eq!(onevision().several().unwrap().layout(ImageSize::new(width, height)), refused);
    }
}

#[test]
fn contradictions_are_named() {
    let next = |key: &str, value: Value| complaint(next_config(), next_processor(), key, value);
    let onevision = |key: &str, value: Value| complaint(onevision_config(), onevision_processor(), key, value);
    let whole = "each must be made of 1 to 255 squares of 336 pixels a side";
    let rows = [
        (next("image_grid_pinpoints", json!([[336, 672]])), "the model and its processor disagree"),
        (next("image_grid_pinpoints", Value::Null), "the model and its processor disagree"),
        (canvases(json!([[336, 337]])), whole),
        (canvases(json!([])), whole),
        (canvases(json!([[0, 336]])), whole),
        (canvases(json!([[336 * 16, 336 * 16]])), whole),
        (next("vision_feature_select_strategy", json!("full")), "must leave one token for each patch"),
        (
            next("crop_size", json!({"height": 224, "width": 224})),
            "the processor makes 224x224 pixels, the encoder takes 336x336",
        ),
        (onevision("vision_aspect_ratio", json!("pad")), "must be \"anyres_max_\" and a number from 1 to 255"),
        (onevision("image_mean", Value::Null), "setting `image_mean` is missing or not three numbers"),
    ];
    for (found, expected) in rows {
        assert!(found.ends_with(expected), "{found}");
    }
}

fn canvases(canvases: Value) -> String {
    let (mut config, mut processor) = (next_config(), next_processor());
    processor["image_grid_pinpoints"] = canvases.clone();
    config["image_grid_pinpoints"] = canvases;
    build(&config, &processor).err().expect("refused").to_string()
}
