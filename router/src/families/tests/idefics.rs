//! Idefics 2 and 3 and `SmolVLM` with the settings of the hub, and what is refused of them.

use serde_json::json;

use super::*;

fn smolvlm_config() -> Value {
    json!({"model_type": "smolvlm", "image_token_id": 49190, "scale_factor": 4, "vision_config": {"patch_size": 16}})
}

/// What is left to its default is not written.
fn smolvlm_processor() -> Value {
    json!({
        "do_resize": true, "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}, "resample": 1,
        "do_image_splitting": true, "image_seq_len": 64,
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}},
    })
}

fn idefics2_config() -> Value {
    json!({
        "model_type": "idefics2", "image_token_id": 32001, "vision_config": {"patch_size": 14},
        "perceiver_config": {"resampler_n_latents": 64},
    })
}

fn idefics2_processor() -> Value {
    json!({
        "do_resize": true, "size": {"longest_edge": 980, "shortest_edge": 378}, "resample": 2,
        "do_image_splitting": true,
    })
}

fn built(config: &Value, processor: &Value) -> Arc<dyn VlmFamily> {
    build(config, processor).unwrap_or_else(|error| panic!("{error}")).expect("it takes images")
}

/// With one setting changed.
fn with(mut settings: Value, key: &str, value: Value) -> Value {
    settings[key] = value;
    settings
}

#[track_caller]
fn check_grid(image: (u32, u32), enlarged: (u32, u32), rows: u32, columns: u32) {
    let image = ImageSize::new(image.0, image.1);
    let layout = built(&smolvlm_config(), &smolvlm_processor()).layout(image).unwrap();
    let enlarged = ImageSize::new(enlarged.0, enlarged.1);
    let enlarge = Operation::Resize { size: enlarged, filter: Filter::Lanczos };
    assert!(layout.views.iter().all(|view| view.0[1] == enlarge), "{layout:?}");
    assert!(layout.views.iter().all(|view| view.output(image) == Some(ImageSize::new(512, 512))), "{layout:?}");
    assert_eq!((layout.views.len() as u32, layout.num_tokens()), (rows * columns + 1, 64 * (rows * columns + 1)));
    assert!(layout.pieces.contains(&Piece::Text(format!("{FAKE}<row_{rows}_col_{columns}>").into())), "{layout:?}");
}

const FAKE: &str = "<fake_token_around_image>";

/// Numbers of the processor, whose two resizes divide in floating point.
#[test]
fn smolvlm_enlarges_to_whole_tiles() {
    check_grid((1, 1), (2048, 2048), 4, 4);
    check_grid((640, 480), (2048, 1536), 3, 4);
    check_grid((333, 500), (1536, 2048), 4, 3);
    check_grid((1000, 667), (2048, 1536), 3, 4);
    check_grid((3000, 1001), (2048, 1024), 2, 4);
    check_grid((8192, 16), (2048, 512), 1, 4);
    check_grid((1, 8192), (512, 2048), 4, 1);
}

#[test]
fn without_splitting_there_is_the_whole_alone() {
    let processor = with(smolvlm_processor(), "do_image_splitting", json!(false));
    let image = ImageSize::new(640, 480);
    let layout = built(&smolvlm_config(), &processor).layout(image).unwrap();
    assert_eq!(
        layout.views.iter().map(|view| view.output(image)).collect::<Vec<_>>(),
        [Some(ImageSize::new(512, 512))]
    );
    assert_eq!(layout.pieces, [text("<global-img>"), Piece::Tokens(64), Piece::Text(FAKE.into())]);
}

fn text(mark: &str) -> Piece {
    Piece::Text(format!("{FAKE}{mark}").into())
}

#[test]
fn one_tile_is_the_whole() {
    let processor = with(smolvlm_processor(), "size", json!({"longest_edge": 400}));
    let layout = built(&smolvlm_config(), &processor).layout(ImageSize::new(640, 480)).unwrap();
    assert_eq!((layout.views.len(), layout.pieces.len()), (1, 3));
}

#[test]
fn idefics2_comes_in_quarters_and_whole() {
    let image = ImageSize::new(1501, 1000);
    let sizes = |processor: &Value| -> Vec<(u32, u32)> {
        let layout = built(&idefics2_config(), processor).layout(image).unwrap();
        assert_eq!(layout.num_tokens() as usize, 64 * layout.views.len());
        layout.views.iter().filter_map(|view| view.output(image)).map(|size| (size.width, size.height)).collect()
    };
    assert_eq!(sizes(&idefics2_processor()), [(750, 500), (751, 500), (750, 500), (751, 500), (980, 652)]);
    assert_eq!(sizes(&with(idefics2_processor(), "do_image_splitting", json!(false))), [(980, 652)]);
}

#[test]
fn a_single_row_has_no_halves() {
    let family = built(&idefics2_config(), &idefics2_processor());
    assert!(family.layout(ImageSize::new(5, 1)).is_err());
    assert!(family.layout(ImageSize::new(1, 5)).is_ok());
    let whole = built(&idefics2_config(), &with(idefics2_processor(), "do_image_splitting", json!(false)));
    assert!(whole.layout(ImageSize::new(5, 1)).is_ok());
}

#[test]
fn any_size_is_answered() {
    let sides = [1, 2, 3, 49, 98, 4096, 65_535, u32::MAX - 1, u32::MAX];
    let families = [(smolvlm_config(), smolvlm_processor()), (idefics2_config(), idefics2_processor())];
    for family in families.map(|(config, processor)| built(&config, &processor)) {
        for (width, height) in sides.iter().flat_map(|width| sides.map(|height| (*width, height))) {
            let image = ImageSize::new(width, height);
            let Ok(layout) = family.layout(image) else { continue };
            assert!(layout.views.iter().all(|view| view.output(image).is_some()), "{image:?}");
        }
        assert!(family.layout(ImageSize::new(0, 5)).is_err());
    }
}

#[track_caller]
fn refused(config: &Value, processor: &Value, key: &str) {
    let error = build(config, processor).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(&format!("`{key}`")), "{error}");
}

#[test]
fn what_the_model_would_not_make_is_refused_by_name() {
    let (config, processor) = (smolvlm_config(), smolvlm_processor());
    refused(&config, &with(processor.clone(), "image_seq_len", json!(81)), "image_seq_len");
    refused(&config, &with(processor.clone(), "image_seq_len", json!(null)), "image_seq_len");
    refused(&config, &with(processor.clone(), "size", json!({"height": 5, "width": 5})), "longest_edge");
    refused(&config, &with(processor.clone(), "max_image_size", json!({"longest_edge": 100})), "max_image_size");
    refused(&config, &with(processor.clone(), "max_image_size", json!({"longest_edge": u32::MAX})), "max_image_size");
    refused(&config, &with(processor.clone(), "do_resize", json!(false)), "do_resize");
    refused(&with(config.clone(), "scale_factor", json!(3)), &processor, "image_seq_len");
    refused(&with(config, "scale_factor", json!(0)), &processor, "scale_factor");
    let (config, processor) = (idefics2_config(), idefics2_processor());
    refused(&config, &with(processor.clone(), "image_seq_len", json!(65)), "image_seq_len");
    refused(
        &config,
        &with(processor.clone(), "size", json!({"shortest_edge": 13, "longest_edge": 98})),
        "shortest_edge",
    );
    refused(&config, &with(processor.clone(), "size", json!({"longest_edge": 98})), "shortest_edge");
    refused(&config, &with(processor, "do_resize", json!(false)), "do_resize");
}
