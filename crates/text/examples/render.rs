//! Renders chat requests with a chat template from elsewhere: what `tests/templates` compares.
//!
//! Reads one line of JSON for each template, `{"template": source, "bodies": [...]}`, and answers
//! each with a line: a list of `{"rendered": text}` or `{"refused": words}`.

use std::io::{BufRead, Write, stdin, stdout};

use dialog::{GenerateRequest, Prompt, Reasoning};
use serde_json::{Value, json};
use text::{RenderOptions, SpecialTokens, Template, TextError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let source = asked["template"].as_str().ok_or("a line without a template")?;
        let bodies = asked["bodies"].as_array().ok_or("a line without bodies")?;
        let told: Vec<Value> = match Template::new(source, special_tokens()) {
            Ok(template) => bodies.iter().map(|body| told(render(&template, body))).collect(),
            Err(error) => bodies.iter().map(|_| told(Err(error.clone()))).collect(),
        };
        writeln!(stdout().lock(), "{}", Value::Array(told))?;
    }
    Ok(())
}

/// Those that `tests/templates/run.py` names too.
fn special_tokens() -> SpecialTokens {
    let known = |spelling: &str| Some(spelling.to_owned());
    SpecialTokens { bos: known("<s>"), eos: known("</s>"), ..SpecialTokens::default() }
}

fn render(template: &Template, body: &Value) -> Result<String, TextError> {
    let mut body = body.clone();
    body["model"] = "m".into();
    let parsed = wire::Dialect::OpenaiChat.parse(body.to_string().as_bytes());
    let (request, _) = parsed.map_err(|error| TextError::RenderFailed(error.to_string()))?;
    let GenerateRequest { prompt: Prompt::Chat(messages), tools, reasoning, .. } = &request else {
        return Err(TextError::NoTemplate);
    };
    let options = RenderOptions {
        add_generation_prompt: true,
        enable_thinking: match reasoning {
            Reasoning::ModelDefault => None,
            Reasoning::Off => Some(false),
            Reasoning::On => Some(true),
        },
        arguments: request.template_arguments.as_ref(),
    };
    template.render(messages, tools, &options)
}

fn told(rendered: Result<String, TextError>) -> Value {
    match rendered {
        Ok(text) => json!({"rendered": text}),
        Err(error) => json!({"refused": error.to_string()}),
    }
}
