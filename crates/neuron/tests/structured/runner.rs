//! Schemas -> grammars -> answers, through the text side and the engine.

use std::collections::HashMap;
use std::fs;

use dialog::{AnswerFormat, GenerateRequest, Json, Prompt};
use engine::{Engine, EngineSpec, Grammar, Sampling, TokenEngine, TokenRequest, Vocabulary};
use serde_json::Value;
use text::{HuggingFaceFiles, TextModel};

/// How an answer came out.
pub(crate) struct Outcome {
    pub(crate) text: String,
    pub(crate) end: engine::End,
}

pub(crate) struct Runner {
    engine: Engine,
    model: TextModel,
}

const MAX_TOKENS: u32 = 1000;
/// More requests than run together, so that some wait.
const TOGETHER: u32 = 16;

impl Runner {
    pub(crate) fn new() -> Self {
        Self::with_blocks(TOGETHER * (MAX_TOKENS + 64) / 16)
    }

    pub(crate) fn with_blocks(kv_blocks: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        testkit::write_random_model(dir.path(), 11).unwrap();
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        let (tokenizer, generation_config) =
            (read("tokenizer.json"), read("generation_config.json"));
        let model = TextModel::from_hugging_face(&HuggingFaceFiles {
            tokenizer: &tokenizer,
            generation_config: Some(&generation_config),
            ..HuggingFaceFiles::default()
        });
        let spec = EngineSpec {
            context: Some(MAX_TOKENS + 64),
            max_running: TOGETHER,
            kv_blocks: Some(kv_blocks),
            ..EngineSpec::new(dir.path())
        };
        let mut engine = engine::load(&spec, &mut |_, _| {}).unwrap();
        let model = model.unwrap();
        let bytes = |id| model.tokenizer.token_bytes(id).to_vec();
        engine.set_vocabulary(Vocabulary {
            bytes: (0..model.tokenizer.vocab_size()).map(bytes).collect(),
            specials: model.tokenizer.added().collect(),
        });
        Self { engine, model }
    }

    /// One answer for each schema, all of them asked for at once.
    pub(crate) fn answers(&mut self, schemas: &[Value], masked: bool) -> Vec<Outcome> {
        let mut tokens: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut ends = HashMap::new();
        let mut waiting = (0..).zip(schemas).peekable();
        while waiting.peek().is_some() || !self.engine.is_idle() {
            // The compiler's line is bounded.
            while self.engine.gauges().waiting < TOGETHER
                && let Some((id, schema)) = waiting.next()
            {
                let request = self.request(id, schema, masked);
                self.engine.submit(request).unwrap();
            }
            let report = self.engine.step().unwrap();
            for settled in report.settled {
                let schema = &schemas[settled.id as usize];
                assert_eq!(settled.refusal, None, "schema: {schema}");
            }
            for update in report.updates {
                tokens.entry(update.id).or_default().extend(update.tokens);
                ends.extend(update.end.map(|end| (update.id, end)));
            }
        }
        (0..schemas.len() as u64)
            .map(|id| Outcome { text: self.text(&tokens[&id]), end: ends[&id] })
            .collect()
    }

    fn request(&self, id: u64, schema: &Value, masked: bool) -> TokenRequest {
        let format = Some(AnswerFormat::JsonSchema(Json(schema.to_string())));
        let prompt = Prompt::Text(format!("Answer {id}:"));
        let request = GenerateRequest { format, ..GenerateRequest::new("m", prompt) };
        let prepared = self.model.prepare(&request).unwrap();
        let grammar = self.model.grammar(&request, &prepared);
        let grammar = grammar.unwrap_or_else(|error| panic!("{error}\nschema: {schema}"));
        // Strings of random bytes would go on for hundreds of tokens.
        let logit_bias = b"\"]},".iter().map(|byte| (u32::from(*byte), 2.5)).collect();
        TokenRequest {
            sampling: Sampling { temperature: 1.0, seed: id, logit_bias, ..Sampling::greedy() },
            stop_tokens: self.model.stop_tokens.clone(),
            grammar: grammar.filter(|_| masked).map(Grammar),
            ..TokenRequest::new(id, prepared.tokens, MAX_TOKENS)
        }
    }

    /// Without the stop token; an answer may be cut within a character.
    fn text(&self, tokens: &[u32]) -> String {
        let shown = tokens.iter().filter(|token| !self.model.stop_tokens.contains(token));
        let bytes: Vec<u8> =
            shown.flat_map(|token| self.model.tokenizer.token_bytes(*token)).copied().collect();
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let whole = error.utf8_error().valid_up_to();
                String::from_utf8_lossy(&error.into_bytes()[..whole]).into_owned()
            }
        }
    }
}

/// Whether the answer is JSON that the schema allows.
pub(crate) fn validate(schema: &Value, text: &str) -> Result<(), String> {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        // JSON bounds no number; a reader without room for it is not the answer's fault.
        Err(error) if error.to_string().starts_with("number out of range") => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let validator = jsonschema::options().should_validate_formats(true).build(schema);
    validator
        .unwrap()
        .validate(&value)
        .map_err(|error| format!("{error} at {}", error.instance_path()))
}

/// Whether more text could make JSON of it.
pub(crate) fn is_beginning(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_err_and(|error| error.is_eof())
}
