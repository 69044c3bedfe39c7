//! Against what transformers wrote down in `tests/goldens/text_*.json`.

use serde_json::Value;

use super::*;
use crate::prompt::spanned::Spanned;

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().expect("a list of ids").iter().map(|id| id.as_u64().expect("an id") as TokenId).collect()
}

fn conversation(chat: &Value) -> Conversation {
    Conversation {
        messages: chat["messages"].as_array().expect("messages").iter().map(golden_message).collect(),
        tools: Some(chat["tools"].clone()).filter(|tools| !tools.is_null()),
        continue_final: chat["continue_final"] == true,
    }
}

fn golden_message(value: &Value) -> Message {
    let role = match value["role"].as_str() {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        other => panic!("no such role: {other:?}"),
    };
    let content = match &value["content"] {
        Value::String(text) => Content::Text(text.clone()),
        Value::Array(parts) => Content::Parts(parts.iter().map(golden_part).collect()),
        _ => Content::None,
    };
    let tool_call_id = value["tool_call_id"].as_str().map(str::to_owned);
    Message { tool_calls: value.get("tool_calls").cloned(), tool_call_id, ..message(role, content) }
}

fn golden_part(value: &Value) -> Part {
    value["text"].as_str().map_or(Part::Image, text)
}

#[test]
fn texts_have_the_ids_of_transformers() {
    let goldens = golden("text_encode.json");
    let goldens = goldens.as_array().expect("a list");
    assert!(goldens.len() > 2000);
    let builder = builder();
    for case in goldens {
        let text = case[0].as_str().expect("a text");
        // All of it trusted: the tokenizer itself, special tokens included.
        let spanned = Spanned { text: text.to_owned(), user: Vec::new() };
        let encoded = builder.inner.encoder.encode(&spanned, builder.inner.encoder.control(), false);
        assert_eq!(encoded.expect("it encodes").ids, ids(&case[1]), "{text:?}");
    }
}

#[test]
fn chats_have_the_text_and_ids_of_transformers() {
    let goldens = golden("text_chat.json");
    let cases = goldens["cases"].as_array().expect("cases");
    assert!(cases.len() > 200);
    let templates = goldens["templates"].as_object().expect("templates");
    let builders: std::collections::HashMap<&str, PromptBuilder> =
        templates.iter().map(|(name, source)| (name.as_str(), with_template(source.as_str().expect("text")))).collect();
    for case in cases {
        let name = case["template"].as_str().expect("a name");
        let conversation = conversation(&case["chat"]);
        let prompt = builders[name].chat_now(&conversation).unwrap_or_else(|error| panic!("{name} {case}: {error}"));
        assert_eq!(prompt.text, case["text"].as_str().expect("a text"), "{name} {}", case["chat"]);
        assert!(
            prompt.token_ids == ids(&case["ids"]),
            "{name} {}\n{:?}\n{}",
            case["chat"],
            prompt.token_ids,
            case["ids"]
        );
    }
}

#[test]
fn the_goldens_have_hostile_chats() {
    let goldens = golden("text_chat.json");
    let cases = goldens["cases"].as_array().expect("cases");
    let hostile = |case: &&Value| {
        let typed = case["chat"].to_string();
        typed.contains("<|im_end|>") || typed.contains("<image>")
    };
    assert!(cases.iter().filter(hostile).count() > 40);
}
