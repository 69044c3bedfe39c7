//! What a request may say about tools.

use serde_json::{Value, json};

use super::super::offer::{Choice, Offer, ToolFields};
use crate::api::RequestLimits;
use crate::api::error::{ApiError, ErrorKind};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

fn offer(tools: Value, choice: Value) -> Result<Option<Offer>, ApiError> {
    let tools = serde_json::from_value(tools).unwrap();
    let fields = ToolFields { tools, tool_choice: Some(choice), ..ToolFields::default() };
    fields.offer(&RequestLimits::default())
}

fn names(offer: &Offer) -> Vec<&str> {
    offer.functions.iter().map(|function| function.name.as_str()).collect()
}

#[test]
fn choices() {
    let two = json!([tool("f"), tool("g")]);
    for (choice, expected) in [
        (json!(null), Some((Choice::Auto, false, vec!["f", "g"]))),
        (json!("auto"), Some((Choice::Auto, false, vec!["f", "g"]))),
        (json!("none"), None),
        (json!("required"), Some((Choice::Required, false, vec!["f", "g"]))),
        (json!("g"), Some((Choice::Required, true, vec!["g"]))),
        (json!({"type": "function", "function": {"name": "f"}}), Some((Choice::Required, true, vec!["f"]))),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("g")]}}),
            Some((Choice::Required, false, vec!["g"])),
        ),
    ] {
        let offer = offer(two.clone(), choice.clone()).unwrap();
        let found = offer.as_ref().map(|offer| (offer.choice, offer.one_call, names(offer)));
        assert_eq!(found, expected, "{choice}");
    }
    assert_eq!(offer(json!([]), json!("auto")), Ok(None));
    assert_eq!(offer(json!(null), json!("none")), Ok(None));
}

#[test]
fn a_named_choice_shows_all_tools() {
    let offer = offer(json!([tool("f"), tool("g")]), json!("g")).unwrap().unwrap();
    assert_eq!(offer.tools.len(), 2);
}

#[test]
fn templates_get_tools_as_they_were_sent() {
    let parameters =
        json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"type": "integer"}}});
    let function = json!({"name": "f", "description": "d", "strict": true, "parameters": parameters});
    let sent = json!([{"type": "function", "function": function}]);
    let offered = offer(sent, json!("auto")).unwrap().unwrap();
    let expected = json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": parameters}});
    assert_eq!(offered.tools[0].to_string(), expected.to_string());
    assert_eq!(offered.functions[0].parameters, parameters);
    let none = json!({"type": "object", "properties": {}});
    for function in [
        json!({"name": "f", "arguments": none}),
        json!({"name": "f", "description": null, "parameters": null, "strict": null}),
        json!({"name": "f"}),
    ] {
        let offered = offer(json!([{"function": function}]), json!(null)).unwrap().unwrap();
        assert_eq!(offered.tools[0]["function"], json!({"name": "f", "parameters": none}));
    }
}

#[test]
fn refusals_name_the_field() {
    for (tools, choice, field) in [
        (json!([1]), json!(null), "tools[0]"),
        (json!([{"type": "web_search"}]), json!(null), "tools[0].type"),
        (json!([{"type": "function"}]), json!(null), "tools[0].function"),
        (json!([{"function": {}}]), json!(null), "tools[0].function.name"),
        (json!([tool("")]), json!(null), "tools[0].function.name"),
        (json!([tool("a b")]), json!(null), "tools[0].function.name"),
        (json!([tool(&"a".repeat(129))]), json!(null), "tools[0].function.name"),
        (json!([tool("f"), tool("f")]), json!(null), "tools[1].function.name"),
        (json!([{"function": {"name": "f", "parameters": []}}]), json!(null), "tools[0].function.parameters"),
        (json!(null), json!("required"), "tool_choice"),
        (json!([tool("f")]), json!(3), "tool_choice"),
        (json!([tool("f")]), json!({"type": "function"}), "tool_choice.function.name"),
        (json!([tool("f")]), json!({"type": "allowed_tools"}), "tool_choice.allowed_tools.tools"),
    ] {
        let error = offer(tools, choice.clone()).expect_err(field);
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn an_unknown_function_is_a_tool_error() {
    for choice in [json!("h"), json!({"type": "function", "function": {"name": "h"}})] {
        assert_eq!(offer(json!([tool("f")]), choice).expect_err("it is unknown").kind(), ErrorKind::Tool);
    }
}
