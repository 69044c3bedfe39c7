//! Gemma 3 and PaliGemma with the settings their repositories have, defaults of the classes filled in.

use serde_json::json;
use text_generation_scheduler::{ImageKey, Placeholder};

use super::*;

/// google/gemma-3-4b-it.
fn gemma3_config() -> Value {
    json!({
        "model_type": "gemma3", "boi_token_index": 255_999, "eoi_token_index": 256_000, "image_token_index": 262_144,
        "mm_tokens_per_image": 256,
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 896, "patch_size": 14},
    })
}

fn gemma3_processor() -> Value {
    json!({
        "do_convert_rgb": null, "do_normalize": true, "do_pan_and_scan": null, "do_rescale": true, "do_resize": true,
        "image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 256, "processor_image_seq_length": 256,
        "pan_and_scan_max_num_crops": null, "resample": 2, "size": {"height": 896, "width": 896},
    })
}

/// google/paligemma-3b-mix-448.
fn paligemma_config() -> Value {
    json!({
        "model_type": "paligemma", "image_token_index": 257_152,
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 448, "patch_size": 14},
    })
}

fn paligemma_processor() -> Value {
    json!({
        "do_resize": true, "image_processor_type": "SiglipImageProcessor", "image_seq_length": 1024, "resample": 3,
        "size": {"height": 448, "width": 448},
    })
}

fn placed(family: &dyn VlmFamily, token_ids: &[TokenId], runs: &[(u32, u32)]) -> (Positions, Vec<Range<u32>>) {
    let layout = family.layout(ImageSize::new(5, 5)).unwrap();
    let run = |&(offset, length)| Placeholder { offset, length, image: ImageKey([0; 32]), image_offset: 0 };
    let runs: Vec<[Placeholder; 1]> = runs.iter().map(|bounds| [run(bounds)]).collect();
    let image = |runs| PlacedImage { offset: 0, runs, size: ImageSize::new(5, 5), layout: &layout };
    let images: Vec<PlacedImage<'_>> = runs.iter().map(|runs| image(runs)).collect();
    let prompt = PlacedPrompt { token_ids, images: &images };
    (family.positions(&prompt), family.both_ways(&prompt))
}

#[test]
fn gemma3_writes_marks_and_blank_lines() {
    let family = build(&gemma3_config(), &gemma3_processor()).unwrap().unwrap();
    assert_eq!((family.anchor(), family.image_token(), family.frame()), (255_999, 262_144, None));
    let layout = family.layout(ImageSize::new(4000, 3)).unwrap();
    assert_eq!(layout.views, [View::resized(ImageSize::new(896, 896), Filter::Bilinear)]);
    let (before, after) = (Piece::Text("\n\n<start_of_image>".into()), Piece::Text("<end_of_image>\n\n".into()));
    assert_eq!(layout.pieces, [before, Piece::Tokens(256), after]);
}

#[test]
fn each_image_of_gemma3_sees_itself() {
    let family = build(&gemma3_config(), &gemma3_processor()).unwrap().unwrap();
    assert_eq!(placed(&*family, &[0; 9], &[(1, 3), (6, 2)]), (Positions::Sequential, vec![1..4, 6..8]));
}

#[test]
fn all_of_a_prompt_of_paligemma_sees_itself_and_counts_from_one() {
    let family = build(&paligemma_config(), &paligemma_processor()).unwrap().unwrap();
    assert_eq!((family.anchor(), family.image_token()), (257_152, 257_152));
    assert_eq!(family.frame(), Some(Frame { ending: "\n" }));
    assert_eq!(family.layout(ImageSize::new(3, 4000)).unwrap().pieces, [Piece::Tokens(1024)]);
    let positions = |tokens| Positions::Explicit { axes: vec![(1..=tokens).collect()], next: tokens + 1 };
    assert_eq!(placed(&*family, &[0; 7], &[(0, 2), (3, 2)]), (positions(7), vec![0..7]));
    assert_eq!(placed(&*family, &[], &[]), (positions(0), vec![]));
}

#[test]
fn other_sizes_and_numbers_of_tokens_are_refused() {
    let gemma3 = |key, value| complaint(gemma3_config(), gemma3_processor(), key, value);
    let paligemma = |key, value| complaint(paligemma_config(), paligemma_processor(), key, value);
    let written = "setting `image_seq_length`: the processor writes";
    let rows = [
        (
            gemma3("processor_image_seq_length", json!(255)),
            format!("gemma3: {written} 255 tokens for an image, the model makes 256"),
        ),
        (
            gemma3("mm_tokens_per_image", json!(64)),
            format!("gemma3: {written} 256 tokens for an image, the model makes 64"),
        ),
        (
            gemma3("mm_tokens_per_image", json!(0)),
            "gemma3: setting `mm_tokens_per_image` is missing or not a positive integer".to_owned(),
        ),
        (
            gemma3("mm_tokens_per_image", json!(1 << 20)),
            format!("gemma3: {written} 256 tokens for an image, the model makes 0"),
        ),
        (
            gemma3("size", json!({"height": 224, "width": 224})),
            "gemma3: setting `size`: the processor makes 224x224 pixels, the encoder takes 896x896".to_owned(),
        ),
        (
            paligemma("image_seq_length", json!(256)),
            format!("paligemma: {written} 256 tokens for an image, the model makes 1024"),
        ),
    ];
    for (found, expected) in rows {
        assert_eq!(found, expected);
    }
}
