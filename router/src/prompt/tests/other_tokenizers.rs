//! Tokenizers of other kinds than the embedded model's: blanks in front, bytes as tokens, tokens that take blanks in.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::*;
use crate::detokenize::tests::{byte_fallback, byte_level, metaspace};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}</s>{% endfor %}";
const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>\n{% endfor %}";

struct Model {
    builder: PromptBuilder,
    tokenizer: Tokenizer,
}

fn model(tokenizer: Value, control: &[&str], media: &[&str], template: &str) -> Model {
    let loaded: Tokenizer = serde_json::from_value(tokenizer.clone()).expect("the tokenizer loads");
    let mut prepared = embedded();
    prepared.tokenizer = tokenizer;
    prepared.control_tokens = control.iter().map(ToString::to_string).collect();
    prepared.media_tokens = media.iter().map(ToString::to_string).collect();
    prepared.special_tokens = [("bos_token".to_owned(), json!("<s>"))].into_iter().collect();
    prepared.chat_template = Some(template.to_owned());
    prepared.raw_prompt = RawPrompt::Text;
    let image = loaded.token_to_id(media[0]).expect("an image token");
    let family = Arc::new(TestFamily { anchor: image, image_token: image, anchor_text: None });
    Model { builder: PromptBuilder::new(&prepared, Some(family)).expect("it is built"), tokenizer: loaded }
}

fn llama(tokenizer: Value, template: &str) -> Model {
    model(tokenizer, &["<s>", "</s>", "<unk>", "<image>"], &["<image>"], template)
}

fn qwen() -> Model {
    model(byte_level(), &["<|im_start|>", "<|im_end|>", "<|image_pad|>", "<tool_call>"], &["<|image_pad|>"], CHATML)
}

impl Model {
    fn id(&self, token: &str) -> TokenId {
        self.tokenizer.token_to_id(token).expect("a token")
    }

    fn whole(&self, text: &str, special: bool) -> Vec<TokenId> {
        self.tokenizer.encode_fast(text, special).expect("it encodes").get_ids().to_vec()
    }

    fn chat(&self, text: &str) -> Prompt {
        self.builder.chat_now(&chat_of(vec![user(text)])).expect("it is built")
    }
}

#[test]
fn honest_chats_are_encoded_whole() {
    for model in [llama(byte_fallback(), TEMPLATE), llama(metaspace(), TEMPLATE), qwen()] {
        let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in "[ a-zé日😀:\\n]{0,20}")| {
            let prompt = model.chat(&text);
            let special = !prompt.text.starts_with("<s>");
            prop_assert_eq!(&prompt.token_ids, &model.whole(&prompt.text, special));
        });
    }
}

#[test]
fn hostile_chats_keep_their_control_tokens() {
    let cases = [
        (llama(byte_fallback(), TEMPLATE), ["</s>", "<image>", "<s>"]),
        (llama(metaspace(), TEMPLATE), ["</s>", "<image>", "<s>"]),
        (qwen(), ["<|im_end|>", "<|image_pad|>", "<tool_call>"]),
    ];
    for (model, tokens) in cases {
        let count =
            |prompt: &Prompt| tokens.map(|token| prompt.token_ids.iter().filter(|&&id| id == model.id(token)).count());
        let expected = count(&model.chat("x"));
        let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
        let piece = prop_oneof![
            prop::sample::select(tokens.to_vec()).prop_map(str::to_owned),
            "[ a-z</>|]{0,4}".prop_map(String::from)
        ];
        proptest!(config, |(pieces in prop::collection::vec(piece, 1..6))| {
            let typed = pieces.concat();
            prop_assert_eq!(count(&model.chat(&typed)), expected);
        });
    }
}

/// `<unk>` is a special token, but the model itself makes it of characters it does not know.
#[test]
fn unknown_characters_are_not_an_attack() {
    let model = llama(metaspace(), TEMPLATE);
    assert!(model.chat("ÿ").token_ids.contains(&0));
    assert!(!model.chat("<unk>").token_ids.contains(&0));
}

#[test]
fn no_blank_is_put_before_a_piece() {
    for tokenizer in [byte_fallback(), metaspace()] {
        let model = llama(tokenizer, TEMPLATE);
        let prompt = model.chat("a</s>b");
        let mut detokenizer = crate::detokenize::Detokenizer::from_start(model.builder.table(), true);
        let text: String = prompt.token_ids.iter().map(|&id| detokenizer.push(id)).collect();
        assert_eq!(text, "user: a</s>b");
    }
}

#[test]
fn the_first_token_is_added_once() {
    let count = |prompt: &Prompt| prompt.token_ids.iter().filter(|&&id| id == 1).count();
    let without = llama(byte_fallback(), TEMPLATE).chat("a");
    assert_eq!((without.token_ids[0], count(&without)), (1, 1));
    let with = llama(byte_fallback(), "<s>{{ messages[0].content }}").chat("a");
    assert_eq!((with.token_ids[0], count(&with)), (1, 1));
    let raw = llama(byte_fallback(), TEMPLATE);
    let raw = raw.builder.raw_now(&[Segment::Text("the".to_owned())], Vec::new()).expect("it is built");
    assert_eq!((raw.token_ids[0], raw.token_ids.len()), (1, 2));
}

#[test]
fn inputs_keep_special_tokens_but_not_media() {
    let model = qwen();
    let inputs = "<|im_start|>hello <|image_pad|> <tool_call><|im_end|>";
    let prompt = model.builder.raw_now(&[Segment::Text(inputs.to_owned())], Vec::new()).expect("it is built");
    for token in ["<|im_start|>", "<|im_end|>", "<tool_call>"] {
        assert_eq!(prompt.token_ids.iter().filter(|&&id| id == model.id(token)).count(), 1, "{token}");
    }
    assert!(!prompt.token_ids.contains(&model.id("<|image_pad|>")));
}

/// A model whose `<|im_start|>` takes in the blanks on its right and is matched in normalised text.
fn greedy(normalized: bool) -> Model {
    let mut tokenizer = byte_level();
    tokenizer["normalizer"] = json!({"type": "Lowercase"});
    tokenizer["added_tokens"][0]["rstrip"] = json!(true);
    tokenizer["added_tokens"][0]["normalized"] = json!(normalized);
    model(tokenizer, &["<|im_start|>", "<|im_end|>", "<|image_pad|>"], &["<|image_pad|>"], CHATML)
}

#[test]
fn a_token_that_takes_in_blanks_of_a_user_is_the_templates() {
    let model = greedy(false);
    let prompt = model.chat("   hello");
    assert_eq!(prompt.token_ids, model.whole(&prompt.text, false));
    assert_eq!(prompt.token_ids.iter().filter(|&&id| id == model.id("<|im_start|>")).count(), 1);
}

/// In `inputs` a user's blanks follow the anchor directly; the anchor is ours even if its token takes them in.
#[test]
fn an_anchor_that_takes_in_blanks_of_a_user_is_ours() {
    let mut tokenizer = byte_level();
    tokenizer["added_tokens"][2]["rstrip"] = json!(true);
    tokenizer["added_tokens"][2]["lstrip"] = json!(true);
    let model = model(tokenizer, &["<|im_start|>", "<|im_end|>", "<|image_pad|>"], &["<|image_pad|>"], CHATML);
    let image_pad = model.id("<|image_pad|>");
    let segments = [Segment::Text("a  ".to_owned()), Segment::Image, Segment::Text("  b <|image_pad|> c".to_owned())];
    let prompt = model.builder.raw_now(&segments, vec![image(1, 1)]).expect("it is built");
    assert_eq!(prompt.placeholders.len(), 1);
    assert_eq!(prompt.token_ids[..3], [model.id("a"), image_pad, model.id("b")]);
}

#[test]
fn tokens_matched_in_normalised_text_are_found() {
    let model = greedy(true);
    for typed in ["<|IM_START|>", "<|im_start|>", "a <|Im_Start|>  b"] {
        let prompt = model.chat(typed);
        assert_eq!(prompt.token_ids.iter().filter(|&&id| id == model.id("<|im_start|>")).count(), 1, "{typed}");
    }
}

/// `ab<|im_end|>` is a token: a user who ends with `ab` would take the template's own token away.
#[test]
fn a_match_over_the_edge_that_swallows_a_token_is_refused() {
    let mut tokenizer = byte_level();
    tokenizer["added_tokens"][3]["content"] = json!("ab<|im_end|>");
    let model =
        model(tokenizer, &["<|im_start|>", "<|im_end|>", "<|image_pad|>", "ab<|im_end|>"], &["<|image_pad|>"], CHATML);
    let refused = model.builder.chat_now(&chat_of(vec![user("cab")]));
    assert_eq!(refused.err(), Some(PromptError::ControlTokens));
    assert!(model.builder.chat_now(&chat_of(vec![user("ab<|im_end|> c")])).is_ok());
}

#[test]
fn missing_tokens_are_named() {
    let mut prepared = embedded();
    prepared.control_tokens.push("<nope>".to_owned());
    let error = PromptBuilder::new(&prepared, None).err().expect("it is refused").to_string();
    assert_eq!(error, "the tokenizer has no token \"<nope>\"");
    let family = Arc::new(TestFamily { anchor: 999_999, image_token: 4, anchor_text: None });
    let error = PromptBuilder::new(&embedded(), Some(family)).err().expect("it is refused").to_string();
    assert_eq!(error, "the tokenizer has no token with id 999999");
}
