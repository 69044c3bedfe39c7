//! Tools on `/v1/chat/completions`: what reaches the template, and what a model's text becomes.

use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{CALLS, IMAGE, Setup, picture};

const PATH: &str = "/v1/chat/completions";

/// Templates that know tools, in the shapes in which models have them.
const QWEN: &str = "{% if tools %}[tools]{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
    {% for message in messages %}[{{ message.role }}]\
    {% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
    {% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}{% endfor %}{% endif %}\
    {% for call in message.tool_calls %}<tool_call>\n{\"name\": \"{{ call.function.name }}\", \"arguments\": \
    {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}{% endfor %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";
const LLAMA: &str = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
    {% for message in messages %}[{{ message.role }}]{% if message.tool_calls %}\
    {\"name\": \"{{ message.tool_calls[0].function.name }}\", \"parameters\": \
    {{ message.tool_calls[0].function.arguments | tojson }}}\
    {% elif message.role == 'tool' %}{{ message.content | tojson }}{% else %}{{ message.content }}{% endif %}{% endfor %}";
const MISTRAL: &str = "{% for message in messages %}{% if tools and loop.last %}[AVAILABLE]{{ tools | tojson }}{% endif %}\
    [{{ message.role }}]{% if message.tool_calls %}[TOOL_CALLS][{% for call in message.tool_calls %}\
    {% if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}\
    {{ call.function | tojson }}{% endfor %}]{% else %}{{ message.content }}{% endif %}{% endfor %}";
const PYTHONIC: &str = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
    {% for message in messages %}[{{ message.role }}]{% if message.tool_calls %}[{% for call in message.tool_calls %}\
    {{ call.function.name }}({% for key in call.function.arguments %}{{ key }}=\
    {{ call.function.arguments[key] | tojson }}{% endfor %}){% endfor %}]{% else %}{{ message.content }}{% endif %}{% endfor %}";

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!([{"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": parameters}}])
}

fn ask(fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "q"}], "tools": tools()});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn setup(template: Option<&'static str>, script: Script) -> Setup {
    Setup { template, ..Setup::playing([script]) }
}

/// The prompt text that a body becomes, images as `#`.
async fn rendered(template: Option<&'static str>, body: Value) -> String {
    let setup = setup(template, Script::ended("x"));
    let (status, answer) = setup.post(PATH, body).await;
    assert_eq!(status, 200, "{answer} {template:?}");
    let ids = setup.fake.request(0).prompt.token_ids;
    let bytes = ids.iter().map(|&id| if id == IMAGE { b'#' } else { id as u8 }).collect();
    String::from_utf8(bytes).unwrap()
}

/// The message and the reason of an answer to the tools.
async fn answered(template: Option<&'static str>, script: Script, fields: Value) -> (Value, Value) {
    let (status, mut body) = setup(template, script).post(PATH, ask(fields)).await;
    assert_eq!(status, 200, "{body}");
    (body["choices"][0]["message"].take(), body["choices"][0]["finish_reason"].take())
}

#[tokio::test]
async fn tools_go_to_a_template_that_knows_them() {
    let expected =
        format!("[tools]{}", serde_json::to_string(&tools()[0]).unwrap().replace("\":", "\": ").replace(",\"", ", \""));
    assert!(rendered(Some(QWEN), ask(json!({}))).await.starts_with(&expected));
    assert!(!rendered(Some(QWEN), ask(json!({"tool_choice": "none"}))).await.contains("[tools]"));
}

#[tokio::test]
async fn other_templates_get_a_text() {
    let text = rendered(None, ask(json!({}))).await;
    assert!(text.starts_with("[system]You can call functions"), "{text}");
    assert!(
        text.contains("\"name\":\"get_weather\"")
            && text.contains("<tool_call>")
            && text.ends_with("[user]q[assistant]")
    );
    let system = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]);
    assert!(rendered(None, ask(json!({"messages": system}))).await.starts_with("[system]Be brief.\n\nYou can call"));
    assert_eq!(rendered(None, ask(json!({"tool_choice": "none"}))).await, "[user]q[assistant]");
    let without_system = "{% for message in messages %}{% if message.role != 'system' %}[{{ message.role }}]\
        {{ message.content }}{% endif %}{% endfor %}";
    let text = rendered(Some(without_system), ask(json!({}))).await;
    assert!(text.starts_with("[user]You can call") && text.ends_with("\n\nq"), "{text}");
    let prompt = json!({"tool_prompt": "Use tools."});
    assert!(rendered(Some(QWEN), ask(prompt)).await.contains("[user]q\n---\nUse tools.[assistant]"));
}

/// A conversation with a call and an answer of two parts.
fn history() -> Value {
    let call = json!({"id": "call_1", "type": "function",
                      "function": {"name": "get_weather", "arguments": "{\"city\": \"Bern\", \"days\": [1]}"}});
    let answer = json!([{"type": "text", "text": "sunny"}, {"type": "image_url", "image_url": {"url": picture()}}]);
    json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [call]},
           {"role": "tool", "tool_call_id": "call_1", "content": answer}])
}

#[tokio::test]
async fn histories_reach_every_template() {
    let body = json!({"messages": history()});
    let called =
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\", \"days\": [1]}}\n</tool_call>";
    let native = rendered(Some(QWEN), body.clone()).await;
    assert_eq!(native, format!("[user]q[assistant]{called}[tool]sunny####[assistant]"));
    let rewritten = rendered(None, body.clone()).await;
    let response = "<tool_response>\nsunny####\n</tool_response>";
    assert_eq!(rewritten, format!("[user]q[assistant]{called}[user]{response}[assistant]"));
    let llama = rendered(Some(LLAMA), body.clone()).await;
    assert!(llama.ends_with("\"parameters\": {\"city\": \"Bern\", \"days\": [1]}}[tool]\"sunny####\""), "{llama}");
    // The template refuses ids that are not its own.
    assert!(rendered(Some(MISTRAL), body).await.contains("[tool]sunny####"));
}

#[tokio::test]
async fn arguments_that_are_no_json_stay_a_text() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"city\": "}});
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]},
                          {"role": "tool", "content": "no"}]);
    let text = rendered(Some(QWEN), json!({"messages": messages})).await;
    assert!(text.contains(r#""arguments": "{\"city\": "}"#), "{text}");
}

#[tokio::test]
async fn each_format_becomes_calls() {
    let one = r#"{"name": "get_weather", "arguments": {"city": "Bern"}}"#;
    let parameters = one.replace("arguments", "parameters");
    let spaced = r#"{"city": "Bern"}"#;
    for (template, script, arguments) in [
        (None, Script::ended(&format!("<tool_call>\n{one}\n</tool_call>")), spaced),
        (Some(QWEN), Script::ended(&format!("<tool_call>\n{one}\n</tool_call>")), spaced),
        (Some(LLAMA), Script::ended(&parameters), spaced),
        (Some(MISTRAL), Script::ended(&format!("[{one}]")).after(CALLS), spaced),
        (Some(PYTHONIC), Script::ended("[get_weather(city='Bern')]"), r#"{"city":"Bern"}"#),
    ] {
        let (message, reason) = answered(template, script, json!({})).await;
        let call = &message["tool_calls"][0];
        assert_eq!(call["function"], json!({"name": "get_weather", "arguments": arguments}), "{template:?}");
        assert_eq!(
            (&call["type"], &message["content"], reason),
            (&json!("function"), &Value::Null, json!("tool_calls"))
        );
        let id = call["id"].as_str().unwrap();
        let nine = template == Some(MISTRAL);
        assert!(if nine { id.len() == 9 } else { id.starts_with("call_") && id.len() > 20 }, "{id}");
    }
}

#[tokio::test]
async fn answers_without_calls_are_as_before() {
    let text = "No <tool_call> here.";
    let (message, reason) = answered(Some(QWEN), Script::ended(text), json!({})).await;
    assert_eq!((message, reason), (json!({"role": "assistant", "content": text}), json!("stop")));
    let call = "<tool_call>{\"name\": \"get_weather\", \"arguments\": {}}</tool_call>";
    let (message, _) = answered(Some(QWEN), Script::ended(call), json!({"tool_choice": "none"})).await;
    assert_eq!(message["content"], call);
}

#[tokio::test]
async fn a_cut_call_says_length() {
    let script = Script::cut("<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Be");
    let (message, reason) = answered(Some(QWEN), script, json!({})).await;
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"city\": \"Be");
    assert_eq!(reason, "length");
}

#[tokio::test]
async fn without_parallel_calls_the_first_ends_the_answer() {
    let call = "<tool_call>{\"name\": \"get_weather\", \"arguments\": {}}</tool_call>";
    let setup = setup(Some(QWEN), Script::text(&format!("{call}\n{call}")).then_hangs());
    let (_, body) = setup.post(PATH, ask(json!({"parallel_tool_calls": false}))).await;
    assert_eq!(body["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn streamed_calls_come_in_pieces() {
    let call = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>";
    let setup = setup(Some(QWEN), Script::ended(&format!("Let me see.\n{call}\n{call}")));
    let mut events = setup.events(PATH, ask(json!({"stream": true}))).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let content: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(content, "Let me see.");
    let pieces: Vec<&Value> = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    for index in 0..2 {
        let own: Vec<&&Value> = pieces.iter().filter(|piece| piece["index"] == index).collect();
        assert!(own[0]["id"].is_string() && own[0]["type"] == "function");
        assert_eq!(own[0]["function"]["name"], "get_weather");
        assert!(own[1..].iter().all(|piece| piece.get("id").is_none() && piece["function"].get("name").is_none()));
        let arguments: String = own.iter().map(|piece| piece["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(arguments, r#"{"city": "Bern"}"#);
        assert!(own.len() > 5, "they are not held back");
    }
    let reasons: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).filter(|reason| !reason.is_null()).collect();
    assert_eq!(reasons, [&json!("tool_calls")]);
    assert_eq!(deltas[0]["role"], "assistant");
}

#[tokio::test]
async fn tools_and_a_format_are_a_tool_error() {
    let setup = Setup::playing([]);
    let rows = [
        json!({"response_format": {"type": "json_object"}}),
        json!({"tool_choice": "other"}),
        json!({"tool_choice": {"type": "function", "function": {"name": "other"}}}),
    ];
    for fields in rows {
        let (status, body) = setup.post(PATH, ask(fields)).await;
        assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("tool_error")), "{body}");
        assert!(body["error"].as_str().unwrap().starts_with("Tool error: "));
    }
}

#[tokio::test]
async fn calls_that_have_to_be_are_held_to_a_grammar() {
    for template in [None, Some(QWEN), Some(LLAMA), Some(MISTRAL), Some(PYTHONIC)] {
        for choice in [json!("required"), json!("get_weather")] {
            let setup = setup(template, Script::ended("x"));
            let (status, body) = setup.post(PATH, ask(json!({"tool_choice": choice}))).await;
            assert_eq!(status, 200, "{body} {template:?}");
            assert!(setup.fake.request(0).grammar.is_some(), "{template:?}");
        }
    }
}
