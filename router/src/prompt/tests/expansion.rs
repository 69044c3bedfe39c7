//! Images in their places: runs, separators, truncation, `inputs`, and what `/tokenize` shows.

use super::*;
use text_generation_scheduler::Placeholder;

const NEWLINE: TokenId = 203;

fn inputs(markdown: &str) -> Vec<Segment> {
    PromptBuilder::segments(markdown).0
}

/// A builder that takes `inputs` as they are.
fn raw_builder() -> PromptBuilder {
    let mut model = embedded();
    model.raw_prompt = RawPrompt::Text;
    PromptBuilder::new(&model, Some(family())).expect("the embedded model is valid")
}

fn placeholder(offset: u32, length: u32, image: u8, image_offset: u32) -> Placeholder {
    Placeholder { offset, length, image: ImageKey([image; 32]), image_offset }
}

#[test]
fn an_anchor_becomes_its_image() {
    let chat = chat_of(vec![parts(&[Part::Image, text("x")])]);
    let prompt = builder().inner.chat(&chat, vec![image(7, 5)], false).expect("it is built").prompt;
    let start = prompt.token_ids.iter().position(|&id| id == IMAGE).expect("an image") as u32;
    assert_eq!(prompt.placeholders, [placeholder(start, 5, 7, 0)]);
    assert_eq!(prompt.image_tokens(), 5);
    assert_eq!(prompt.image_specs(), [text_generation_scheduler::ImageSpec { key: ImageKey([7; 32]), num_tokens: 5 }]);
    assert_eq!(
        prompt.positions,
        Positions::Explicit { axes: vec![vec![start as i32]], next: prompt.token_ids.len() as i32 }
    );
}

#[test]
fn separators_cut_an_image_into_runs() {
    let (tokens, newline) = (Piece::Tokens, || Piece::Text("\n".into()));
    let tiles = vec![tokens(1), tokens(1), newline(), tokens(1), newline(), newline(), tokens(0), tokens(2)];
    let prompt = raw_builder().raw_now(&inputs("![](u)"), vec![image_of(1, tiles)]).expect("it is built");
    assert_eq!(prompt.placeholders, [placeholder(0, 2, 1, 0), placeholder(3, 1, 1, 2), placeholder(6, 2, 1, 3)]);
    assert_eq!(prompt.token_ids, [IMAGE, IMAGE, NEWLINE, IMAGE, NEWLINE, NEWLINE, IMAGE, IMAGE]);
    assert_eq!(prompt.image_specs()[0].num_tokens, 5);
}

#[test]
fn the_same_image_twice_is_one_image_with_two_places() {
    let twice = vec![image(1, 3), image(1, 3)];
    let prompt = raw_builder().raw_now(&inputs("![](u)![](u)"), twice).expect("it is built");
    assert_eq!(prompt.placeholders, [placeholder(0, 3, 1, 0), placeholder(3, 3, 1, 0)]);
    assert_eq!(prompt.image_specs().len(), 1);
}

/// Some processors replace plain text. What a user types of it stays what it is.
#[test]
fn an_anchor_need_not_be_a_token() {
    let mut model = embedded();
    let content =
        "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% else %}(picture){% endif %}{% endfor %}";
    model.chat_template = Some(format!("{{% for m in messages %}}{content}{{% endfor %}}"));
    let family = TestFamily { anchor: IMAGE, image_token: IMAGE, anchor_text: Some("(picture)") };
    let builder = PromptBuilder::new(&model, Some(Arc::new(family))).expect("it is valid");
    let chat = chat_of(vec![parts(&[text("(picture)"), Part::Image, text("x")])]);
    let prompt = builder.inner.chat(&chat, vec![image(7, 5)], false).expect("it is built").prompt;
    assert_eq!(prompt.placeholders, [placeholder(prompt.token_ids.len() as u32 - 6, 5, 7, 0)]);
    assert_eq!(prompt.text, "(picture)<image>x");
}

#[test]
fn images_and_places_must_be_as_many() {
    let chat = chat_of(vec![parts(&[Part::Image, text("x")])]);
    let refused = builder().inner.chat(&chat, Vec::new(), false).map(|built| built.prompt);
    assert_eq!(refused.err(), Some(PromptError::ImageCount { places: 1, images: 0 }));
}

#[test]
fn a_text_model_takes_no_images() {
    let builder = PromptBuilder::new(&embedded(), None).expect("it is built");
    let refused = builder.raw_now(&inputs("![](u)"), vec![image(1, 1)]);
    assert_eq!(refused.err(), Some(PromptError::NoImages));
    assert!(builder.raw_now(&inputs("a"), Vec::new()).is_ok());
}

#[track_caller]
fn truncated(keep: u32) -> Result<Prompt, PromptError> {
    // a a a a [5 image tokens] b b b
    let segments = [Segment::Text("\n\n\n\n".to_owned()), Segment::Image, Segment::Text("\n\n\n".to_owned())];
    raw_builder().inner.raw(segments.to_vec(), vec![image(9, 5)], Some(keep))
}

#[test]
fn truncation_keeps_the_last_tokens() {
    let whole = truncated(100).expect("nothing is cut");
    let length = whole.token_ids.len() as u32;
    let after = length - whole.placeholders[0].end();
    let kept = truncated(after + 5 + 1).expect("the image stays");
    assert_eq!(kept.token_ids, whole.token_ids[whole.token_ids.len() - kept.token_ids.len()..]);
    assert_eq!(kept.placeholders, [placeholder(1, 5, 9, 0)]);
    assert_eq!((whole.both_ways[0].end, kept.both_ways.as_slice()), (whole.placeholders[0].end(), &[1..6][..]));
    let without = truncated(after).expect("the image goes");
    assert_eq!((without.placeholders.len(), without.images.len(), without.both_ways.len()), (0, 0, 0));
    assert_eq!(without.token_ids.len() as u32, after);
}

#[test]
fn truncation_through_an_image_names_the_numbers() {
    let whole = truncated(100).expect("nothing is cut");
    let run = &whole.placeholders[0];
    let after = whole.token_ids.len() - run.end() as usize;
    for cut in 1..5 {
        let error = truncated(after as u32 + cut).expect_err("it is cut through");
        let expected = PromptError::TruncatedImage {
            truncate: after + cut as usize,
            image: 1,
            start: run.offset as usize + 1,
            end: run.end() as usize,
            prompt: whole.token_ids.len(),
            keep: after + 5,
            drop: after,
        };
        assert_eq!(error, expected);
    }
    assert!(truncated(after as u32 + 5).is_ok());
}

#[test]
fn inputs_of_a_chat_model_are_a_user_turn() {
    let builder = builder();
    let chat = chat_of(vec![parts(&[Part::Image, text("What is this?")])]);
    let as_chat = builder.inner.chat(&chat, vec![image(1, 4)], false).expect("it is built").prompt;
    let raw = builder.raw_now(&inputs("![](u)What is this?"), vec![image(1, 4)]).expect("it is built");
    assert_eq!(raw.token_ids, as_chat.token_ids);
}

#[test]
fn hand_written_markup_is_kept() {
    let markup = "<|im_start|>user\n![](u)What?<|im_end|>\n<|im_start|>assistant\n";
    let raw = builder().raw_now(&inputs(markup), vec![image(1, 2)]).expect("it is built");
    assert_eq!(raw.token_ids[..2], [1, 1576]);
    assert_eq!(raw.text, markup.replace("![](u)", "<image>"));
    assert_eq!(raw.placeholders.len(), 1);
}

#[test]
fn an_image_in_inputs_has_what_the_template_writes_around_it() {
    let template = "{% for m in messages %}<|im_start|>{% if m.content is string %}{{ m.content }}{% else %}\
        {% for p in m.content %}{% if p.type == 'image' %}<|pad|><image><|endoftext|>\n{% else %}{{ p.text }}{% endif %}\
        {% endfor %}{% endif %}<|im_end|>{% endfor %}";
    let mut model = embedded();
    (model.chat_template, model.raw_prompt) = (Some(template.to_owned()), RawPrompt::Text);
    let builder = PromptBuilder::new(&model, Some(family())).expect("it is built");
    let raw = builder.raw_now(&inputs("![](u)"), vec![image(1, 2)]).expect("it is built");
    assert_eq!(raw.token_ids, [0, IMAGE, IMAGE, 3]);
}

#[test]
fn tokenize_shows_texts_and_images() {
    let builder = builder();
    let pieces = vec![Piece::Tokens(2), Piece::Text("\n".into()), Piece::Tokens(1)];
    let built = builder.inner.raw_text(&inputs("hi é![](u) there"), vec![image_of(1, pieces)], true);
    let tokenized = built.expect("it is built").tokenized();
    assert_eq!(tokenized.text, "hi é<image>\n<image> there");
    let images: Vec<&TokenSpan> = tokenized.tokens.iter().filter(|span| span.kind == SpanKind::Image).collect();
    let shown: Vec<&str> = images.iter().map(|span| span.text.as_str()).collect();
    assert_eq!(shown, ["<image>", "<image>", "\n", "<image>"]);
    assert!(images[..2].iter().all(|span| span.start == "hi é".len()));
    for span in &tokenized.tokens {
        assert_eq!(span.text, tokenized.text.get(span.start..span.stop).unwrap_or_default());
    }
    let texts: String =
        tokenized.tokens.iter().filter(|span| span.kind == SpanKind::Text).map(|span| span.text.as_str()).collect();
    assert!(texts.starts_with("hi") && texts.ends_with("there"), "{texts}");
}

#[test]
fn offsets_hold_where_a_token_was_cut_out() {
    let builder = raw_builder();
    let tokenized =
        builder.inner.raw_text(&inputs("say <image> now"), Vec::new(), true).expect("it is built").tokenized();
    let texts: String = tokenized.tokens.iter().map(|span| span.text.as_str()).collect();
    assert_eq!(texts, tokenized.text);
    assert!(tokenized.tokens.iter().all(|span| span.kind == SpanKind::Text));
}

#[tokio::test]
async fn long_texts_are_refused_before_anything_is_done() {
    let limits = PromptLimits { max_text_bytes: 10, ..PromptLimits::default() };
    let builder = PromptBuilder::with_limits(&embedded(), Some(family()), limits).expect("it is built");
    let refused = builder.raw(inputs("eleven char"), Vec::new(), None).await;
    assert_eq!(refused.err(), Some(PromptError::TextTooLong { bytes: 11, limit: 10 }));
    let refused = builder.chat(chat_of(vec![user("seven c"), user("four")]), Vec::new()).await;
    assert_eq!(refused.err(), Some(PromptError::TextTooLong { bytes: 11, limit: 10 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_texts_give_the_same_ids_on_the_pool() {
    let builder = builder();
    let long = "What is this? ".repeat(1000);
    let inline = builder.inner.raw(vec![Segment::Text(long.clone())], Vec::new(), None).expect("it is built");
    let many: Vec<_> = (0..8)
        .map(|_| {
            let (builder, long) = (builder.clone(), long.clone());
            tokio::spawn(async move { builder.raw(vec![Segment::Text(long)], Vec::new(), None).await })
        })
        .collect();
    for task in many {
        let prompt = task.await.expect("it ends").expect("it is built");
        assert_eq!(prompt.token_ids, inline.token_ids);
    }
}

/// What a processor writes beside its image tokens is one text with what a user wrote there.
#[test]
fn text_beside_an_image_is_tokenised_with_its_neighbours() {
    let builder = raw_builder();
    let pieces = |before: &'static str, after: &'static str| {
        vec![image_of(1, vec![Piece::Text(before.into()), Piece::Tokens(2), Piece::Text(after.into())])]
    };
    let apart = builder.raw_now(&inputs("What ![](u)is this?"), pieces("is", " what ")).expect("it is built");
    let (before, after) = ("What is", " what is this?");
    let ids = |text: &str| builder.raw_now(&inputs(text), Vec::new()).expect("it is built").token_ids;
    assert_eq!(apart.token_ids, [ids(before), vec![IMAGE; 2], ids(after)].concat());
    assert_eq!(apart.text, "What is<image> what is this?");
}

#[test]
fn control_tokens_that_a_processor_writes_count() {
    let written = vec![Piece::Text("<|im_start|>".into()), Piece::Tokens(1), Piece::Text("<|im_end|>".into())];
    let chat = chat_of(vec![parts(&[Part::Image, text("a <|im_end|> b")])]);
    let prompt = builder().inner.chat(&chat, vec![image_of(1, written)], false).expect("it is built").prompt;
    let at = prompt.placeholders[0].offset as usize;
    assert_eq!(prompt.token_ids[at - 1..at + 2], [1, IMAGE, 2]);
    // The user's token stays text: there is one start for the turn, one for the image, one for the answer.
    let count = |id: TokenId| prompt.token_ids.iter().filter(|&&other| other == id).count();
    assert_eq!((count(1), count(2)), (3, 2));
}

#[test]
fn truncation_takes_separators_along_with_their_image() {
    let tile = || vec![Piece::Text("\n".into()), Piece::Tokens(2), Piece::Text("\n".into())];
    let truncated = |keep| {
        let images = vec![image_of(1, tile()), image_of(2, tile())];
        raw_builder().inner.raw(inputs("![](u)![](v)"), images, Some(keep))
    };
    assert_eq!(truncated(8).expect("nothing is cut").token_ids.len(), 8);
    assert_eq!(truncated(4).expect("an image is cut").placeholders, [placeholder(1, 2, 2, 0)]);
    for through in [1, 2, 3, 5, 6, 7] {
        assert!(matches!(truncated(through), Err(PromptError::TruncatedImage { .. })), "{through}");
    }
}

/// An image between borders, as Idefics 2 writes it.
fn bordered() -> Vec<Piece> {
    vec![
        Piece::Border("#".into()),
        Piece::Tokens(2),
        Piece::Border("#".into()),
        Piece::Tokens(1),
        Piece::Border("#".into()),
    ]
}

#[track_caller]
fn written(markdown: &str, expected: &str) {
    let segments = inputs(markdown);
    let images =
        segments.iter().filter(|segment| **segment == Segment::Image).map(|_| image_of(1, bordered())).collect();
    let prompt = raw_builder().raw_now(&segments, images).expect("it is built");
    assert_eq!(prompt.text.replace("<image>", "i"), expected);
}

#[test]
fn images_that_touch_share_a_border() {
    written("![](u)![](u)", "#i#i#i#i#");
    written("![](u)\n![](u)", "#i#i#\n#i#i#");
}

#[test]
fn a_word_is_set_off_from_a_border() {
    written("a![](u)b", "a#i#i# b");
    written("![](u) b", "#i#i# b");
    written("![](u)\u{1c}b", "#i#i#\u{1c}b");
    written("![](u)<b>", "#i#i#<b>");
    written("#![](u)", "##i#i#");
}
