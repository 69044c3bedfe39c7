//! Repositories of the hub by their settings: each has a family, which counts as its processor does
//! (`tools/goldens_hub.py`).

use serde_json::{Map, json};

use super::*;

const GOLDEN: &str = include_str!("../../../../integration-tests/goldens/hub.json");

fn repositories() -> Map<String, Value> {
    serde_json::from_str(GOLDEN).expect("an object")
}

fn built(name: &str, settings: &Value) -> Arc<dyn VlmFamily> {
    let family = build(&settings["config"], &settings["processor"]).unwrap_or_else(|error| panic!("{name}: {error}"));
    family.unwrap_or_else(|| panic!("{name} takes no images"))
}

fn image(row: &Value) -> ImageSize {
    let side = |index: usize| row[index].as_u64().and_then(|side| u32::try_from(side).ok()).expect("a side");
    ImageSize::new(side(0), side(1))
}

#[test]
fn every_image_has_the_tokens_its_processor_counts() {
    for (name, settings) in repositories() {
        let family = built(&name, &settings);
        for row in settings["counts"].as_array().expect("rows") {
            let found = family.layout(image(row)).ok();
            assert!(found.as_ref().is_none_or(|layout| crate::images::fits(layout, image(row))), "{name}: {row}");
            assert_eq!(found.map_or(Value::Null, |layout| json!(layout.num_tokens())), row[2], "{name}: {row}");
        }
    }
}

/// Numbers that papers and model cards name.
#[test]
fn published_numbers_hold() {
    let repositories = repositories();
    let tokens = |name: &str, width, height| {
        built(name, &repositories[name]).layout(ImageSize::new(width, height)).expect("a layout").num_tokens()
    };
    assert_eq!(tokens("llava-1.5-7b-hf", 640, 480), 576);
    assert_eq!(tokens("llava-v1.6-mistral-7b-hf", 672, 672), 5 * 576 + 48);
    assert_eq!(tokens("llava-onevision-qwen2-7b-ov-hf", 384, 384), 2 * 729 + 27);
    assert_eq!(tokens("gemma-3-4b-it", 4000, 3000), 256);
    assert_eq!(tokens("paligemma-3b-mix-224", 4000, 3000), 256);
    assert_eq!(tokens("Qwen2-VL-7B-Instruct", 224, 224), 64);
    assert_eq!(tokens("Qwen3-VL-8B-Instruct", 1024, 1024), 1024);
    assert_eq!(tokens("pixtral-12b", 1024, 1024), 64 * 64);
    assert_eq!(tokens("InternVL3-8B-hf", 448, 448), 256);
    assert_eq!(tokens("SmolVLM-256M-Instruct", 512, 512), 17 * 64);
}
