//! Images at low detail: never more tokens than the processor makes of them, and no other arithmetic than its own.

use super::*;

/// What a family makes of an image by itself and at low detail.
fn both(family: &dyn VlmFamily, image: ImageSize) -> Option<(ImageLayout, ImageLayout)> {
    let low = family.low_detail().expect("it has a smaller form");
    Some((family.layout(image).ok()?, low.layout(image).ok()?))
}

#[test]
fn is_never_more_and_always_fits() {
    for golden in goldens::all() {
        let Some(low) = golden.family.low_detail() else { continue };
        let mut smaller = 0;
        for image in golden.sizes() {
            let Some((full, layout)) = both(&*golden.family, image) else { continue };
            assert!(crate::images::fits(&layout, image), "{} {image:?}", golden.name);
            assert!(layout.num_tokens() <= full.num_tokens(), "{} {image:?}", golden.name);
            assert!(layout.num_pixels(image) <= full.num_pixels(image), "{} {image:?}", golden.name);
            smaller += u32::from(layout.num_tokens() < full.num_tokens());
        }
        assert!(smaller > 500, "{}: {smaller}", golden.name);
        assert_eq!((low.image_token(), low.anchor()), (golden.family.image_token(), golden.family.anchor()));
    }
}

#[test]
fn families_of_one_size_and_those_with_less_room_have_none() {
    let without: Vec<String> = goldens::all()
        .into_iter()
        .filter(|golden| golden.family.low_detail().is_none())
        .map(|golden| golden.name)
        .collect();
    let mut expected = ["fast_vlm", "gemma3", "llava", "paligemma", "paligemma2"].to_vec();
    // Tiny checkpoints of these have less room than low detail leaves.
    expected.extend(["mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl", "qwen3_vl"]);
    expected.sort_unstable();
    assert_eq!(without, expected);
}

/// Positions come from what the image became, not from what it would have become.
#[test]
fn positions_are_those_of_the_smaller_grid() {
    let config = json!({
        "model_type": "qwen2_vl", "image_token_id": 7, "vision_config": {"patch_size": 14, "spatial_merge_size": 2},
    });
    let processor = json!({"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12_845_056});
    let family = build(&config, &processor).unwrap().unwrap();
    let size = ImageSize::new(2800, 700);
    let (full, low) = both(&*family, size).unwrap();
    assert_eq!((full.num_tokens(), low.num_tokens()), (2500, 8 * 32));
    let runs =
        [Placeholder { offset: 0, length: 256, image: text_generation_scheduler::ImageKey([0; 32]), image_offset: 0 }];
    let images = [PlacedImage { offset: 0, runs: &runs, size, layout: &low }];
    let prompt = PlacedPrompt { token_ids: &[7; 257], images: &images };
    let Positions::Explicit { axes, next } = family.positions(&prompt) else { panic!("three axes") };
    assert_eq!((axes[1][255], axes[2][255], axes[0][256], next), (7, 31, 32, 33));
}

#[test]
fn pixtral_has_room_for_a_square_of_tokens() {
    let config = json!({"model_type": "mistral3", "image_token_index": 10});
    let processor = json!({
        "do_resize": true, "size": {"longest_edge": 1540}, "resample": 3,
        "processor_patch_size": 14, "spatial_merge_size": 2,
    });
    let family = build(&config, &processor).unwrap().unwrap();
    for (size, full, low) in [((4000, 3000), 55 * 42, 16 * 12), ((1540, 1540), 55 * 55, 256), ((28, 56), 2, 2)] {
        let (whole, small) = both(&*family, ImageSize::new(size.0, size.1)).unwrap();
        assert_eq!((whole.num_tokens(), small.num_tokens()), (full, low), "{size:?}");
    }
}
