//! Whether an answer is right.

use serde_json::Value;

use super::question::Expect;

/// Holds the assistant's message of an answer against what was expected; an error says why it is
/// wrong.
pub(crate) fn check(expect: &Expect, message: &Value) -> Result<(), String> {
    match expect {
        Expect::Text(accepted) => text(accepted, message),
        Expect::Json(wanted) => json(wanted, message),
        Expect::ToolCall { name, arguments } => tool_call(name, arguments, message),
    }
}

fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default().trim()
}

fn text(accepted: &[String], message: &Value) -> Result<(), String> {
    let said = content(message);
    let right = accepted.iter().any(|text| text.trim() == said);
    right.then_some(()).ok_or_else(|| format!("said {said:?}, expected one of {accepted:?}"))
}

fn json(wanted: &Value, message: &Value) -> Result<(), String> {
    let said = content(message);
    let value: Value =
        serde_json::from_str(said).map_err(|error| format!("said {said:?}: {error}"))?;
    same(wanted, &value).then_some(()).ok_or_else(|| format!("said {said}, expected {wanted}"))
}

fn tool_call(name: &str, wanted: &Value, message: &Value) -> Result<(), String> {
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let [call] = calls else {
        let said = content(message);
        return Err(format!("{} tool calls and {said:?}, expected one of {name}", calls.len()));
    };
    let called = call["function"]["name"].as_str().unwrap_or_default();
    let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
    let parsed: Value = serde_json::from_str(arguments)
        .map_err(|error| format!("called {called} with {arguments:?}: {error}"))?;
    let right = called == name && same(wanted, &parsed);
    right
        .then_some(())
        .ok_or_else(|| format!("called {called} with {parsed}, expected {name} with {wanted}"))
}

/// Equality of JSON values: the order of keys does not matter, and `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let equal = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(equal)
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn says(text: &str) -> Value {
        json!({"role": "assistant", "content": text})
    }

    fn calls(name: &str, arguments: &str) -> Value {
        json!({"content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}},
        ]})
    }

    #[test]
    fn a_text_is_right_when_it_is_one_of_the_accepted() {
        let expect = Expect::Text(vec!["Four.".to_owned(), "4".to_owned()]);
        assert!(check(&expect, &says(" 4\n")).is_ok());
        for wrong in ["4.", "four.", "", "It is 4"] {
            assert!(check(&expect, &says(wrong)).is_err(), "{wrong}");
        }
        assert!(check(&expect, &Value::Null).is_err());
    }

    #[test]
    fn json_is_compared_as_values() {
        let expect = Expect::Json(json!({"a": 1, "b": [true, null]}));
        assert!(check(&expect, &says("{ \"b\": [true, null], \"a\": 1.0 }")).is_ok());
        let wrong =
            ["{\"a\": 1}", "{\"a\":1,\"b\":[null,true]}", "{\"a\":\"1\",\"b\":[true,null]}"];
        for wrong in wrong {
            assert!(check(&expect, &says(wrong)).is_err(), "{wrong}");
        }
        let extra = "{\"a\":1,\"b\":[true,null],\"c\":0}";
        assert!(check(&expect, &says(extra)).is_err());
        let fenced = "```json\n{\"a\":1,\"b\":[true,null]}\n```";
        assert!(check(&expect, &says(fenced)).is_err());
    }

    #[test]
    fn a_tool_call_is_right_by_name_and_arguments() {
        let arguments = json!({"city": "Bern", "days": 2});
        let expect = Expect::ToolCall { name: "weather".to_owned(), arguments };
        assert!(check(&expect, &calls("weather", "{\"days\": 2, \"city\": \"Bern\"}")).is_ok());
        assert!(check(&expect, &calls("news", "{\"days\": 2, \"city\": \"Bern\"}")).is_err());
        assert!(check(&expect, &calls("weather", "{\"city\": \"Bern\"}")).is_err());
        assert!(check(&expect, &calls("weather", "{\"city\"")).is_err());
        assert!(check(&expect, &says("weather")).is_err());
        let mut twice = calls("weather", "{\"days\": 2, \"city\": \"Bern\"}");
        let call = twice["tool_calls"][0].clone();
        twice["tool_calls"].as_array_mut().expect("calls").push(call);
        assert!(check(&expect, &twice).is_err());
    }
}
