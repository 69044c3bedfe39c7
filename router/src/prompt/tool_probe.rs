//! What a chat template makes of tools, found out once by rendering small chats: whether it offers them, how it writes
//! a call, and whether it shows what came back.

use serde_json::{Value, json};

use super::context::ContentShape;
use super::conversation::{Content, Message, Part, Role};
use super::probe::{self, PROBE};
use super::template::ChatTemplate;

/// The function of the call in [`ToolTemplate::call`]. No template writes it by itself.
pub const PROBE_FUNCTION: &str = "quixotry";
const PROBE_ARGUMENT: &str = "zephyr";

/// An id like those of the `OpenAI` API, and one as Mistral's templates want them.
const LONG_ID: &str = "call_0123456789abcdef0123456789abcdef";
const SHORT_ID: &str = "abcdef012";

/// What a model's chat template makes of tools.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "answers to questions that have nothing to do with each other")]
pub struct ToolTemplate {
    /// It writes the tools that are offered.
    pub tools: bool,
    /// A chat in which the assistant called [`PROBE_FUNCTION`] with one argument, if the template shows the call.
    pub call: Option<String>,
    /// It shows what a tool answered.
    pub answers: bool,
    /// It has a place for the system's text.
    pub system: bool,
    /// It refuses ids of calls that are not nine letters and digits.
    pub nine_letter_ids: bool,
}

impl ToolTemplate {
    /// Whether the template does all that tools need.
    pub fn is_native(&self) -> bool {
        self.tools && self.call.is_some() && self.answers
    }
}

/// Finds out what the template does with tools.
pub(super) fn tool_template(template: &ChatTemplate, shape: &ContentShape) -> ToolTemplate {
    let render = |messages: Vec<Message>, tools| probe::render_chat(template, shape, messages, tools);
    let shows = |text: Option<String>, word: &str| text.filter(|text| text.contains(word));
    let long = shows(render(called(LONG_ID), None), PROBE_FUNCTION);
    let nine_letter_ids = long.is_none();
    let id = if nine_letter_ids { SHORT_ID } else { LONG_ID };
    let call = long.or_else(|| shows(render(called(SHORT_ID), None), PROBE_FUNCTION));
    let question = vec![message(Role::User, Content::Text("x".to_owned()))];
    let system = vec![message(Role::System, Content::Text(PROBE.to_owned()))].into_iter().chain(question.clone());
    ToolTemplate {
        tools: shows(render(question, Some(tools())), PROBE_FUNCTION).is_some(),
        nine_letter_ids: nine_letter_ids && call.is_some(),
        call,
        answers: shows(render(answered(id, Content::Text(PROBE.to_owned())), None), PROBE).is_some(),
        system: shows(render(system.collect(), None), PROBE).is_some(),
    }
}

/// Whether the template takes the answer of a tool as a list of parts.
pub(super) fn takes_answer_parts(template: &ChatTemplate, shape: &ContentShape) -> bool {
    let parts = || {
        let text = Part::Text(PROBE.to_owned());
        Content::Parts(shape.anchor.is_some().then_some(Part::Image).into_iter().chain([text]).collect())
    };
    let shape = &ContentShape { answer_parts: true, ..shape.clone() };
    let shown = |id| {
        let text = probe::render_chat(template, shape, answered(id, parts()), None)?;
        Some(probe::shows_text(&text) && probe::shows_one_image(&text, shape.anchor.as_deref()))
    };
    shown(LONG_ID).or_else(|| shown(SHORT_ID)) == Some(true)
}

fn called(id: &str) -> Vec<Message> {
    let function = json!({"name": PROBE_FUNCTION, "arguments": {PROBE_ARGUMENT: "x"}});
    let calls = json!([{"id": id, "type": "function", "function": function}]);
    let call = Message { tool_calls: Some(calls), ..message(Role::Assistant, Content::None) };
    vec![message(Role::User, Content::Text("x".to_owned())), call]
}

fn answered(id: &str, content: Content) -> Vec<Message> {
    let answer = Message { tool_call_id: Some(id.to_owned()), ..message(Role::Tool, content) };
    let answer = Message { name: Some(PROBE_FUNCTION.to_owned()), ..answer };
    called(id).into_iter().chain([answer]).collect()
}

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {PROBE_ARGUMENT: {"type": "string", "description": "x"}}});
    let function = json!({"name": PROBE_FUNCTION, "description": "x", "parameters": parameters});
    json!([{"type": "function", "function": function}])
}

fn message(role: Role, content: Content) -> Message {
    Message { role, name: None, content, tool_calls: None, tool_call_id: None }
}
