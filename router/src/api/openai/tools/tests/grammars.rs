//! The grammars of calls, as text: that llguidance takes them is seen where grammars are compiled.

use serde_json::json;

use super::super::grammar::{CallGrammar, Function};
use super::super::{hermes, llama, mistral, pythonic};
use crate::grammar::GrammarSource;

#[track_caller]
fn check(format: &super::Format, several: bool, written: Option<&str>, expected: &str) {
    let parameters = json!({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]});
    let functions = [
        Function { name: "f".to_owned(), parameters },
        Function { name: "g".to_owned(), parameters: json!({"type": "object", "properties": {}}) },
    ];
    let markers = [(mistral::OPEN, 5), (mistral::ARGUMENTS, 6)];
    let calls = CallGrammar { functions: &functions, several, markers: &markers, written };
    assert_eq!(calls.source(format.grammar), GrammarSource::Lark(expected.to_owned()));
}

const F: &str = concat!(
    r#"%json {"properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["b"],"type":"object","#,
    r#""additionalProperties":false}"#
);
const G: &str = r#"%json {"type":"object","properties":{},"additionalProperties":false}"#;

#[test]
fn tagged_objects() {
    let objects = format!(
        "object: object_0 | object_1\n\
         object_0: \"{{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": \" {F} \"}}\"\n\
         object_1: \"{{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": \" {G} \"}}\"\n"
    );
    let call = "call: \"<tool_call>\" \"\\n\" object \"\\n\" \"</tool_call>\"\n";
    check(&hermes::FORMAT, true, None, &format!("start: call (\"\\n\" call)*\n{call}{objects}"));
    check(&hermes::FORMAT, false, None, &format!("start: call\n{call}{objects}"));
    let parameters = objects.replace("arguments", "parameters");
    check(&llama::FORMAT, true, None, &format!("start: call (\"; \" call)*\ncall: object\n{parameters}"));
    let list = format!("start: <[5]> \" \" \"[\" object (\", \" object)* \"]\"\n{objects}");
    check(&mistral::FORMAT, true, Some("</s>[TOOL_CALLS] [{\"name\""), &list);
}

#[test]
fn names_with_arguments() {
    let calls = format!(
        "start: call+\ncall: call_0 | call_1\n\
         call_0: <[5]> \"f\"  <[6]> {F}\ncall_1: <[5]> \"g\"  <[6]> {G}\n"
    );
    check(&mistral::FORMAT, true, Some("[TOOL_CALLS]quixotry[ARGS]{}"), &calls);
}

#[test]
fn named_arguments() {
    let call = "call_0: \"f(\" \"b=\" %json {\"type\":\"string\"} tail_0_0? \")\"\n\
                tail_0_0: \", \" \"a=\" %json {\"type\":\"integer\"} \n\
                call_1: \"g(\"  \")\"\n";
    let start = "start: \"[\" call (\", \" call)* \"]\"\ncall: call_0 | call_1\n";
    check(&pythonic::FORMAT, true, None, &format!("{start}{call}"));
}
