//! The shape of `GET /v1/models` and `GET /v1/models/{id}`.

use serde::{Deserialize, Serialize};

/// One model; what is unknown is left out, never written as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Prompt and answer together.
    pub context: u32,
    /// The answer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u32>,
}

/// A model on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<Entry<'a>>,
    }
    let data = models.iter().map(Entry::from).collect();
    serde_json::to_vec(&List { object: "list", data }).expect("wire types always serialise")
}

/// The body of `GET /v1/models/{id}`.
pub fn one(model: &Model) -> Vec<u8> {
    serde_json::to_vec(&Entry::from(model)).expect("wire types always serialise")
}

#[derive(Serialize)]
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
}
