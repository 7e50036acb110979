//! What a response repeats of its request.

use dialog::{GenerateRequest, Json, ToolChoice, ToolSpec};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::WireError;
use crate::fields::{self, Object};

/// The fields of a request that every response carries, as clients' types demand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Echo {
    instructions: Option<String>,
    max_output_tokens: Option<u32>,
    metadata: Value,
    parallel_tool_calls: bool,
    reasoning: EchoedReasoning,
    temperature: Option<f32>,
    text: EchoedText,
    tool_choice: Value,
    tools: Vec<EchoedTool>,
    top_p: Option<f32>,
    truncation: &'static str,
    user: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
struct EchoedReasoning {
    effort: Option<String>,
    summary: Option<()>,
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct EchoedText {
    format: Value,
}

impl Default for EchoedText {
    fn default() -> Self {
        Self { format: json!({"type": "text"}) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
struct EchoedTool {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: bool,
}

impl Echo {
    /// Of a body that has become `request`.
    pub(super) fn new(body: &Object<'_>, request: &GenerateRequest) -> Result<Self, WireError> {
        let effort = match body.object("reasoning")? {
            Some(reasoning) => reasoning.text("effort")?,
            None => None,
        };
        Ok(Self {
            instructions: body.text("instructions")?,
            max_output_tokens: request.max_tokens,
            metadata: metadata(body)?,
            parallel_tool_calls: request.parallel_tool_calls,
            reasoning: EchoedReasoning { effort, summary: None },
            temperature: request.sampling.temperature,
            text: text(body)?,
            tool_choice: match &request.tool_choice {
                ToolChoice::None => json!("none"),
                ToolChoice::Auto => json!("auto"),
                ToolChoice::Required => json!("required"),
                ToolChoice::Named(name) => json!({"type": "function", "name": name}),
            },
            tools: request.tools.iter().map(tool).collect(),
            top_p: request.sampling.top_p,
            truncation: "disabled",
            user: body.text("user")?,
        })
    }
}

fn tool(spec: &ToolSpec) -> EchoedTool {
    let parse = |json: &Json| serde_json::from_str(&json.0).unwrap_or_default();
    EchoedTool {
        kind: "function",
        name: spec.name.clone(),
        description: spec.description.clone(),
        parameters: spec.parameters.as_ref().map(parse),
        strict: spec.strict,
    }
}

/// The format as the caller wrote it; it has been read before.
fn text(body: &Object<'_>) -> Result<EchoedText, WireError> {
    let Some(text) = body.object("text")? else { return Ok(EchoedText::default()) };
    let format = text.raw("format").and_then(|raw| serde_json::from_str(raw.get()).ok());
    Ok(format.map_or_else(EchoedText::default, |format| EchoedText { format }))
}

/// Strings by name, as the dialect has it.
fn metadata(body: &Object<'_>) -> Result<Value, WireError> {
    let Some(entries) = body.object("metadata")? else {
        return Ok(Value::Object(serde_json::Map::new()));
    };
    let read = |(name, raw): (&str, &RawValue)| {
        let text = fields::text(raw, || entries.at(name))?;
        Ok((name.to_owned(), Value::String(text)))
    };
    Ok(Value::Object(entries.entries().map(read).collect::<Result<_, WireError>>()?))
}
