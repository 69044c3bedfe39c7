//! What a chat template makes of message contents, found out once by rendering small chats.
//!
//! Templates differ in what they take (strings, lists of parts, both) and in what they write for an image (one token,
//! or one between two others). Nothing says so except what they render.

use serde_json::Value;

use super::context::{ContentShape, ContextBuilder};
use super::conversation::{Content, Conversation, Message, Part, Role};
use super::marks::Marking;
use super::template::ChatTemplate;
use super::tool_probe::takes_answer_parts;

/// Words no template writes by itself.
pub(super) const PROBE: &str = "Quixotry";
const SECOND_PROBE: &str = "Zephyrean";

/// Finds out what the template takes. `anchor` is the text of the token that stands for an image.
pub(super) fn content_shape(template: &ChatTemplate, anchor: Option<&str>) -> ContentShape {
    let shape = |parts, strings| ContentShape {
        parts,
        strings,
        answer_parts: parts,
        developer: template.source().contains("developer"),
        anchor: anchor.map(str::to_owned),
    };
    let strings = render(template, &shape(false, true), Content::Text(PROBE.to_owned()));
    let strings = strings.is_some_and(|text| shows_text(&text));
    let parts = render(template, &shape(true, true), Content::Parts(parts(anchor.is_some(), PROBE)));
    let parts = parts.is_some_and(|text| shows_text(&text) && shows_one_image(&text, anchor));
    // A template that took neither refuses a chat of one question; a list is what newer ones want.
    let shape = shape(parts || !strings, strings);
    ContentShape { answer_parts: takes_answer_parts(template, &shape), ..shape }
}

/// What the template writes for an image: its anchor and the tokens it puts right around it, blanks left out.
pub(super) fn image_text(template: &ChatTemplate, shape: &ContentShape) -> Option<String> {
    let anchor = shape.anchor.as_deref()?;
    let with = render(template, shape, Content::Parts(parts(true, SECOND_PROBE)))?;
    let without = render(template, shape, Content::Parts(parts(false, SECOND_PROBE)))?;
    let head = common_prefix(&with, &without);
    let tail = common_prefix_reversed(&with[head..], &without[head..]);
    let inserted = with[head..with.len() - tail].trim();
    Some(if inserted.matches(anchor).count() == 1 { inserted } else { anchor }.to_owned())
}

fn parts(image: bool, text: &str) -> Vec<Part> {
    image.then_some(Part::Image).into_iter().chain([Part::Text(text.to_owned())]).collect()
}

fn render(template: &ChatTemplate, shape: &ContentShape, content: Content) -> Option<String> {
    let message = Message { role: Role::User, name: None, content, tool_calls: None, tool_call_id: None };
    render_chat(template, shape, vec![message], None)
}

/// What the template writes for these messages; `None` if it refuses them.
pub(super) fn render_chat(
    template: &ChatTemplate,
    shape: &ContentShape,
    messages: Vec<Message>,
    tools: Option<Value>,
) -> Option<String> {
    let conversation = Conversation { messages, tools, continue_final: false };
    let variables =
        ContextBuilder { shape, marking: Marking::Off, encoder: None, cut: None }.build(&conversation).ok()?;
    template.render(variables).ok()
}

/// The text is there, and not as part of a printed list.
pub(super) fn shows_text(rendered: &str) -> bool {
    let printed = [format!("'{PROBE}'"), format!("\"{PROBE}\"")];
    rendered.contains(PROBE) && !printed.iter().any(|list| rendered.contains(list.as_str()))
}

pub(super) fn shows_one_image(rendered: &str, anchor: Option<&str>) -> bool {
    anchor.is_none_or(|anchor| rendered.matches(anchor).count() == 1)
}

fn common_prefix(left: &str, right: &str) -> usize {
    let same = left.char_indices().zip(right.chars()).take_while(|((_, left), right)| left == right);
    same.last().map_or(0, |((at, letter), _)| at + letter.len_utf8())
}

fn common_prefix_reversed(left: &str, right: &str) -> usize {
    let same = left.chars().rev().zip(right.chars().rev()).take_while(|(left, right)| left == right);
    same.map(|(letter, _)| letter.len_utf8()).sum()
}
