//! Every family against what `tools/goldens_families.py` wrote down of its processor: views and their pixels, tokens of
//! thousands of sizes, positions of prompts.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use text_generation_scheduler::{ImageKey, Placeholder};

use super::*;
use crate::images::{self, goldens};

/// What was written down of one family, and the family built of the settings in it.
pub(super) struct Golden {
    pub(super) name: String,
    content: Value,
    pub(super) family: Arc<dyn VlmFamily>,
}

/// Every golden, by name.
pub(super) fn all() -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration-tests/goldens/families");
    let files = fs::read_dir(folder).expect("goldens are committed").map(|entry| entry.expect("a file").path());
    let mut found: Vec<Golden> = files.map(|file| golden(&file)).collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    assert!(!found.is_empty(), "there are no goldens");
    found
}

fn golden(file: &Path) -> Golden {
    let content: Value = serde_json::from_str(&fs::read_to_string(file).expect("a text")).expect("valid JSON");
    let name = content["family"].as_str().expect("a name").to_owned();
    let family = build(&content["config"], &content["processor"]).unwrap_or_else(|error| panic!("{error}"));
    Golden { family: family.unwrap_or_else(|| panic!("{name} takes no images")), name, content }
}

impl Golden {
    /// The sizes that were counted.
    pub(super) fn sizes(&self) -> impl Iterator<Item = ImageSize> {
        self.rows("counts").iter().map(size)
    }

    fn rows(&self, key: &str) -> &[Value] {
        let rows = self.content[key].as_array().expect("a list");
        assert!(!rows.is_empty(), "{}: {key} is empty", self.name);
        rows
    }
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

fn size(value: &Value) -> ImageSize {
    ImageSize::new(number(&value[0]), number(&value[1]))
}

/// Numbers of which `[number, count]` stands for a run of equal ones.
fn unfolded(runs: &Value) -> Vec<TokenId> {
    let run = |run: &Value| if run.is_array() { (number(&run[0]), number(&run[1])) } else { (number(run), 1) };
    let runs = runs.as_array().expect("a list").iter().map(run);
    runs.flat_map(|(number, count)| std::iter::repeat_n(number, count as usize)).collect()
}

#[test]
fn every_family_has_goldens() {
    let found: Vec<String> = all().into_iter().map(|golden| golden.name).collect();
    let missing: Vec<_> = FAMILIES.iter().filter(|(name, _)| !found.contains(&(*name).to_owned())).collect();
    assert!(missing.is_empty(), "no goldens of {:?}", missing.iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn tokens_are_those_of_the_config() {
    for golden in all() {
        assert_eq!(golden.family.anchor(), number(&golden.content["anchor"]), "{}", golden.name);
        assert_eq!(golden.family.image_token(), number(&golden.content["image_token"]), "{}", golden.name);
    }
}

#[test]
fn views_have_the_pixels_of_the_processor() {
    let mut pictures: HashMap<ImageSize, Vec<u8>> = HashMap::new();
    for golden in all() {
        for row in golden.rows("layouts") {
            let image = size(&row["size"]);
            let pixels = pictures
                .entry(image)
                .or_insert_with(|| goldens::generate(0, u64::from(image.width), u64::from(image.height), "smooth"));
            assert_eq!(layout(&*golden.family, image, pixels), *row, "{}", golden.name);
        }
    }
}

#[test]
fn views_of_several_images_have_the_pixels_of_the_processor() {
    for golden in all() {
        let rows = golden.content.get("layouts_among_several").and_then(Value::as_array);
        let several = golden.family.several();
        assert_eq!(several.is_some(), rows.is_some(), "{}", golden.name);
        for (row, family) in rows.into_iter().flatten().zip(several.iter().cycle()) {
            let image = size(&row["size"]);
            let pixels = goldens::generate(0, u64::from(image.width), u64::from(image.height), "smooth");
            assert_eq!(layout(&**family, image, &pixels), *row, "{}", golden.name);
        }
    }
}

/// A layout in the words of the goldens.
fn layout(family: &dyn VlmFamily, image: ImageSize, pixels: &[u8]) -> Value {
    let sides = json!([image.width, image.height]);
    let Ok(layout) = family.layout(image) else { return json!({"size": sides, "refused": true}) };
    assert!(images::fits(&layout, image), "{image:?} {layout:?}");
    let view = |view: images::RgbView| json!([view.size.width, view.size.height, goldens::checksum(&view.pixels)]);
    let views: Vec<Value> = images::render(pixels, image, &layout.views).into_iter().map(view).collect();
    json!({"size": sides, "views": views, "pieces": joined(&layout.pieces)})
}

/// Neighbours of a kind as one; borders that touch are one.
fn joined(pieces: &[Piece]) -> Vec<Value> {
    let is_text = |piece: &Piece| !matches!(piece, Piece::Tokens(_));
    let mut filled: Vec<Piece> = pieces.iter().filter(|piece| !matches!(piece, Piece::Tokens(0))).cloned().collect();
    filled.dedup_by(|right, left| matches!((left, right), (Piece::Border(_), Piece::Border(_))));
    filled.chunk_by(|left, right| is_text(left) == is_text(right)).map(join).collect()
}

fn join(pieces: &[Piece]) -> Value {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) | Piece::Border(text) => text.to_string(),
        Piece::Tokens(_) => String::new(),
    };
    let text: String = pieces.iter().map(text).collect();
    if text.is_empty() {
        json!(ImageLayout { views: vec![], pieces: pieces.to_vec() }.num_tokens())
    } else {
        json!(text)
    }
}

/// Where the processor refuses so do we, as the client's error and not as ours.
#[test]
fn random_sizes_have_the_tokens_of_the_processor() {
    for golden in all() {
        assert!(golden.rows("counts").len() >= 2000);
        for row in golden.rows("counts") {
            let image = size(row);
            let layout = golden.family.layout(image).ok();
            assert!(layout.as_ref().is_none_or(|layout| images::fits(layout, image)), "{}: {row}", golden.name);
            assert_eq!(
                layout.map_or(Value::Null, |layout| json!(layout.num_tokens())),
                row[2],
                "{}: {row}",
                golden.name
            );
        }
    }
}

#[test]
fn positions_and_ranges_are_those_of_the_model() {
    for golden in all() {
        for case in golden.rows("cases") {
            let token_ids = unfolded(&case["ids"]);
            let expected = expected_positions(case, token_ids.len());
            let found = placed(&golden, case, &token_ids, |prompt| {
                (positions(golden.family.positions(prompt), &expected), golden.family.both_ways(prompt))
            });
            assert_eq!(found, (expected, expected_ranges(case)), "{} {}", golden.name, case["name"]);
        }
    }
}

/// Asks about a recorded prompt with its images in place.
fn placed<T>(golden: &Golden, case: &Value, token_ids: &[TokenId], ask: impl FnOnce(&PlacedPrompt<'_>) -> T) -> T {
    let sizes: Vec<ImageSize> = case["sizes"].as_array().expect("sizes").iter().map(size).collect();
    let family = golden.family.several().filter(|_| sizes.len() > 1).unwrap_or_else(|| golden.family.clone());
    let layouts: Vec<ImageLayout> = sizes.iter().map(|size| family.layout(*size).expect("a layout")).collect();
    let image_token = golden.family.image_token();
    let mut places = (0u32..).zip(token_ids).filter(|(_, id)| **id == image_token).map(|(place, _)| place);
    let runs: Vec<Vec<Placeholder>> =
        layouts.iter().map(|layout| runs(places.by_ref().take(layout.num_tokens() as usize))).collect();
    assert_eq!(places.next(), None, "{case}: image tokens are left over");
    let images = sizes.iter().zip(&layouts).zip(&runs);
    let images: Vec<PlacedImage<'_>> =
        images.map(|((&size, layout), runs)| PlacedImage { offset: runs[0].offset, runs, size, layout }).collect();
    ask(&PlacedPrompt { token_ids, images: &images })
}

/// Unbroken runs of an image's tokens.
fn runs(places: impl Iterator<Item = u32>) -> Vec<Placeholder> {
    let mut found: Vec<Placeholder> = Vec::new();
    for (place, image_offset) in places.zip(0..) {
        match found.last_mut().filter(|run| run.end() == place) {
            Some(run) => run.length += 1,
            None => found.push(Placeholder { offset: place, length: 1, image: ImageKey([0; 32]), image_offset }),
        }
    }
    found
}

/// Positions of the prompt and of the first token after it, an axis at a time.
fn positions(positions: Positions, like: &[Vec<i64>]) -> Vec<Vec<i64>> {
    match positions {
        Positions::Sequential => vec![(0..).take(like[0].len()).collect(); like.len()],
        Positions::Explicit { axes, next } => {
            axes.into_iter().map(|axis| axis.into_iter().chain([next]).map(i64::from).collect()).collect()
        }
    }
}

fn expected_ranges(case: &Value) -> Vec<Range<u32>> {
    let ranges = case["both_ways"].as_array().into_iter().flatten();
    ranges.map(|range| number(&range[0])..number(&range[0]) + number(&range[1])).collect()
}

/// What was written down: runs of `[first, step, count]`; the next token follows the largest of all.
fn expected_positions(case: &Value, num_tokens: usize) -> Vec<Vec<i64>> {
    let Some(axes) = case["positions"].as_array() else { return vec![(0..=num_tokens as i64).collect()] };
    let run = |run: &Value| {
        let [first, step, count] = [0, 1, 2].map(|index| i64::from(number(&run[index])));
        (0..count).map(move |index| first + step * index)
    };
    let mut found: Vec<Vec<i64>> =
        axes.iter().map(|axis| axis.as_array().expect("runs").iter().flat_map(run).collect()).collect();
    let next = found.iter().flatten().max().expect("a position") + 1;
    for axis in &mut found {
        axis.push(next);
    }
    found
}
