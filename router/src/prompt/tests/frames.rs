//! Prompts that the processor frames itself, as PaliGemma's does.

use super::*;
use crate::families::Frame;

/// The test family, with a frame.
struct Framed(TestFamily);

impl VlmFamily for Framed {
    fn layout(&self, image: ImageSize) -> Result<ImageLayout, ImageRejected> {
        self.0.layout(image)
    }

    fn image_token(&self) -> TokenId {
        self.0.image_token
    }

    fn anchor(&self) -> TokenId {
        self.0.anchor
    }

    fn frame(&self) -> Option<Frame> {
        Some(Frame { ending: "\n" })
    }
}

fn framed(change: impl Fn(&mut PreparedModel)) -> Result<PromptBuilder, InvalidModel> {
    let mut model = embedded();
    (model.raw_prompt, model.chat_template) = (RawPrompt::Text, None);
    change(&mut model);
    PromptBuilder::new(
        &model,
        Some(Arc::new(Framed(TestFamily { anchor: IMAGE, image_token: IMAGE, anchor_text: None }))),
    )
}

fn inputs(markdown: &str) -> Vec<Segment> {
    PromptBuilder::segments(markdown).0
}

/// The ids of `inputs` with images of two tokens are those of this text.
#[track_caller]
fn check(markdown: &str, text: &str) {
    let builder = framed(|_| ()).expect("it is built");
    let segments = inputs(markdown);
    let images = segments.iter().filter(|segment| **segment == Segment::Image).map(|_| image(1, 1)).collect();
    let prompt = builder.raw_now(&segments, images).expect("it is built");
    let encoder = tokenizers::Tokenizer::from_bytes(embedded().tokenizer.to_string()).expect("it loads");
    let expected = encoder.encode_fast(text, false).expect("it encodes");
    assert_eq!((prompt.text.as_str(), prompt.token_ids.as_slice()), (text, expected.get_ids()));
}

#[test]
fn a_text_begins_behind_the_last_image_and_ends_with_a_line_break() {
    check("![](u)caption en", "<image><|im_start|>caption en\n");
    check("Look: ![](u) and\n![](v) say", "Look: <image> and\n<image><|im_start|> say\n");
    check("what?![](u)", "what?<image><|im_start|>\n");
}

#[test]
fn the_line_break_is_one_with_the_users() {
    check("![](u)\ncaption\n", "<image><|im_start|>\ncaption\n\n");
}

#[test]
fn a_text_alone_is_refused() {
    let builder = framed(|_| ()).expect("it is built");
    assert_eq!(builder.raw_now(&inputs("hello"), Vec::new()).err(), Some(PromptError::ImageNeeded));
    let builder = framed(|model| model.chat_template = embedded().chat_template).expect("it is built");
    assert_eq!(builder.chat_now(&chat_of(vec![user("hello")])).err(), Some(PromptError::ImageNeeded));
}

#[test]
fn a_chat_is_framed_too_and_needs_a_template() {
    let chat = chat_of(vec![parts(&[Part::Image, text("x")])]);
    let missing = PromptError::Template("this model has no chat template".to_owned());
    for chat in [&chat, &chat_of(vec![user("x")])] {
        assert_eq!(framed(|_| ()).expect("it is built").chat_now(chat).err(), Some(missing.clone()));
    }
    let template = "{% for m in messages %}{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}\
                    {% endfor %}{% endfor %}";
    let builder = framed(|model| model.chat_template = Some(template.to_owned())).expect("it is built");
    assert_eq!(builder.chat_now(&chat).expect("it is built").text, "<image><|im_start|>x\n");
}

#[test]
fn a_tokenizer_without_the_token_is_refused() {
    let error = framed(|model| drop(model.special_tokens.remove("bos_token"))).err().expect("refused").to_string();
    assert_eq!(error, "the tokenizer has no token \"bos_token\"");
}
