//! The shapes of `GET /v1/models` and `GET /v1/models/{id}`: one path, OpenAI's shape, and
//! Anthropic's where the request has an `anthropic-version` header.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One model; what is unknown is left out, never written as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// What a request names in `model`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// Who serves it.
    pub owned_by: String,
    /// Tokens of context, flat, as vLLM's clients read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
    /// The same limits, nested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Whether some node has it in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<bool>,
    /// Where it is and in which state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// Nodes that could hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feasible_on: Vec<String>,
    /// What it can do: `chat`, `tools`, `reasoning`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// Token limits of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// Prompt and answer together.
    pub context: u32,
    /// The answer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u32>,
}

/// A model on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Location {
    /// The node's name.
    pub node: String,
    /// The model's status there.
    pub status: String,
}

impl Model {
    /// A model of which the context may be known.
    pub fn new(id: impl Into<String>, created: u64, context: Option<u32>) -> Self {
        Self {
            id: id.into(),
            created,
            owned_by: "cortex".to_owned(),
            max_model_len: context,
            limit: context.map(|context| Limit { context, output: None }),
            ..Self::default()
        }
    }
}

/// The body of `GET /v1/models`.
pub fn list(models: &[Model]) -> Vec<u8> {
    let data = models.iter().map(Entry::from).collect();
    serde_json::to_vec(&List { object: "list", data }).expect("wire types always serialise")
}

/// The body of `GET /v1/models/{id}`.
pub fn one(model: &Model) -> Vec<u8> {
    serde_json::to_vec(&Entry::from(model)).expect("wire types always serialise")
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelList")]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicModelList")]
struct Page<'a> {
    data: Vec<Info<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelEntry")]
struct Entry<'a> {
    object: &'static str,
    #[serde(flatten)]
    model: &'a Model,
}

impl<'a> From<&'a Model> for Entry<'a> {
    fn from(model: &'a Model) -> Self {
        Self { object: "model", model }
    }
}

/// The body of `GET /v1/models` in Anthropic's shape; everything is on one page.
pub fn anthropic_list(models: &[Model]) -> Vec<u8> {
    let page = Page {
        data: models.iter().map(Info::from).collect(),
        has_more: false,
        first_id: models.first().map(|model| model.id.as_str()),
        last_id: models.last().map(|model| model.id.as_str()),
    };
    serde_json::to_vec(&page).expect("wire types always serialise")
}

/// The body of `GET /v1/models/{id}` in Anthropic's shape.
pub fn anthropic_one(model: &Model) -> Vec<u8> {
    serde_json::to_vec(&Info::from(model)).expect("wire types always serialise")
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AnthropicModel")]
struct Info<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: String,
    lifecycle: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_input_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

impl<'a> From<&'a Model> for Info<'a> {
    fn from(model: &'a Model) -> Self {
        Self {
            kind: "model",
            id: &model.id,
            display_name: &model.id,
            created_at: rfc3339(model.created),
            lifecycle: "active",
            max_input_tokens: model.max_model_len,
            max_tokens: model.limit.and_then(|limit| limit.output).or(model.max_model_len),
        }
    }
}

/// Unix seconds as a date and time in UTC.
fn rfc3339(unix_secs: u64) -> String {
    // Years are counted from March, so that a leap day is the last day of its year.
    const DAYS_TO_EPOCH: u64 = 719_468;
    const DAYS_IN_ERA: u64 = 146_097;
    let (days, second) = (unix_secs / 86_400 + DAYS_TO_EPOCH, unix_secs % 86_400);
    let (era, day) = (days / DAYS_IN_ERA, days % DAYS_IN_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The shape of one model.
/// The list and one model, and both in Anthropic's shape.
pub(crate) fn schemas(generator: &mut schemars::SchemaGenerator) -> [schemars::Schema; 4] {
    [
        generator.subschema_for::<List<'_>>(),
        generator.subschema_for::<Entry<'_>>(),
        generator.subschema_for::<Page<'_>>(),
        generator.subschema_for::<Info<'_>>(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    // Requirement 26
    #[test]
    fn limits_are_told_flat_and_nested_and_left_out_when_unknown() {
        let known = Model::new("sprout", 1_700_000_000, Some(4096));
        let unknown = Model::new("other", 1_700_000_000, None);
        let body = String::from_utf8(list(&[known, unknown])).expect("UTF-8");
        insta::assert_snapshot!(body);
    }

    #[test]
    fn one_model_reads_back() {
        let mut model = Model::new("sprout", 5, None);
        model.locations.push(Location { node: "n1".to_owned(), status: "ready".to_owned() });
        model.loaded = Some(true);
        let body = one(&model);
        assert!(body.starts_with(b"{\"object\":\"model\",\"id\":\"sprout\""));
        assert_eq!(serde_json::from_slice::<Model>(&body).expect("a model"), model);
    }

    #[test]
    fn dates_are_right_at_their_edges() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (secs, date) in table {
            assert_eq!(rfc3339(secs), date);
        }
    }

    #[test]
    fn the_same_models_in_anthropics_shape() {
        let known = Model::new("sprout", 1_700_000_000, Some(4096));
        let unknown = Model::new("other", 0, None);
        let body = anthropic_list(&[known.clone(), unknown]);
        insta::assert_snapshot!(String::from_utf8(body).expect("UTF-8"));
        let one: serde_json::Value = serde_json::from_slice(&anthropic_one(&known)).expect("JSON");
        assert_eq!((&one["type"], &one["id"]), (&"model".into(), &"sprout".into()));
        assert!(anthropic_list(&[]).ends_with(b"\"first_id\":null,\"last_id\":null}"));
    }
}
