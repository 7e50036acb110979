//! Tools that join a conversation on its way, as Claude Code sends them.

use dialog::{GenerateRequest, Part, Prompt, Role, ToolChoice};
use serde_json::{Value, json};

use super::parse::{accepted, param, turns};

fn tool(name: &str, is_deferred: bool) -> Value {
    let mut tool = json!({"name": name, "input_schema": {"type": "object"}});
    if is_deferred {
        tool["defer_loading"] = true.into();
    }
    tool
}

fn deferred(request: &GenerateRequest) -> Vec<&str> {
    let waiting = request.tools.iter().filter(|tool| tool.is_deferred);
    waiting.map(|tool| tool.name.as_str()).collect()
}

fn contents(request: GenerateRequest) -> Vec<(Role, Vec<Part>)> {
    turns(request).into_iter().map(|turn| (turn.role, turn.content)).collect()
}

fn text(words: &str) -> Part {
    Part::Text(words.to_owned())
}

#[test]
fn a_tool_that_was_searched_is_told_where_it_was_found() {
    let reference = |name: &str| json!({"type": "tool_reference", "tool_name": name});
    let request = accepted(&json!({
        "tools": [tool("Late", true), tool("Search", false), tool("Never", true)],
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t1", "name": "Search", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1",
                 "content": [reference("Late"), reference("Search"), reference("x")]}]},
        ],
    }));
    assert_eq!(deferred(&request), ["Late", "Never"]);
    let plain = |name: &str| text(&reference(name).to_string());
    let expected = vec![Part::Tool("Late".to_owned()), plain("Search"), plain("x")];
    assert_eq!(contents(request)[2], (Role::Tool, expected));
}

#[test]
fn tools_that_nobody_can_search_are_told_at_once() {
    let none = accepted(&json!({"tools": [tool("a", true), tool("b", true)]}));
    assert!(deferred(&none).is_empty());
    let server = json!({"type": "tool_search_tool_regex_20251119", "name": "search"});
    let request = accepted(&json!({"tools": [server, tool("a", true), tool("b", false)]}));
    assert!(deferred(&request).is_empty());
    let tools = [tool("a", true), tool("b", true), tool("c", false)];
    let named = json!({"tools": tools, "tool_choice": {"type": "tool", "name": "a"}});
    let request = accepted(&named);
    assert_eq!(deferred(&request), ["b"]);
    assert_eq!(request.tool_choice, ToolChoice::Named("a".to_owned()));
    assert_eq!(
        param(&json!({"tools": [{"name": "a", "defer_loading": 1}]})),
        "tools[0].defer_loading"
    );
}

fn change(kind: &str, tool: Value) -> Value {
    let mut change = json!({"type": kind});
    change["tool"] = tool;
    change
}

#[test]
fn changes_of_tools_are_told_where_they_were_said() {
    let known = json!({"type": "tool_reference", "name": "known"});
    let defined = json!({"type": "tool_definition", "definition": tool("new", false)});
    let removed = change("tool_removal", known.clone());
    let request = accepted(&json!({
        "tools": [tool("first", false), tool("known", true)],
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "system", "content": [
                {"type": "text", "text": "From now on:"}, change("tool_addition", known)]},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": [change("tool_addition", defined), removed]},
            {"role": "user", "content": "c"},
        ],
    }));
    assert_eq!(deferred(&request), ["known", "new"]);
    let tool = |name: &str| Part::Tool(name.to_owned());
    let told = contents(request);
    assert_eq!(told[0], (Role::System, vec![text("From now on:")]));
    assert_eq!(told[1], (Role::User, vec![text("a"), tool("known")]));
    let removal = text(&format!("\n{removed}\n"));
    assert_eq!(told[3], (Role::User, vec![tool("new"), removal, text("c")]));
}

#[test]
fn broken_changes_name_their_place() {
    let said = |block: Value| {
        json!({"messages": [
            {"role": "user", "content": "a"}, {"role": "system", "content": [block]}]})
    };
    let place = |tool: Value| param(&said(change("tool_addition", tool)));
    let at = "messages[1].content[0].tool";
    assert_eq!(place(Value::Null), at);
    assert_eq!(place(json!({"type": "tool_reference"})), format!("{at}.name"));
    assert_eq!(place(json!({"type": "tool_definition"})), format!("{at}.definition"));
    let nameless = json!({"type": "tool_definition", "definition": {}});
    assert_eq!(place(nameless), format!("{at}.definition.name"));
    assert_eq!(param(&json!({"system": [change("tool_addition", json!({}))]})), "system[0].type");
    // Of a kind that nobody here knows: tolerated, and told as it is.
    let request = accepted(&said(change("tool_addition", json!({"type": "mcp_toolset"}))));
    let Prompt::Chat(turns) = request.prompt else { panic!("a chat") };
    assert!(turns[0].joined_text().contains("mcp_toolset"));
}
