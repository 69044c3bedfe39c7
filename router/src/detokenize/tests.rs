//! Against the tokenizer's own decoder: put together, the pieces are what it makes of all ids at once.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::*;

/// GPT-2's disguise of bytes, written out independently of the table under test.
fn byte_alphabet() -> Vec<char> {
    let mut others = 0x100_u32..;
    let disguise = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => others.next().and_then(char::from_u32).expect("a character"),
    };
    (0..=u8::MAX).map(disguise).collect()
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
}

/// A byte-level tokenizer with a few merges and added tokens, as Qwen's are built.
pub(crate) fn byte_level() -> Value {
    let mut vocab: Map<String, Value> =
        byte_alphabet().iter().enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
    let merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "t"), ("ð", "Ł"), ("ðŁ", "ĺ")];
    for (left, right) in merges {
        let id = vocab.len();
        vocab.insert(format!("{left}{right}"), json!(id));
    }
    let first = vocab.len();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            added(first, "<|im_start|>", true), added(first + 1, "<|im_end|>", true), added(first + 2, "<|image_pad|>", true),
            added(first + 3, "<tool_call>", false), added(first + 4, "é ü", false),
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
            "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>()},
    })
}

/// A tokenizer with byte fallback and a blank in front, as Llama 2's is built; it adds `<s>`.
pub(crate) fn byte_fallback() -> Value {
    let names = ["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let letters = "▁abcdefghijklmnopqrstuvwxyzABC<>|_/.:[]é日".chars().map(String::from);
    let pairs = ["▁t", "he", "▁the"].map(str::to_owned);
    let vocab: Map<String, Value> = names
        .into_iter()
        .chain(bytes)
        .chain(letters)
        .chain(pairs)
        .enumerate()
        .map(|(id, text)| (text, json!(id)))
        .collect();
    let first = vocab.len();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true), added(first, "<image>", true)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": [["▁", "t"], ["h", "e"], ["▁t", "he"]]},
    })
}

/// As [`byte_fallback`], the way newer checkpoints write it.
pub(crate) fn metaspace() -> Value {
    let mut tokenizer = byte_fallback();
    tokenizer["normalizer"] = Value::Null;
    tokenizer["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    tokenizer["decoder"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    tokenizer["model"]["byte_fallback"] = json!(false);
    tokenizer
}

struct Pair {
    tokenizer: Tokenizer,
    table: Arc<TokenTable>,
}

impl Pair {
    fn of(json: &Value) -> Self {
        let tokenizer = serde_json::from_value(json.clone()).expect("the tokenizer loads");
        Self { tokenizer, table: Arc::new(TokenTable::new(json).expect("the table is built")) }
    }

    fn embedded() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/text_generation_server/embedded/prepared.json");
        let model = crate::prepared::PreparedModel::read(path.as_ref()).expect("the embedded model is prepared");
        Self::of(&model.tokenizer)
    }

    fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        self.tokenizer.decode(ids, skip_special).expect("it decodes")
    }

    fn streamed(&self, ids: &[TokenId], skip_special: bool) -> String {
        let mut detokenizer = Detokenizer::from_start(Arc::clone(&self.table), skip_special);
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.flush());
        assert_eq!(detokenizer.flush(), "");
        text
    }

    fn ids(&self) -> impl Strategy<Value = Vec<TokenId>> + use<> {
        // A few ids beyond the vocabulary, which stand for nothing.
        prop::collection::vec(0..self.table.len() as TokenId + 3, 0..40)
    }
}

fn check_random_ids(pair: &Pair) {
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(ids in pair.ids(), skip_special in any::<bool>())| {
        prop_assert_eq!(pair.streamed(&ids, skip_special), pair.decode(&ids, skip_special));
    });
}

#[test]
fn embedded_ids_decode_as_the_tokenizer_does() {
    check_random_ids(&Pair::embedded());
}

#[test]
fn byte_level_ids_decode_as_the_tokenizer_does() {
    check_random_ids(&Pair::of(&byte_level()));
}

#[test]
fn metaspace_ids_decode_as_the_tokenizer_does() {
    check_random_ids(&Pair::of(&metaspace()));
}

/// The one intended difference: a run of byte tokens is shown as soon as it is text, so bytes that follow and spoil
/// the run do not take back what was shown. Runs here are of one byte.
#[test]
fn byte_fallback_ids_decode_as_the_tokenizer_does() {
    let pair = Pair::of(&byte_fallback());
    let letter = pair.tokenizer.token_to_id("a").expect("a token");
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let separated = pair.ids().prop_map(|ids| ids.into_iter().flat_map(|id| [id, letter]).collect::<Vec<TokenId>>());
    proptest!(config, |(ids in separated, skip_special in any::<bool>())| {
        prop_assert_eq!(pair.streamed(&ids, skip_special), pair.decode(&ids, skip_special));
    });
}

#[test]
fn texts_come_back_whole() {
    for json in [byte_level(), byte_fallback()] {
        let pair = Pair::of(&json);
        let config = ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in "[ a-cé日😀👩‍🚀\\u{0}-\\u{7f}]{0,30}")| {
            let ids = pair.tokenizer.encode_fast(text.as_str(), false).expect("it encodes").get_ids().to_vec();
            prop_assert_eq!(pair.streamed(&ids, false), pair.decode(&ids, false));
        });
    }
}

#[track_caller]
fn check_stream(pair: &Pair, ids: &[TokenId], expected: &[&str]) {
    let mut detokenizer = Detokenizer::new(Arc::clone(&pair.table), false);
    let mut shown: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
    shown.push(detokenizer.flush());
    assert_eq!(shown, expected);
}

#[test]
fn a_character_appears_with_the_token_that_completes_it() {
    let pair = Pair::of(&byte_level());
    // U+1F600, byte by byte: the vocabulary's first 256 ids are the bytes.
    check_stream(&pair, &[0xF0, 0x9F, 0x98, 0x80, 0x61], &["", "", "", "😀", "a", ""]);
    check_stream(&pair, &[0xF0, 0x9F, 0x61], &["", "", "\u{FFFD}a", ""]);
    check_stream(&pair, &[0xF0, 0x9F], &["", "", "\u{FFFD}"]);
    check_stream(&pair, &[0xFF, 0xFF], &["\u{FFFD}", "\u{FFFD}", ""]);
    let pair = Pair::of(&byte_fallback());
    let byte = |byte: TokenId| byte + 3;
    check_stream(&pair, &[byte(0xF0), byte(0x9F), byte(0x98), byte(0x80), 260], &["", "", "", "😀", "a", ""]);
    check_stream(&pair, &[byte(0xF0), byte(0x9F), 260], &["", "", "\u{FFFD}\u{FFFD}a", ""]);
    check_stream(&pair, &[byte(0xF0), byte(0x9F)], &["", "", "\u{FFFD}\u{FFFD}"]);
}

#[test]
fn a_run_of_bad_bytes_is_not_held_for_ever() {
    let pair = Pair::of(&byte_fallback());
    let mut detokenizer = Detokenizer::new(Arc::clone(&pair.table), false);
    let shown: Vec<String> = (0..200).map(|_| detokenizer.push(0xF0 + 3)).collect();
    assert_eq!(shown.iter().filter(|text| !text.is_empty()).count(), 200 / MAX_HELD_BYTES);
    let all = shown.concat() + &detokenizer.flush();
    assert_eq!(all.chars().count(), 200);
}

#[test]
fn an_answer_keeps_the_blank_it_begins_with() {
    let pair = Pair::of(&byte_fallback());
    let the = pair.tokenizer.token_to_id("▁the").expect("a token");
    check_stream(&pair, &[the, the], &[" the", " the", ""]);
    assert_eq!(pair.streamed(&[the, the], false), "the the");
}

#[test]
fn special_tokens_can_be_left_out() {
    let pair = Pair::of(&byte_level());
    let end = pair.tokenizer.token_to_id("<|im_end|>").expect("a token");
    let call = pair.tokenizer.token_to_id("<tool_call>").expect("a token");
    assert!(pair.table.is_special(end) && !pair.table.is_special(call));
    assert_eq!(pair.streamed(&[0x61, end, call], true), "a<tool_call>");
    assert_eq!(pair.streamed(&[0x61, end, call], false), "a<|im_end|><tool_call>");
    assert_eq!(pair.streamed(&[0xC3, end, 0xA9], true), "é", "as the decoder, which never sees the skipped token");
}

#[test]
fn single_tokens_have_texts() {
    let pair = Pair::of(&byte_level());
    let table = &pair.table;
    assert_eq!(table.token_text(0x61), "a");
    assert_eq!(table.token_text(0xF0), "\u{FFFD}");
    assert_eq!(table.token_bytes(0xF0), Some(&[0xF0][..]));
    assert_eq!(table.token_text(1_000_000), "");
    assert_eq!(table.token_bytes(1_000_000), None);
    assert_eq!(table.len(), 256 + 6 + 5);
}

#[test]
fn unknown_decoders_are_refused() {
    let mut tokenizer = byte_level();
    tokenizer["decoder"] = json!({"type": "CTC"});
    assert!(matches!(TokenTable::new(&tokenizer), Err(InvalidDecoder::Unknown(name)) if name == "CTC"));
    tokenizer["decoder"] = Value::Null;
    assert!(TokenTable::new(&tokenizer).is_err());
    let mut tokenizer = byte_level();
    tokenizer["model"]["vocab"] = Value::Null;
    assert!(matches!(TokenTable::new(&tokenizer), Err(InvalidDecoder::NoVocabulary)));
}
